//! Compiles the protos, without a protoc binary. The core has none, so without the `serve` feature nothing happens here.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(feature = "serve")]
    serve::compile()?;
    Ok(())
}

#[cfg(feature = "serve")]
mod serve {
    use prost::Message;
    use std::error::Error;
    use std::path::PathBuf;

    /// What the router serves, and reflects.
    const OURS: [&str; 1] = ["proto/warmpath/v1/router.proto"];
    /// What vLLM serves.
    const VLLM: [&str; 2] = ["proto/vllm/engine.proto", "proto/vllm/inference.proto"];

    pub fn compile() -> Result<(), Box<dyn Error>> {
        println!("cargo::rerun-if-changed=proto");
        let descriptors = protox::compile(OURS, ["proto"])?;
        // Given descriptors, the generator leaves them out of its own output: reflection needs them written here.
        let out = PathBuf::from(std::env::var("OUT_DIR")?);
        std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
        tonic_prost_build::configure().emit_rerun_if_changed(false).compile_fds(descriptors)?;
        let descriptors = protox::compile(VLLM, ["proto"])?;
        tonic_prost_build::configure().emit_rerun_if_changed(false).compile_fds(descriptors)?;
        Ok(())
    }
}
