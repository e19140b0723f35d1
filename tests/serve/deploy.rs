//! What is shipped in `deploy/` speaks of what there is.

use std::collections::HashSet;
use std::path::Path;

fn deploy(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of an expression that can only be metrics of ours.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("warmpath_") || word.starts_with("process_"))
}

#[track_caller]
fn all_declared(file: &str, expressions: &[String]) {
    let document = warmpath::serve::metrics_document();
    let mut found = HashSet::new();
    for metric in expressions.iter().flat_map(|expression| metrics(expression)) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric);
        let declared = |name: &str| document.contains(&format!("| `{name}` | "));
        assert!(declared(metric) || declared(base), "{file} asks for {metric}, which nobody declares");
        found.insert(base.to_owned());
    }
    assert!(found.len() > 10, "{file}: {found:?}");
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard: serde_json::Value = serde_json::from_str(&deploy("grafana/warmpath.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<String> = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(expressions.len() > 20, "{}", expressions.len());
    all_declared("grafana/warmpath.json", &expressions);
    let ids: HashSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
}

#[test]
fn the_rules_ask_for_metrics_that_exist() {
    let rules = deploy("prometheus/warmpath.rules.yml");
    // File names in comments and annotations are no metrics.
    let expressions = rules.lines().filter(|line| !line.contains("runbook") && !line.starts_with('#'));
    all_declared("prometheus/warmpath.rules.yml", &expressions.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn every_alert_is_tested_and_has_its_place_in_the_runbook() {
    let (rules, tests, runbook) =
        (deploy("prometheus/warmpath.rules.yml"), deploy("prometheus/warmpath.test.yml"), deploy("runbook.md"));
    let alerts: HashSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let sections: HashSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(alerts, sections, "alerts on the left, sections of the runbook on the right");
    for alert in alerts {
        let quiet = format!("alertname: {alert}, eval_time: 39m, exp_alerts: []");
        assert!(tests.contains(&quiet), "no test says when {alert} is quiet");
        assert!(tests.contains(&format!("alertname=\"{alert}\"}}', value: 1")), "no test says when {alert} fires");
        let link = format!("runbook: deploy/runbook.md#{}", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} does not link to {link}");
    }
}
