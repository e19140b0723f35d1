//! Statistics for people, as aligned text.

use super::{Distribution, Stats};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

impl Stats {
    /// A heading and one table for each aspect that the trace knows of.
    pub fn to_text(&self) -> String {
        let Stats { file, format, block_tokens, prefix, requests, arrivals, .. } = self;
        let mut text = format!(
            "{file} · {format}, {block_tokens}-token blocks · {requests} requests in {:.0} s · prefix: {prefix}\n",
            arrivals.seconds
        );
        for line in self.tally.lines() {
            text += &format!("{line}\n");
        }
        text += &format!(
            "\narrivals: {:.3}/s, interarrival CV {:.2} ({:.2} within 5 min), index of dispersion {:.2} (1 s), {:.2} (60 s)\n",
            arrivals.rate_per_second,
            arrivals.interarrival_cv,
            arrivals.interarrival_cv_5min,
            arrivals.dispersion_1s,
            arrivals.dispersion_60s
        );
        text += &self.rate_over_time();
        text += &format!("\n{}\n", self.lengths());
        self.add_sessions(&mut text);
        if !self.kinds.is_empty() {
            let rows = self.kinds.iter().map(|kind| {
                let share = kind.requests as f64 / self.requests.max(1) as f64;
                let hits = kind.hit_ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.4}"));
                vec![kind.kind.clone(), kind.requests.to_string(), format!("{share:.3}"), hits]
            });
            let hits = format!("block hit, prefix: {}", self.prefix);
            text += &format!("\n{}\n", table(&["kind", "requests", "share", &hits], rows));
        }
        self.add_reuse(&mut text);
        self.add_published(&mut text);
        text
    }

    /// One line of bars, each of a whole number of bins and as high as the mean of these.
    fn rate_over_time(&self) -> String {
        const BARS_MAX: usize = 60;
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let arrivals = &self.arrivals;
        let bins = arrivals.whole_bins().len().div_ceil(BARS_MAX).max(1);
        let mean = |bins: &[f64]| bins.iter().sum::<f64>() / bins.len() as f64;
        let rates: Vec<f64> = arrivals.whole_bins().chunks(bins).map(mean).collect();
        let most = rates.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let bars: String = rates.iter().map(|rate| BARS[(rate / most * 7.0).round() as usize]).collect();
        format!("{bars} up to {most:.3}/s, {:.0} s each\n", arrivals.bin_seconds * bins as f64)
    }

    fn lengths(&self) -> Table {
        let mut rows = vec![row("input tokens", &self.input_tokens, 0), row("output tokens", &self.output_tokens, 0)];
        if let Some(sessions) = &self.sessions {
            rows.push(row("requests a session", &sessions.requests_per_session, 2));
            rows.push(row("gap to next turn s", &sessions.gap_seconds, 1));
        }
        if let Some(reuse) = &self.reuse {
            rows.push(row("reuse time s", &reuse.reuse_seconds, 1));
            rows.push(row("stack distance blocks", &reuse.stack_distance_blocks, 0));
        }
        table(&["", "mean", "p25", "p50", "p75", "p90", "p99", "max"], rows.into_iter())
    }

    fn add_sessions(&self, text: &mut String) {
        let Some(sessions) = &self.sessions else {
            *text += "\nsessions: the trace knows none\n";
            if let Some(continued) = self.reuse.as_ref().and_then(|reuse| reuse.continued.as_ref()) {
                *text += &format!(
                    "judged by prompts (prefix: {}), {:.3} of the requests continue another, after {:.0} s in the median\n",
                    self.prefix, continued.share, continued.gap_seconds.p50
                );
            }
            return;
        };
        let [first, second, few, more, many] = sessions.turns;
        *text += &format!(
            "\nsessions: {}, {:.3} of them a single request · {:.3} of the requests continue another\n\
             turns: {first} first · {second} second · {few} third to fifth · {more} sixth to tenth · {many} later\n",
            sessions.sessions, sessions.single_request_share, sessions.child_share
        );
        if sessions.missing_parents > 0 {
            *text +=
                &format!("{} requests name a parent that is missing; counted as first\n", sessions.missing_parents);
        }
    }

    fn add_reuse(&self, text: &mut String) {
        let prefix = &self.prefix;
        let Some(reuse) = &self.reuse else {
            *text += &format!("\nreuse: none, prefix: {prefix}; lay one over the trace with --overlay\n");
            return;
        };
        *text += &format!(
            "\nideal hit ratio (prefix: {prefix}): {:.4} of blocks, {:.4} of tokens · second half {:.4}, {:.4}\n",
            reuse.block_hit_ratio,
            reuse.token_hit_ratio,
            reuse.last_half_block_hit_ratio,
            reuse.last_half_token_hit_ratio
        );
        *text += &format!(
            "{:.4} of tokens where only full blocks are kept, as in vLLM · {} distinct first blocks, the most frequent in {:.3} \
             of the prompts\n",
            reuse.full_block_token_hit_ratio, reuse.roots, reuse.top_root_share
        );
        *text += &format!(
            "{} blocks, {} distinct, {:.4} of these reused",
            reuse.blocks, reuse.distinct_blocks, reuse.reused_block_share
        );
        let top = reuse.popularity.iter().filter(|top| top.top_share < 1.0);
        let top: Vec<String> =
            top.map(|top| format!("top {:.0} % have {:.3}", top.top_share * 100.0, top.reuse_share)).collect();
        *text += &format!("\nof all reuse, the most popular blocks: {}", top.join(" · "));
        if self.sessions.is_some() {
            *text += &format!(
                "\nsingle-turn requests hit {:.4} and have {:.3} of all hits, multi-turn hit {:.4} · {:.3} of hits \
                 within a session",
                reuse.single_turn_hit_ratio,
                reuse.single_turn_hit_share,
                reuse.multi_turn_hit_ratio,
                reuse.same_session_hit_share
            );
        }
        let sizes = reuse.cache_sizes.iter().map(|size| {
            let ratios = [size.fifo, size.lru, size.clairvoyant].map(|ratio| format!("{ratio:.4}"));
            [vec![format!("{:.0} %", size.share * 100.0), size.blocks.to_string()], ratios.to_vec()].concat()
        });
        let heading = ["cache", "blocks", "FIFO hit", "LRU hit", "clairvoyant hit"];
        *text += &format!("\n\nprefix: {prefix}\n{}\n", table(&heading, sizes));
        let intervals = reuse.intervals.iter().map(|interval| {
            let seconds = &interval.seconds;
            let numbers = [seconds.mean, seconds.p50, seconds.p90].map(|number| format!("{number:.1}"));
            let fit = format!("{:.3}", interval.fit_distance);
            [vec![interval.name(), seconds.count.to_string()], numbers.to_vec(), vec![fit]].concat()
        });
        let heading = ["reused after", "reuses", "mean s = 1/rate", "p50 s", "p90 s", "distance to fit"];
        *text += &format!("\n{}\n", table(&heading, intervals));
    }

    fn add_published(&self, text: &mut String) {
        let Some(published) = &self.published else { return };
        let said = |matches: bool| if matches { "matches" } else { "DIFFERS" };
        let sha256 = said(published.sha256_matches);
        *text += &format!(
            "\npublished {}: sha256 {sha256} · rows {} ({}) · prefix: {} · ideal hit ratio {} ({}) · LRU hit ratios {} ({})\n",
            published.name,
            said(published.rows_match),
            published.rows,
            self.prefix,
            said(published.ideal_hit_ratio_matches),
            published.ideal_hit_ratio,
            said(published.lru_hit_ratios_match),
            published.lru_hit_ratios.map(|ratio| ratio.to_string()).join(" "),
        );
        if let (Some(matches), Some(by), Some(reuse)) =
            (published.curve_matches, published.curve_largest_difference, &self.reuse)
        {
            *text += &format!(
                "hit ratios by cache size, of the second half's tokens, prefix: {} ({}: off by {by:.4} at most over {} sizes)\n",
                self.prefix,
                said(matches),
                published.curve.len()
            );
            let all = reuse.last_half_curve.iter().zip(&published.curve);
            let rows = some_of(all.collect()).into_iter().map(|(found, published)| {
                let pairs = [
                    (found.fifo, published.fifo),
                    (found.lru, published.lru),
                    (found.clairvoyant, published.clairvoyant),
                ];
                let pairs = pairs.map(|(found, published)| format!("{found:.4} / {published:.4}"));
                std::iter::once(found.blocks.to_string()).chain(pairs).collect()
            });
            *text += &format!("{}\n", table(&["blocks", "FIFO here / published", "LRU", "clairvoyant"], rows));
        }
    }
}

/// Of a long list, twelve that are equally far apart, the first and the last among them.
fn some_of<T>(all: Vec<T>) -> Vec<T> {
    const ROWS: usize = 12;
    let last = all.len().saturating_sub(1);
    let shown: Vec<usize> = (0..ROWS).map(|row| row * last / (ROWS - 1)).collect();
    all.into_iter().enumerate().filter(|(index, _)| shown.contains(index)).map(|(_, one)| one).collect()
}

fn row(name: &str, numbers: &Distribution, digits: usize) -> Vec<String> {
    let shown = [numbers.mean, numbers.p25, numbers.p50, numbers.p75, numbers.p90, numbers.p99, numbers.max];
    std::iter::once(name.to_owned()).chain(shown.map(|number| format!("{number:.digits$}"))).collect()
}

fn table(heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let rule = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table.load_style(TableStyle::new().top_border(rule).header_separator(rule).bottom_border(rule));
    table.set_header(heading.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.add_rows(rows);
    table
}
