//! What one decision costs, by policy and fleet size: a 12,000-token prompt of 16-token blocks, half of it cached on a
//! quarter of the instances. The ratio is to `random`, which needs nothing of what the others look at.
//!
//! `cargo bench --bench route`; `-- --quick` does little and shows that it runs.

use std::hint::black_box;
use std::time::{Duration, Instant};
use warmpath::routing::block::{ContentHash, EngineHash, Namespace};
use warmpath::routing::policy::PolicyKind;
use warmpath::routing::{Config, Content, Fact, InstanceId, Knowledge, Parent, Prompt, Request, Router, Tier, Time};

const MODEL: &str = "m";
const PROMPT_TOKENS: usize = 12_000;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (decisions, rounds) = if quick { (20, 1) } else { (2000, 7) };
    println!("{:<16} {:>10} {:>12} {:>9}", "policy", "instances", "ns/decision", "ratio");
    for instances in [8, 64, 512] {
        let arms = PolicyKind::ALL.map(|policy| (policy, router(policy, instances)));
        let mut times = arms.each_ref().map(|_| Vec::new());
        // Interleaved, so that a slow moment of the machine falls on all.
        for _ in 0..rounds {
            for ((_, router), times) in arms.iter().zip(&mut times) {
                times.push(time(router, decisions));
            }
        }
        let medians = times.map(|mut times| {
            times.sort_unstable();
            times[rounds / 2].as_nanos() as f64 / f64::from(decisions)
        });
        for ((policy, _), median) in arms.iter().zip(medians) {
            println!("{:<16} {instances:>10} {median:>12.0} {:>9.2}", policy.name(), median / medians[0]);
        }
    }
}

fn prompt() -> Vec<u32> {
    (0..PROMPT_TOKENS as u32).map(|position| position.wrapping_mul(2_654_435_761) >> 15).collect()
}

fn router(policy: PolicyKind, instances: u16) -> Router {
    let router = Router::new(Config { policy, ..Config::default() });
    let tokens = prompt();
    let contents: Vec<ContentHash> = tokens.chunks_exact(16).take(375).map(ContentHash::of_tokens).collect();
    let names: Vec<EngineHash> = (0..contents.len() as u64).map(EngineHash).collect();
    for instance in (0..instances).map(InstanceId) {
        let joined = Fact::Joined { instance, model: MODEL, knowledge: Knowledge::Exact };
        router.learn(joined, Time::ZERO).expect("a new instance joins");
        if instance.0 % 4 == 0 {
            let parent = Parent::Root { lora: None, cache_salt: None };
            let stored =
                Fact::Stored { instance, tier: Tier::Gpu, parent, blocks: &names, content: Content::Hashes(&contents) };
            router.learn(stored, Time::ZERO).expect("an instance stores");
        }
    }
    router
}

fn time(router: &Router, decisions: u32) -> Duration {
    let tokens = prompt();
    let request = Request { namespace: Namespace::of_model(MODEL), prompt: Prompt::Tokens(&tokens), session: None };
    let start = Instant::now();
    for _ in 0..decisions {
        let decision = router.route(black_box(&request), Time::ZERO).expect("an instance is ready");
        router.learn(Fact::Abandoned { request: decision.request }, Time::ZERO).expect("it was just placed");
    }
    start.elapsed()
}
