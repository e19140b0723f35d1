//! Warmpath's prefix index beside its peers, on the same events and queries in the same run.
//!
//! `cargo run --release` prints all tables; names print only those that begin so (`16:64:best`, `tokens`, `churn`), `--quick`
//! takes the first quarter of the trace, one round and a fifth of the churn, and `--peer NAME` (several times, a part of the
//! name) leaves out all other peers. What is being done goes to standard error. All of it takes about half an hour of a quiet
//! core, `--quick` four minutes; most of that is the slowest peers'.
//!
//! Fairness: everybody's events and queries are prepared in its own types before the clock starts; a query's hashes are
//! copied right before it is asked, as warm as they are right after hashing; lookups run in turns of 4,096, all contenders over
//! the same queries; stores and removals are CPU time of the thread that does them; the longest answers are compared, and a
//! contender that disagrees is marked. All use mimalloc. The last line of a table is the best peer of each column over ours.
//!
//! "full" asks for the trace's prompts once all are stored, so that each is held in full by somebody; "arr" asks for them as
//! they arrived, with what no earlier request had brought replaced by what nobody knows. "mix" is a lookup's and a block's CPU
//! time while one thread looks up without a pause and another removes and stores a third of all blocks.

mod churn;
mod contenders;
mod measure;
mod scenario;
mod table;
mod workload;

use std::path::Path;
use workload::Placement;

#[global_allocator]
static ALLOCATOR: measure::Counting = measure::Counting;

/// Blocks that come and go in the churn scenario.
const CHURN_BLOCKS: usize = 20_000_000;

/// What to measure.
#[derive(Default)]
pub struct Asked {
    quick: bool,
    scenarios: Vec<String>,
    peers: Vec<String>,
}

impl Asked {
    fn from_arguments() -> Result<Self, String> {
        let mut asked = Asked::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => asked.quick = true,
                "--peer" => asked.peers.push(arguments.next().ok_or("--peer takes a part of a peer's name")?),
                option if option.starts_with('-') => return Err(format!("{option} is neither --quick nor --peer")),
                _ => asked.scenarios.push(argument),
            }
        }
        Ok(asked)
    }

    fn scenario(&self, name: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|wanted| name.starts_with(wanted.as_str()))
    }

    /// Whether a contender takes part; we always do.
    pub fn contender(&self, name: &str) -> bool {
        name == "Warmpath" || self.peers.is_empty() || self.peers.iter().any(|peer| name.contains(peer.as_str()))
    }
}

fn main() {
    let asked = Asked::from_arguments().unwrap_or_else(|problem| {
        eprintln!("{problem}");
        std::process::exit(2);
    });
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/mooncake/conversation_trace.jsonl.gz");
    let mut trace = workload::read_trace(&trace);
    if asked.quick {
        trace.truncate(trace.len() / 4);
    }
    for (block_tokens, expansion, rounds) in [(512, 1, 9), (16, 32, 3)] {
        for instances in [8, 64, 512] {
            for (placement, name) in [(Placement::BestOverlap, "best"), (Placement::Random, "random")] {
                let name = format!("{block_tokens}:{instances}:{name}");
                if asked.scenario(&name) {
                    let workload = workload::build(&trace, expansion, instances, placement);
                    scenario::run(&name, &workload, if asked.quick { 1 } else { rounds }, &asked);
                }
            }
        }
    }
    if asked.scenario("tokens") {
        scenario::tokens(&asked);
    }
    if asked.scenario("churn") {
        churn::run(if asked.quick { CHURN_BLOCKS / 5 } else { CHURN_BLOCKS }, &asked);
    }
}
