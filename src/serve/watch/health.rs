//! Whether an instance is there: `/health`, and whether it sleeps or is paused, which its `/health` does not say.
//!
//! An instance that speaks gRPC alone is asked by `HealthCheck`.
//!
//! `/is_sleeping` and `/is_paused` exist in vLLM's development mode only; where they do not, `vllm:engine_sleep_state` of
//! `/metrics` tells whether it sleeps.

use crate::config::Protocol;
use crate::routing::InstanceId;
use crate::serve::core::Core;
use crate::serve::health::Check;
use crate::serve::ingress::vllm::is_healthy;
use crate::serve::upstream::grpc::{HEALTH_CHECK, framed};
use crate::serve::upstream::{AnswerLimits, ClientHeaders, Upstream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Checks an instance again and again, until `stop`.
pub(in crate::serve) async fn watch(
    core: Arc<Core>,
    upstream: Arc<Upstream>,
    instance: InstanceId,
    interval: Duration,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let over_http = core.member(instance).address(Protocol::OpenAi).is_some();
    let protocol = if over_http { Protocol::OpenAi } else { Protocol::VllmEngine };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(_tick) = stop.run_until_cancelled(ticks.tick()).await {
        let Some(check) = stop.run_until_cancelled(check(&upstream, instance, protocol)).await else {
            break;
        };
        core.checked(instance, check);
    }
    Ok(())
}

async fn check(upstream: &Upstream, instance: InstanceId, protocol: Protocol) -> Check {
    match protocol {
        Protocol::OpenAi => check_http(upstream, instance).await,
        Protocol::VllmEngine | Protocol::Inference => {
            let (headers, limits) = (ClientHeaders::default(), AnswerLimits::SHORT);
            let answer = upstream.call(instance, protocol, HEALTH_CHECK, headers, framed(&[]), limits).await;
            if answer.is_ok_and(|message| is_healthy(&message)) { Check::Awake } else { Check::Failed }
        }
    }
}

async fn check_http(upstream: &Upstream, instance: InstanceId) -> Check {
    let Ok((200, _)) = upstream.get(instance, "/health", None).await else {
        return Check::Failed;
    };
    if says_yes(upstream, instance, "/is_paused").await == Some(true) {
        return Check::Resting;
    }
    let asleep = match says_yes(upstream, instance, "/is_sleeping").await {
        Some(asleep) => asleep,
        None => match upstream.get(instance, "/metrics", None).await {
            Ok((200, metrics)) => sleeps(&metrics),
            Ok(_) | Err(_) => false,
        },
    };
    if asleep { Check::Resting } else { Check::Awake }
}

/// What a question is answered with: `{"is_paused": true}`; `None` where it is not understood.
async fn says_yes(upstream: &Upstream, instance: InstanceId, question: &str) -> Option<bool> {
    let (200, answer) = upstream.get(instance, question, None).await.ok()? else {
        return None;
    };
    let answer: serde_json::Value = serde_json::from_slice(&answer).ok()?;
    answer.get(question.trim_start_matches('/'))?.as_bool()
}

/// Whether any engine behind these metrics is not awake.
fn sleeps(metrics: &[u8]) -> bool {
    let awake = |line: &&[u8]| {
        line.starts_with(b"vllm:engine_sleep_state{") && memchr::memmem::find(line, b"sleep_state=\"awake\"").is_some()
    };
    let is_zero = |line: &[u8]| line.ends_with(b"} 0.0") || line.ends_with(b"} 0");
    metrics.split(|&byte| byte == b'\n').filter(awake).any(is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_sleeps_when_it_is_not_awake() {
        let state = |awake: &str| {
            format!(
                "# HELP vllm:engine_sleep_state x\nvllm:engine_sleep_state{{engine=\"0\",sleep_state=\"awake\"}} {awake}\n\
                 vllm:engine_sleep_state{{engine=\"0\",sleep_state=\"discard_all\"}} 0.0\n"
            )
        };
        assert!(sleeps(state("0.0").as_bytes()));
        assert!(!sleeps(state("1.0").as_bytes()));
        assert!(!sleeps(b"vllm:num_requests_running 0.0\n"));
    }
}
