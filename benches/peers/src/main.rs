//! Warmpath's prefix index beside its peers, on the same events and queries in the same run.
//!
//! `cargo run --release` prints all tables; with an argument only those whose name begins so: `16:64:best`, `tokens`, `churn`.
//!
//! Fairness: everybody's events and queries are prepared in its own types before the clock starts; a query's hashes are
//! copied right before it is asked, as warm as they are right after hashing; lookups run in turns of 4,096, all contenders over
//! the same queries; stores and removals are CPU time of the thread that does them; the longest answers are compared, and a
//! contender that disagrees is marked. All use mimalloc. The last line of a table is the best peer of each column over ours.
//!
//! "full" asks for the trace's prompts once all are stored, so that each is held in full by somebody; "arr" asks for them as
//! they arrived, with what no earlier request had brought replaced by what nobody knows. "mix" is a lookup's and a block's CPU
//! time while one thread looks up without a pause and another removes and stores a third of all blocks.

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

fn main() {
    let only = std::env::args().nth(1);
    let wanted = |name: &str| only.as_ref().is_none_or(|only| name.starts_with(only.as_str()));
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/mooncake/conversation_trace.jsonl.gz");
    let trace = workload::read_trace(&trace);
    for (block_tokens, expansion, rounds) in [(512, 1, 9), (16, 32, 3)] {
        for instances in [8, 64, 512] {
            for (placement, name) in [(Placement::BestOverlap, "best"), (Placement::Random, "random")] {
                let name = format!("{block_tokens}:{instances}:{name}");
                if wanted(&name) {
                    scenario::run(&name, &workload::build(&trace, expansion, instances, placement), rounds);
                }
            }
        }
    }
    if wanted("tokens") {
        scenario::tokens();
    }
    if wanted("churn") {
        scenario::churn(CHURN_BLOCKS);
    }
}
