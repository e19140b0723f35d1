//! A study for people: aligned text and Markdown, and two studies beside one another.

use super::{Cell, Figure, Scenario, StudyReport};

/// What is shown of a cell: heading, figure, digits, whether less is better.
type Column = (&'static str, fn(&Cell) -> Figure, usize, bool);

const COLUMNS: [Column; 8] = [
    ("TTFT mean", |cell| cell.ttft_mean, 3, true),
    ("p50", |cell| cell.ttft_p50, 3, true),
    ("p90", |cell| cell.ttft_p90, 3, true),
    ("p99", |cell| cell.ttft_p99, 3, true),
    ("end to end", |cell| cell.end_to_end_mean, 2, true),
    ("hit ratio", |cell| cell.token_hit_ratio, 4, false),
    ("goodput", |cell| cell.goodput, 4, false),
    ("busy max/mean", |cell| cell.busy_max_over_mean, 2, true),
];

impl Scenario {
    /// What was replayed to what, in a line.
    pub fn title(&self) -> String {
        let load = self.load.map_or(String::new(), |load| format!("{:.0} % of capacity, ", load * 100.0));
        let measured = if self.measured { "measured: " } else { "" };
        format!(
            "{measured}{} (prefix: {}) · {} × {} · {} blocks each · {load}{:.2} requests/s",
            self.trace, self.prefix, self.instances, self.preset, self.blocks, self.requests_per_second
        )
    }

    /// The bound on time to first token, as a sentence with a space before; nothing where there is none.
    fn alone(&self) -> String {
        let (Some(mean), Some(p90)) = (self.pooled_ttft_mean, self.pooled_ttft_p90) else { return String::new() };
        format!(" A request alone, with that pooled cache: first token after {mean:.3} s, p90 {p90:.3} s.")
    }
}

impl StudyReport {
    /// Markdown: a table a scenario, the best of each column in bold, the deviation between seeds beside each figure.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        for scenario in &self.scenarios {
            text += &format!("### {}\n\n| policy |", scenario.title());
            for (heading, ..) in COLUMNS {
                text += &format!(" {heading} |");
            }
            text += &format!("\n| --- |{}\n", " ---: |".repeat(COLUMNS.len()));
            for cell in &scenario.cells {
                text += &format!("| {} |", cell.policy);
                for column in &COLUMNS {
                    let mark = if is_best(scenario, cell, column) { "**" } else { "" };
                    text += &format!(" {mark}{}{mark} |", show(column.1(cell), column.2));
                }
                text += "\n";
            }
            text += &format!(
                "\nBounds: hit ratio {:.4} with an infinite cache; with one pooled cache of the same size {:.4}, and {:.4} when it \
                 is clairvoyant.{}\n\n",
                scenario.ideal_token_hit_ratio,
                scenario.pooled_token_hit_ratio,
                scenario.clairvoyant_token_hit_ratio,
                scenario.alone()
            );
        }
        if self.standings.is_empty() {
            return text;
        }
        text += "### Over the best peer of each scenario\n\n";
        text += "| policy | TTFT mean | worst | TTFT p90 | worst | end to end | worst |\n| --- |";
        text += &format!("{}\n", " ---: |".repeat(6));
        for standing in &self.standings {
            text += &format!("| {} |", standing.policy);
            for versus in [standing.ttft_mean, standing.ttft_p90, standing.end_to_end_mean] {
                text += &format!(" {:.3} | {:.3} |", versus.geometric_mean, versus.worst);
            }
            text += "\n";
        }
        text
    }

    /// This study over another, scenario by scenario and policy by policy, where both have them.
    pub fn compare(&self, other: &StudyReport) -> String {
        let mut text =
            "| scenario | policy | TTFT mean | p90 | hit ratio |\n| --- | --- | ---: | ---: | ---: |\n".to_owned();
        for scenario in &self.scenarios {
            let key = |scenario: &Scenario| {
                let Scenario { trace, instances, blocks, preset, load, .. } = scenario;
                (trace.clone(), *instances, *blocks, preset.clone(), load.map(f64::to_bits))
            };
            let Some(before) = other.scenarios.iter().find(|other| key(other) == key(scenario)) else { continue };
            for cell in &scenario.cells {
                let Some(old) = before.cells.iter().find(|old| old.policy == cell.policy) else { continue };
                let change = |of: fn(&Cell) -> Figure, digits: usize| {
                    let (new, old) = (of(cell).mean, of(old).mean);
                    format!("{old:.digits$} → {new:.digits$} ({:+.1} %)", (new / old - 1.0) * 100.0)
                };
                text += &format!(
                    "| {} | {} | {} | {} | {} |\n",
                    scenario.title(),
                    cell.policy,
                    change(|cell| cell.ttft_mean, 3),
                    change(|cell| cell.ttft_p90, 3),
                    change(|cell| cell.token_hit_ratio, 4)
                );
            }
        }
        text
    }

    /// The tables of [`to_markdown`](Self::to_markdown) as HTML.
    pub(super) fn to_html_table(scenario: &Scenario) -> String {
        let mut html = "<table><tr><th>policy</th>".to_owned();
        for (heading, ..) in COLUMNS {
            html += &format!("<th>{heading}</th>");
        }
        html += "</tr>\n";
        for cell in &scenario.cells {
            html += &format!("<tr><td>{}</td>", cell.policy);
            for column in &COLUMNS {
                let class = if is_best(scenario, cell, column) { " class=\"best\"" } else { "" };
                html += &format!("<td{class}>{}</td>", show(column.1(cell), column.2));
            }
            html += "</tr>\n";
        }
        html + "</table>\n"
    }
}

fn is_best(scenario: &Scenario, cell: &Cell, column: &Column) -> bool {
    let of = |cell: &Cell| column.1(cell).mean;
    let all = scenario.cells.iter().map(of);
    let best = if column.3 { all.fold(f64::INFINITY, f64::min) } else { all.fold(f64::NEG_INFINITY, f64::max) };
    of(cell) == best
}

fn show(figure: Figure, digits: usize) -> String {
    if figure.deviation > 0.0 {
        format!("{:.digits$} ± {:.digits$}", figure.mean, figure.deviation)
    } else {
        format!("{:.digits$}", figure.mean)
    }
}
