//! Statistics as one page that needs nothing else.

use super::plot::{COLOURS, Line, Plot, style};
use super::{CurvePoint, Distribution, Interval, ReuseStats, Stats};
use std::cmp::Reverse;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#222}\
    pre{font:12px/1.4 ui-monospace,monospace;overflow-x:auto;background:#f6f6f6;padding:1rem}\
    .plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(26rem,100%),1fr));gap:1rem}\
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

    fn plots(&self) -> Vec<Plot> {
        let arrivals = &self.arrivals;
        let rate =
            arrivals.whole_bins().iter().zip(0..).map(|(&rate, bin)| (f64::from(bin) * arrivals.bin_seconds, rate));
        let lengths =
            vec![line("input", cumulative(&self.input_tokens)), line("output", cumulative(&self.output_tokens))];
        let plot =
            |title: &str, x, y: &str, log_x, lines| Plot { title: title.to_owned(), x, y: y.to_owned(), log_x, lines };
        let mut plots = vec![
            plot("Arrivals", "seconds", "requests/s", false, vec![line("rate", rate.collect())]),
            plot("Lengths", "tokens", "share of requests", true, lengths),
        ];
        if let Some(sessions) = &self.sessions {
            let sizes = vec![line("requests", cumulative(&sessions.requests_per_session))];
            plots.push(plot("Session sizes", "requests", "share of sessions", true, sizes));
            if sessions.gap_seconds.count > 0 {
                let gaps = vec![line("gap", cumulative(&sessions.gap_seconds))];
                plots.push(plot("Time to the next turn", "seconds", "share of turns", true, gaps));
            }
        }
        if let Some(reuse) = &self.reuse {
            let sizes = |name, ratio: fn(&super::CacheSize) -> f64| {
                line(name, reuse.cache_sizes.iter().map(|size| (size.blocks as f64, ratio(size))).collect())
            };
            let ratios = vec![
                sizes("FIFO", |size| size.fifo),
                sizes("LRU", |size| size.lru),
                sizes("clairvoyant", |size| size.clairvoyant),
            ];
            let said = format!("block hit ratio, prefix: {}", escaped(&self.prefix.to_string()));
            plots.push(plot("Hit ratio by cache size", "blocks", &said, true, ratios));
            let times = vec![line("reuse", cumulative(&reuse.reuse_seconds))];
            plots.push(plot("Reuse time", "seconds", "share of reuses", true, times));
            plots.push(self.reuse_by_category(reuse));
            plots.extend(self.beside_published(reuse));
            let distances = vec![line("distance", cumulative(&reuse.stack_distance_blocks))];
            plots.push(plot("Stack distance", "blocks", "share of reuses", true, distances));
            let popular = reuse.popularity.iter().map(|top| (top.top_share * 100.0, top.reuse_share)).collect();
            plots.push(plot(
                "Popularity",
                "most popular blocks, %",
                "share of reuse",
                true,
                vec![line("top", popular)],
            ));
        }
        plots
    }

    /// The categories with most reuses.
    fn reuse_by_category(&self, reuse: &ReuseStats) -> Plot {
        let mut intervals: Vec<&Interval> = reuse.intervals.iter().collect();
        intervals.sort_by_key(|interval| Reverse(interval.seconds.count));
        let lines = intervals.into_iter().take(COLOURS.len());
        Plot {
            title: "Reuse time by kind and turn; dashed: exponential fit".to_owned(),
            x: "seconds",
            y: "share of reuses".to_owned(),
            log_x: true,
            lines: lines
                .map(|interval| {
                    let points = cumulative(&interval.seconds);
                    let fitted = |&(x, _): &(f64, f64)| (x, interval.seconds.exponential(x));
                    let beside = points.iter().map(fitted).collect();
                    Line { name: escaped(&interval.name()), points, beside }
                })
                .collect(),
        }
    }

    /// The curves that were published of a file of this name; none where there are none.
    fn beside_published(&self, reuse: &ReuseStats) -> Option<Plot> {
        let published = self.published.as_ref().filter(|published| !published.curve.is_empty())?;
        let line = |name: &str, ratio: fn(&CurvePoint) -> f64| {
            let points = |curve: &[CurvePoint]| curve.iter().map(|point| (point.blocks as f64, ratio(point))).collect();
            Line { name: name.to_owned(), points: points(&reuse.last_half_curve), beside: points(&published.curve) }
        };
        let lines = vec![
            line("FIFO", |point| point.fifo),
            line("LRU", |point| point.lru),
            line("clairvoyant", |point| point.clairvoyant),
        ];
        Some(Plot {
            title: "Second half by cache size; dashed: published".to_owned(),
            x: "blocks",
            y: format!("token hit ratio, prefix: {}", escaped(&self.prefix.to_string())),
            log_x: true,
            lines,
        })
    }
}

fn line(name: &str, points: Vec<(f64, f64)>) -> Line {
    Line { name: name.to_owned(), points, beside: Vec::new() }
}

fn cumulative(numbers: &Distribution) -> Vec<(f64, f64)> {
    numbers.curve.iter().zip(0..).map(|(&number, step)| (number, f64::from(step) / 50.0)).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
