//! What is done with each method of vLLM's gRPC services.

use super::view::Kind;
use crate::config::Protocol;

/// Who answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// The instance that is best for its prompt.
    Routed(Kind),
    /// Any instance: they are all alike in it.
    Anyone,
    /// Every instance, since nobody knows which one it is about.
    Everyone,
    /// The router: whether anyone takes requests.
    Health,
    /// Nobody: it is about one instance, which is to be asked itself.
    Nobody,
}

/// The services, by the first part of their paths.
pub(super) const SERVICES: [(&str, Protocol); 3] = [
    ("vllm.grpc.engine.VllmEngine", Protocol::VllmEngine),
    ("vllm.Inference", Protocol::Inference),
    ("vllm.Control", Protocol::Inference),
];

impl Method {
    /// The method of a service; `None` for one that is not known.
    pub fn of(service: &str, name: &str) -> Option<Method> {
        Some(match (service, name) {
            ("vllm.grpc.engine.VllmEngine", "Generate") => Method::Routed(Kind::EngineGenerate),
            ("vllm.grpc.engine.VllmEngine", "Embed") => Method::Routed(Kind::EngineEmbed),
            ("vllm.grpc.engine.VllmEngine", "HealthCheck") => Method::Health,
            ("vllm.grpc.engine.VllmEngine", "GetModelInfo" | "GetServerInfo" | "GetTokenizer") => Method::Anyone,
            ("vllm.grpc.engine.VllmEngine", "Abort" | "FlushCache" | "StartProfile" | "StopProfile") => {
                Method::Everyone
            }
            ("vllm.grpc.engine.VllmEngine", "GetLoads" | "SubscribeKvEvents") => Method::Nobody,
            ("vllm.Inference", "Generate" | "GenerateStream") => Method::Routed(Kind::Inference),
            ("vllm.Control", "GetServerInfo" | "GetModelInfo" | "ListLoras") => Method::Anyone,
            ("vllm.Control", "Abort") => Method::Everyone,
            ("vllm.Control", _) => Method::Nobody,
            _ => return None,
        })
    }
}
