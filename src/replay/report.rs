//! Outcomes side by side: for people as a table, for programs as JSON.

use super::experiment::Experiment;
use super::outcome::Outcome;
use crate::trace::{InfiniteCache, Provenance, Synthetic, Tally, Trace};
use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;
use std::time::Duration;

/// What a replay found. Serialises to JSON with these field names; nothing in it depends on when or where it ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The requests.
    pub trace: TraceSummary,
    /// The simulated fleet.
    pub fleet: FleetSummary,
    /// The best that any cache could do.
    pub ideal: Ideal,
    /// One for each policy, in the order asked for.
    pub outcomes: Vec<Outcome>,
}

/// What was replayed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceSummary {
    /// The file, without its folder.
    pub file: String,
    /// How it is written.
    pub format: &'static str,
    /// Tokens a block.
    pub block_tokens: u32,
    /// Requests replayed.
    pub requests: u64,
    /// From the first request to the last, as recorded.
    pub seconds: f64,
    /// Where the prefix structure, and with it every hit ratio, comes from.
    pub prefix: Provenance,
    /// What reading left out.
    pub tally: Tally,
}

/// What it was replayed to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetSummary {
    /// How many instances.
    pub instances: u16,
    /// KV blocks in each.
    pub blocks: u32,
    /// What they run, on what.
    pub preset: String,
    /// What the time between requests was multiplied by.
    pub time_scale: f64,
    /// Whether requests of one timestamp were spread out.
    pub spread_ties: bool,
    /// What seeded chance.
    pub seed: u64,
}

/// An infinite cache shared by all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ideal {
    /// Of all blocks, the partial last ones included, as papers count: prompts only.
    pub block_hit_ratio: f64,
    /// Of all prompt tokens, so counted.
    pub token_hit_ratio: f64,
    /// As an engine counts, of all blocks: full blocks only, the last token of a prompt always computed, and blocks that an
    /// output completed as good as those of prompts, where the trace tells what it was.
    pub reachable_block_hit_ratio: f64,
    /// Of all prompt tokens, so counted: no replay can hit more.
    pub reachable_token_hit_ratio: f64,
    /// Distinct blocks in the trace.
    pub distinct_blocks: usize,
}

impl TraceSummary {
    pub(super) fn new(trace: &Trace, requests: u64, last: Duration, tally: Tally) -> Self {
        let path = trace.path();
        TraceSummary {
            file: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            format: trace.format().name(),
            block_tokens: trace.block_size().tokens(),
            requests,
            seconds: last.as_secs_f64(),
            prefix: trace.provenance().clone(),
            tally,
        }
    }
}

impl TraceSummary {
    pub(super) fn of_synthetic(name: &str, synthetic: &Synthetic, requests: u64, last: Duration) -> Self {
        TraceSummary {
            file: name.to_owned(),
            format: "synthetic",
            block_tokens: synthetic.block_size.tokens(),
            requests,
            seconds: last.as_secs_f64(),
            prefix: synthetic.provenance.clone(),
            tally: Tally::default(),
        }
    }
}

impl Ideal {
    /// Of what was read; what is reachable is not known of records one by one.
    pub(super) fn new(cache: &InfiniteCache) -> Self {
        let reuse = cache.reuse();
        Ideal {
            block_hit_ratio: reuse.block_hit_ratio(),
            token_hit_ratio: reuse.token_hit_ratio(),
            distinct_blocks: cache.distinct_blocks(),
            reachable_block_hit_ratio: 0.0,
            reachable_token_hit_ratio: 0.0,
        }
    }
}

impl Report {
    pub(super) fn new(experiment: &Experiment, trace: TraceSummary, ideal: Ideal, outcomes: Vec<Outcome>) -> Self {
        let Experiment { fleet, time_scale, seed, spread_ties, .. } = *experiment;
        let preset = fleet.preset_name();
        let (instances, blocks) = (fleet.instances, fleet.blocks);
        let fleet = FleetSummary { instances, blocks, preset, time_scale, spread_ties, seed };
        Report { trace, fleet, ideal, outcomes }
    }

    /// The share of the reachable token hit ratio that an outcome reached; `None` where nothing can be hit.
    pub fn share_of_ideal(&self, outcome: &Outcome) -> Option<f64> {
        let reachable = self.ideal.reachable_token_hit_ratio;
        (reachable > 0.0).then(|| outcome.token_hit_ratio / reachable)
    }

    /// A heading, an aligned table and, where there is any, what was left out.
    pub fn to_text(&self) -> String {
        let TraceSummary { file, format, block_tokens, requests, seconds, prefix, tally } = &self.trace;
        let fleet = &self.fleet;
        let mut text = format!(
            "{file} · {format}, {block_tokens}-token blocks · {requests} requests in {seconds:.0} s · \
             prefix: {prefix}\n\
             {} instances · {} blocks each · {} · time scale {} · seed {}\n",
            fleet.instances, fleet.blocks, fleet.preset, fleet.time_scale, fleet.seed
        );
        text += &format!("{}\n", self.table());
        for line in tally.lines() {
            text += &format!("{line}\n");
        }
        if let Some(refused) = self.outcomes.iter().map(|outcome| outcome.refused_too_large).max().filter(|&n| n > 0) {
            text +=
                &format!("{refused} requests were refused: they need more blocks than an instance has (--blocks)\n");
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = ruled_table();
        table.set_header([
            "policy",
            "requests",
            "token\nhit",
            "block\nhit",
            "of\nideal",
            "TTFT s\nmean",
            "\np50",
            "\np90",
            "\np99",
            "max/mean\nrequests",
            "max/mean\nbusy",
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for outcome in &self.outcomes {
            let ttft = &outcome.ttft_seconds;
            let mut row = vec![outcome.policy.clone(), outcome.requests.to_string()];
            row.extend([outcome.token_hit_ratio, outcome.block_hit_ratio].map(|ratio| format!("{ratio:.4}")));
            row.push(self.share_of_ideal(outcome).map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0)));
            row.extend([ttft.mean, ttft.p50, ttft.p90, ttft.p99].map(|seconds| format!("{seconds:.3}")));
            row.extend([&outcome.requests_balance, &outcome.busy_balance].map(|b| format!("{:.2}", b.max_over_mean)));
            table.add_row(row);
        }
        let ratios = [self.ideal.reachable_token_hit_ratio, self.ideal.reachable_block_hit_ratio];
        let ratios = ratios.map(|ratio| format!("{ratio:.4}"));
        let mut ideal = vec![Cell::new("ideal"), Cell::new(self.trace.requests)];
        ideal.extend(ratios.map(Cell::new));
        table.add_row(ideal);
        table
    }
}

/// An empty table with a rule above, below and under its heading.
pub fn ruled_table() -> Table {
    let rule = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table.load_style(TableStyle::new().top_border(rule).header_separator(rule).bottom_border(rule));
    table
}
