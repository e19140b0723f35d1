//! Compiles the protos, without a protoc binary. The core has none, so it needs nothing here.

fn main() {}
