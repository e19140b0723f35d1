//! A study as one page that needs nothing else: plots as inline SVG, tables, no script.

use super::{Cell, Figure, Scenario, StudyReport};

/// A title, and what of a cell.
type Plot = (&'static str, fn(&Cell) -> Figure);

/// What is plotted against load.
const PLOTS: [Plot; 4] = [
    ("mean time to first token, s", |cell| cell.ttft_mean),
    ("90th percentile of time to first token, s", |cell| cell.ttft_p90),
    ("token hit ratio", |cell| cell.token_hit_ratio),
    ("busiest instance, time in steps over the mean", |cell| cell.busy_max_over_mean),
];

const STYLE: &str = "body{font:14px system-ui,sans-serif;max-width:1100px;margin:2em auto;color:#222}\
    table{border-collapse:collapse;margin:1em 0}td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child{text-align:left}.best{font-weight:bold}svg{margin:4px}";

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 46.0;

impl StudyReport {
    /// The page.
    pub fn to_html(&self) -> String {
        let mut html =
            format!("<!doctype html>\n<meta charset=\"utf-8\"><title>Replay</title><style>{STYLE}</style>\n");
        html += "<h1>Replay</h1>\n";
        html += &self.standings_table();
        for place in self.scenarios.chunk_by(same_place) {
            html += &format!("<h2>{} · {} × {}</h2>\n", escape(&place[0].trace), place[0].instances, place[0].preset);
            for (title, of) in PLOTS {
                html += &plot(place, title, of);
            }
            for scenario in place {
                html += &balance_plot(scenario);
                html += &format!("<h3>{}</h3>\n{}", escape(&scenario.title()), StudyReport::to_html_table(scenario));
            }
        }
        html
    }
}

impl StudyReport {
    fn standings_table(&self) -> String {
        if self.standings.is_empty() {
            return String::new();
        }
        let mut html = "<h2>Over the best peer of each scenario</h2>\n".to_owned();
        html += "<table><tr><th>policy</th><th>TTFT mean</th><th>worst</th><th>p90</th><th>worst</th></tr>\n";
        for standing in &self.standings {
            let [mean, p90] = [standing.ttft_mean, standing.ttft_p90];
            html += &format!(
                "<tr><td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td></tr>\n",
                standing.policy, mean.geometric_mean, mean.worst, p90.geometric_mean, p90.worst
            );
        }
        html + "</table>\n"
    }
}

fn same_place(a: &Scenario, b: &Scenario) -> bool {
    (&a.trace, a.instances, a.blocks) == (&b.trace, b.instances, b.blocks)
}

/// Lines over the scenarios' request rates, one a policy. The scale ends at four times the best policy's worst, so that one
/// that collapses does not flatten the others.
fn plot(place: &[Scenario], title: &str, of: fn(&Cell) -> Figure) -> String {
    let rates: Vec<f64> = place.iter().map(|scenario| scenario.requests_per_second).collect();
    let policies = place[0].cells.len();
    let worst = |policy: usize| place.iter().map(|scenario| of(&scenario.cells[policy]).mean).fold(0.0, f64::max);
    let best_worst = (0..policies).map(worst).fold(f64::INFINITY, f64::min);
    let top = (0..policies).map(worst).fold(0.0, f64::max).min(4.0 * best_worst).max(f64::MIN_POSITIVE);
    let right = rates.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let x = |rate: f64| MARGIN + rate / right * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - (value / top).min(1.0) * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" font-size=\"11\">\n");
    svg += &format!("<text x=\"{MARGIN}\" y=\"20\" font-weight=\"bold\">{title}, by requests/s</text>\n");
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let (at, right) = (y(value), WIDTH - MARGIN);
        svg += &format!("<line x1=\"{MARGIN}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>");
        svg += &format!("<text x=\"4\" y=\"{:.1}\">{value:.2}</text>\n", at + 4.0);
    }
    for &rate in &rates {
        svg += &format!("<text x=\"{:.1}\" y=\"{}\">{rate:.2}</text>\n", x(rate) - 10.0, HEIGHT - MARGIN + 16.0);
    }
    for policy in 0..policies {
        let mut points: Vec<(f64, f64)> =
            place.iter().zip(&rates).map(|(scenario, rate)| (*rate, of(&scenario.cells[policy]).mean)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let line: Vec<String> =
            points.iter().map(|(rate, value)| format!("{:.1},{:.1}", x(*rate), y(*value))).collect();
        let (color, name) = (color(policy, policies), &place[0].cells[policy].policy);
        svg += &format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\">", line.join(" "));
        svg += &format!("<title>{name}</title></polyline>");
        for (rate, value) in points {
            svg += &format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\">", x(rate), y(value));
            svg += &format!("<title>{name}: {value:.4}</title></circle>");
        }
        svg += "\n";
    }
    svg += "</svg>\n";
    if title == PLOTS[0].0 { legend(place) + &svg } else { svg }
}

/// How evenly work was spread as time went by: a line a policy.
fn balance_plot(scenario: &Scenario) -> String {
    let cells = &scenario.cells;
    let slices = cells.iter().map(|cell| cell.balance_over_time.len()).max().unwrap_or(0);
    if slices < 2 {
        return String::new();
    }
    let top = f64::from(scenario.instances).max(1.0 + f64::EPSILON);
    let x = |slice: usize| MARGIN + slice as f64 / (slices - 1) as f64 * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - (value - 1.0) / (top - 1.0) * (HEIGHT - 2.0 * MARGIN);
    let load = scenario.load.map_or(String::new(), |load| format!(" at {:.0} % of capacity", load * 100.0));
    let mut svg = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" font-size=\"11\">\n");
    let title = "busiest instance, uncached tokens over the mean, as time goes by";
    svg += &format!("<text x=\"{MARGIN}\" y=\"20\" font-weight=\"bold\">{title}{load}</text>\n");
    for step in 0..=4 {
        let value = 1.0 + (top - 1.0) * f64::from(step) / 4.0;
        let (at, right) = (y(value), WIDTH - MARGIN);
        svg += &format!("<line x1=\"{MARGIN}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>");
        svg += &format!("<text x=\"4\" y=\"{:.1}\">{value:.2}</text>\n", at + 4.0);
    }
    for share in [0.0, 0.5, 1.0] {
        let (at, percent) = (MARGIN + share * (WIDTH - 2.0 * MARGIN) - 10.0, share * 100.0);
        svg += &format!("<text x=\"{at:.1}\" y=\"{}\">{percent:.0} %</text>\n", HEIGHT - MARGIN + 16.0);
    }
    for (policy, cell) in cells.iter().enumerate() {
        let point = |(slice, value): (usize, &f64)| format!("{:.1},{:.1}", x(slice), y(*value));
        let line: Vec<String> = cell.balance_over_time.iter().enumerate().map(point).collect();
        let color = color(policy, cells.len());
        svg += &format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\">", line.join(" "));
        svg += &format!("<title>{}</title></polyline>\n", cell.policy);
    }
    svg + "</svg>\n"
}

fn legend(place: &[Scenario]) -> String {
    let cells = &place[0].cells;
    let name = |(policy, cell): (usize, &Cell)| {
        format!("<span style=\"color:{}\">■</span> {} ", color(policy, cells.len()), cell.policy)
    };
    format!("<p>{}</p>\n", cells.iter().enumerate().map(name).collect::<String>())
}

fn color(policy: usize, policies: usize) -> String {
    format!("hsl({} 70% 42%)", policy * 360 / policies.max(1))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
