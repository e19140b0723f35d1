//! How loaded instances are by their own word: `/metrics`, read as it comes, often while there is something to do and seldom
//! while there is not.
//!
//! What is reported corrects the router's own account (requests of others), and bounds what it believes to be cached where no
//! events come. It never replaces that account: a report is old when it comes.
//!
//! Ranks behind one URL are asked together: one text tells of all of them.

mod scan;

use crate::config::LoadIntervals;
use crate::routing::{Fact, InstanceId, Reported};
use crate::serve::core::Core;
use crate::serve::telemetry::labels::LoadRead;
use crate::serve::upstream::Upstream;
use scan::{Engine, Scan};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest wait after failures.
const FAILED_MAX: Duration = Duration::from_secs(30);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Busy,
    Idle,
    Nothing,
}

/// Looks at the instances behind one URL again and again, until `stop`.
pub(in crate::serve) async fn watch(
    core: Arc<Core>,
    upstream: Arc<Upstream>,
    url: String,
    intervals: LoadIntervals,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut wait = intervals.busy;
    while let Some(found) = stop.run_until_cancelled(look(&core, &upstream, &url)).await {
        wait = next_wait(wait, found, intervals);
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            break;
        }
    }
    Ok(())
}

fn next_wait(wait: Duration, found: Found, intervals: LoadIntervals) -> Duration {
    match found {
        Found::Busy => intervals.busy,
        Found::Idle => (wait * 2).clamp(intervals.busy, intervals.idle),
        Found::Nothing => (wait * 2).clamp(intervals.busy, FAILED_MAX.max(intervals.idle)),
    }
}

async fn look(core: &Core, upstream: &Upstream, url: &str) -> Found {
    // Ranks join and leave one by one.
    let there = core.members().filter(|(_, member)| member.url == url);
    let instances: Vec<InstanceId> = there.map(|(instance, _)| instance).collect();
    let Some(&first) = instances.first() else {
        return Found::Nothing;
    };
    let mut scan = Scan::default();
    let engines = match upstream.read(first, "/metrics", |chunk| scan.push(chunk)).await {
        Ok(200) => scan.finish(),
        Ok(_) | Err(_) => {
            instances.iter().for_each(|&instance| count(core, instance, LoadRead::Failed));
            return Found::Nothing;
        }
    };
    let looked = instances.iter().map(|&instance| {
        let engine = of_rank(&engines, core.member(instance).data_parallel_rank);
        tell(core, instance, &engine.unwrap_or_default())
    });
    looked.fold(Found::Nothing, |one, other| match (one, other) {
        (Found::Busy, _) | (_, Found::Busy) => Found::Busy,
        (Found::Idle, _) | (_, Found::Idle) => Found::Idle,
        (Found::Nothing, Found::Nothing) => Found::Nothing,
    })
}

/// The engine of a rank; of an instance that is not told apart by rank, all its engines together.
fn of_rank(engines: &BTreeMap<u32, Engine>, rank: Option<u32>) -> Option<Engine> {
    if let Some(rank) = rank {
        return engines.get(&rank).copied();
    }
    let total = |of: fn(&Engine) -> Option<u32>| engines.values().filter_map(of).reduce(u32::saturating_add);
    let usages: Vec<f64> = engines.values().filter_map(|engine| engine.cache_usage).collect();
    let all = Engine {
        running: total(|engine| engine.running),
        waiting: total(|engine| engine.waiting),
        cache_usage: (!usages.is_empty()).then(|| usages.iter().sum::<f64>() / usages.len() as f64),
        cache_tokens: engines.values().filter_map(|engine| engine.cache_tokens).reduce(u64::saturating_add),
    };
    (!engines.is_empty()).then_some(all)
}

fn tell(core: &Core, instance: InstanceId, engine: &Engine) -> Found {
    if let Some(tokens) = engine.cache_tokens {
        let blocks = tokens / u64::from(core.router().block_size().tokens());
        let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
        // What does not fit any more could not be forgotten: counted on the way.
        let _ = core.learn(Fact::Sized { instance, blocks });
    }
    let (Some(running), Some(waiting)) = (engine.running, engine.waiting) else {
        count(core, instance, LoadRead::Unreadable);
        return Found::Nothing;
    };
    core.reported(instance, Reported { waiting, running, cache_usage: engine.cache_usage.unwrap_or(0.0) });
    if running + waiting > 0 || core.has_work(instance) { Found::Busy } else { Found::Idle }
}

fn count(core: &Core, instance: InstanceId, read: LoadRead) {
    core.metrics().instance(instance.index()).load_reads.of(read).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVALS: LoadIntervals =
        LoadIntervals { busy: Duration::from_millis(100), idle: Duration::from_millis(1500) };

    #[test]
    fn who_is_busy_is_looked_at_often_and_who_fails_seldom() {
        let waits = |found: &[Found]| {
            let mut wait = INTERVALS.busy;
            let next = |&found: &Found| {
                wait = next_wait(wait, found, INTERVALS);
                wait.as_millis()
            };
            found.iter().map(next).collect::<Vec<_>>()
        };
        use Found::{Busy, Idle, Nothing};
        assert_eq!(waits(&[Idle, Idle, Idle, Idle, Idle, Busy]), [200, 400, 800, 1500, 1500, 100]);
        assert_eq!(waits(&[Nothing; 10])[8..], [30_000, 30_000]);
    }

    fn captured(name: &str) -> BTreeMap<u32, Engine> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm/metrics").join(name);
        let mut scan = Scan::default();
        scan.push(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        scan.finish()
    }

    #[test]
    fn captured_metrics_say_how_loaded_their_engines_are() {
        let idle = Engine { running: Some(0), waiting: Some(0), cache_usage: Some(0.0), cache_tokens: Some(4096) };
        for name in ["metrics.txt", "metrics_lora.txt"] {
            assert_eq!(captured(name), BTreeMap::from([(0, idle)]), "{name}");
        }
        assert_eq!(captured("metrics_dp2.txt"), BTreeMap::from([(0, idle), (1, idle)]));
        let without_size = Engine { cache_tokens: None, ..idle };
        assert_eq!(captured("metrics_rust_frontend.txt"), BTreeMap::from([(0, without_size)]));
        let busy = captured("metrics_decode.txt")[&0];
        assert_eq!((busy.running, busy.cache_tokens), (Some(0), Some(4096)));
    }

    #[test]
    fn ranks_are_told_apart_where_they_are_instances() {
        let engine = |running, usage| Engine {
            running: Some(running),
            waiting: Some(1),
            cache_usage: Some(usage),
            cache_tokens: Some(64),
        };
        let engines = BTreeMap::from([(0, engine(1, 0.5)), (1, engine(2, 1.0))]);
        assert_eq!(of_rank(&engines, Some(1)), Some(engine(2, 1.0)));
        assert_eq!(of_rank(&engines, Some(2)), None);
        let all = Engine { running: Some(3), waiting: Some(2), cache_usage: Some(0.75), cache_tokens: Some(128) };
        assert_eq!((of_rank(&engines, None), of_rank(&BTreeMap::new(), None)), (Some(all), None));
    }
}
