//! `deploy/metrics.md`: every metric, as it is declared and registered.

use super::declaration::Metric;
use super::metrics::Metrics;
use std::collections::BTreeMap;
use std::fmt::Write;

const HEAD: &str = "# Metrics

Printed by `warmpath metrics`; a test keeps this file current. They are served in Prometheus's text format at `/metrics` on the
admin address.

Label values are those listed here and the names of instances and of what they serve, never anything that a client sent. A Prometheus
that scrapes with its defaults calls the label `instance` `exported_instance`, because it keeps the former for the router itself;
the dashboard and the alert rules beside this file expect that.

| metric | type | unit | labels | help |
| --- | --- | --- | --- | --- |
";

/// Every metric with its type, unit, labels and help, in Markdown.
pub fn document() -> String {
    let page = Metrics::example().render();
    let mut document = HEAD.to_owned();
    for metric in Metric::ALL {
        let (name, kind, unit, help) = metric.declaration();
        let labels: Vec<String> = labels(&page, name).into_iter().map(spell).collect();
        let (kind, unit) = (kind.name(), unit.name());
        writeln!(document, "| `{name}` | {kind} | {unit} | {} | {help} |", labels.join(" "))
            .expect("a string takes everything");
    }
    document
}

/// A metric's labels and their values, as they stand on a rendered page.
fn labels(page: &str, name: &str) -> BTreeMap<String, Vec<String>> {
    let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix(name)) {
        let line = line.strip_prefix("_bucket").unwrap_or(line);
        let Some((inside, _)) = line.strip_prefix('{').and_then(|line| line.split_once('}')) else {
            continue;
        };
        for pair in inside.split(',') {
            let (label, value) = pair.split_once('=').expect("a label has a value");
            let (values, value) = (labels.entry(label.to_owned()).or_default(), value.trim_matches('"').to_owned());
            if label != "le" && !values.contains(&value) {
                values.push(value);
            }
        }
    }
    labels.remove("le");
    labels
}

fn spell((label, values): (String, Vec<String>)) -> String {
    match label.as_str() {
        // Whatever the operator calls them, or what is in force.
        "instance" | "model" | "version" | "policy" | "block_size" => format!("`{label}`"),
        _ => format!("`{label}` ({})", values.join(", ")),
    }
}
