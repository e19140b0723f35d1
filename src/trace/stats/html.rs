//! Statistics as one page that needs nothing else.

use super::plot::{Plot, style};
use super::{Distribution, Stats};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#222}\
    pre{font:12px/1.4 ui-monospace,monospace;overflow-x:auto;background:#f6f6f6;padding:1rem}\
    .plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(26rem,1fr));gap:1rem}\
    svg{width:100%}text{font:11px system-ui,sans-serif;fill:#444}.title{font-weight:600;font-size:13px;fill:#222}\
    .grid{stroke:#ddd;fill:none}";

impl Stats {
    /// The whole as one HTML page, plots included.
    pub fn to_html(&self) -> String {
        let plots: Vec<String> = self.plots().iter().map(Plot::to_svg).collect();
        let (title, text) = (escaped(&self.file), escaped(&self.to_text()));
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             <style>{STYLE}{}</style></head>\n<body><h1>{title}</h1>\n<p>prefix: {}</p>\n\
             <div class=\"plots\">{}</div>\n<pre>{text}</pre>\n</body></html>\n",
            style(),
            escaped(&self.prefix.to_string()),
            plots.join("\n"),
        )
    }

    fn plots(&self) -> Vec<Plot<'_>> {
        let arrivals = &self.arrivals;
        let rate = arrivals.rate.iter().zip(0..).map(|(&rate, bin)| (f64::from(bin) * arrivals.bin_seconds, rate));
        let lengths = vec![("input", cumulative(&self.input_tokens)), ("output", cumulative(&self.output_tokens))];
        let plot = |title, x, y, log_x, lines| Plot { title, x, y, log_x, lines };
        let mut plots = vec![
            plot("Arrivals", "seconds", "requests/s", false, vec![("rate", rate.collect())]),
            plot("Lengths", "tokens", "share of requests", true, lengths),
        ];
        if let Some(sessions) = &self.sessions {
            let sizes = vec![("requests", cumulative(&sessions.requests_per_session))];
            plots.push(plot("Session sizes", "requests", "share of sessions", true, sizes));
            if sessions.gap_seconds.count > 0 {
                let gaps = vec![("gap", cumulative(&sessions.gap_seconds))];
                plots.push(plot("Time to the next turn", "seconds", "share of turns", true, gaps));
            }
        }
        if let Some(reuse) = &self.reuse {
            let line = |name, ratio: fn(&super::CacheSize) -> f64| {
                (name, reuse.cache_sizes.iter().map(|size| (size.blocks as f64, ratio(size))).collect())
            };
            let ratios = vec![
                line("FIFO", |size| size.fifo),
                line("LRU", |size| size.lru),
                line("clairvoyant", |size| size.clairvoyant),
            ];
            plots.push(plot("Hit ratio by cache size", "blocks", "block hit ratio", true, ratios));
            let times = vec![("reuse", cumulative(&reuse.reuse_seconds))];
            plots.push(plot("Reuse time", "seconds", "share of reuses", true, times));
            let distances = vec![("distance", cumulative(&reuse.stack_distance_blocks))];
            plots.push(plot("Stack distance", "blocks", "share of reuses", true, distances));
            let popular = reuse.popularity.iter().map(|top| (top.top_share * 100.0, top.reuse_share)).collect();
            plots.push(plot("Popularity", "most popular blocks, %", "share of reuse", false, vec![("top", popular)]));
        }
        plots
    }
}

fn cumulative(numbers: &Distribution) -> Vec<(f64, f64)> {
    numbers.curve.iter().zip(0..).map(|(&number, step)| (number, f64::from(step) / 50.0)).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
