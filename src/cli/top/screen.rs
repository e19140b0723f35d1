//! What `warmpath top` shows: a status as plain text, so many columns wide.

use crate::serve::{Found, Instance, Placed, Reloaded, Status, Step, Why};
use std::fmt::Write;

/// Instances and decisions that are shown at most; the page at `/ui` has more room.
const INSTANCES: usize = 32;
const DECISIONS: usize = 12;
const SOURCES: usize = 8;
const PROBLEMS: usize = 5;
const TAKES_ALL: &str = "a string takes everything";

/// A screen.
pub(super) fn draw(status: &Status, width: usize) -> String {
    let mut screen = String::new();
    let line = |screen: &mut String, text: &str| {
        // By characters: a name may be in any script.
        let cut: String = text.trim_end().chars().take(width).collect();
        writeln!(screen, "{cut}").expect(TAKES_ALL);
    };
    for text in head(status) {
        line(&mut screen, &text);
    }
    for text in reload(status) {
        line(&mut screen, &text);
    }
    let room = width.saturating_sub(36).min(72);
    line(&mut screen, &history(status, room, "cached where sent", |step| step.chosen, percent));
    line(&mut screen, &history(status, room, "first token, p99", |step| step.ttft_p99, seconds));
    line(&mut screen, "");
    let longest = |names: &mut dyn Iterator<Item = &str>| names.map(|name| name.chars().count()).max().unwrap_or(0);
    let name = longest(&mut status.instances.iter().map(|instance| instance.name.as_str())).clamp(8, 40);
    line(&mut screen, &fleet_head(name));
    for instance in status.instances.iter().take(INSTANCES) {
        line(&mut screen, &fleet(instance, name));
    }
    if status.instances.len() > INSTANCES {
        line(&mut screen, &format!("… and {} more", status.instances.len() - INSTANCES));
    }
    for text in found(status) {
        line(&mut screen, &text);
    }
    line(&mut screen, "");
    line(&mut screen, &decision_head(name));
    for placed in status.decisions.iter().take(DECISIONS) {
        line(&mut screen, &decision(placed, name));
    }
    screen
}

fn head(status: &Status) -> [String; 5] {
    let ready = status.instances.iter().filter(|instance| instance.availability == "ready").count();
    let last = status.history.last();
    let draining = if status.draining { " · draining" } else { "" };
    let verdict = &status.verdict;
    [
        format!(
            "warmpath {} · {} · up {} · {ready} of {} ready{draining}",
            status.version,
            status.policy,
            span(status.uptime_seconds),
            status.instances.len()
        ),
        verdict.says.clone(),
        String::new(),
        format!(
            "prompt tokens cached  {} where sent · {} anywhere · {} delivered · index {} blocks, {} of {} MiB",
            or_none(verdict.chosen, percent),
            or_none(verdict.best, percent),
            or_none(verdict.delivered, percent),
            status.index_blocks,
            status.index_bytes >> 20,
            status.index_bytes_max >> 20
        ),
        format!(
            "{} requests/s · {} in flight · {} queued, {} held, {} shed · first token {} median, {} p99",
            or_none(last.map(|step| step.requests_per_second), |rate| format!("{rate:.1}")),
            status.in_flight,
            status.queue.requests.iter().sum::<usize>() - status.queue.held,
            status.queue.held,
            status.queue.shed,
            or_none(last.and_then(|step| step.ttft_p50), seconds),
            or_none(last.and_then(|step| step.ttft_p99), seconds)
        ),
    ]
}

/// How it went when the configuration was last read again, if it was.
fn reload(status: &Status) -> Vec<String> {
    let Some(Reloaded { outcome, age_seconds, problems }) = &status.reload else { return Vec::new() };
    let said = format!("configuration read again {} ago: {outcome}", span(*age_seconds));
    listed(said, problems)
}

/// Who is asked for instances, what they found, and what of that could not be had.
fn found(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    if !status.sources.is_empty() {
        lines.extend([String::new(), format!("{:>9}  {:>7}  SOURCE", "INSTANCES", "SINCE")]);
    }
    for Found { source, instances, asked, age_seconds, problem } in status.sources.iter().take(SOURCES) {
        let (count, since) = if *asked { (instances.to_string(), span(*age_seconds)) } else { none_yet() };
        let problem = problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
        lines.push(format!("{count:>9}  {since:>7}  {source}{problem}"));
    }
    if status.sources.len() > SOURCES {
        lines.push(format!("… and {} more", status.sources.len() - SOURCES));
    }
    if !status.fleet_problems.is_empty() {
        lines.push(String::new());
        lines.extend(listed("of the wanted fleet could not be had:".to_owned(), &status.fleet_problems));
    }
    lines
}

fn none_yet() -> (String, String) {
    ("–".to_owned(), "–".to_owned())
}

/// What is said, and the first problems under it.
fn listed(said: String, problems: &[String]) -> Vec<String> {
    // A problem may have lines of its own.
    let shown = problems.iter().take(PROBLEMS).map(|problem| format!("  {}", problem.replace('\n', " ")));
    let more = (problems.len() > PROBLEMS).then(|| format!("  … and {} more", problems.len() - PROBLEMS));
    std::iter::once(said).chain(shown).chain(more).collect()
}

/// The last steps as a line of bars, the latest on the right, with the range that they span.
fn history(
    status: &Status,
    room: usize,
    label: &str,
    value: fn(&Step) -> Option<f64>,
    spell: fn(f64) -> String,
) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let steps = &status.history[status.history.len().saturating_sub(room)..];
    let high = steps.iter().filter_map(value).fold(0.0, f64::max);
    let bar = |step: &Step| match value(step) {
        Some(_) if high == 0.0 => BARS[0],
        Some(value) => BARS[((value / high * 7.0).round() as usize).min(7)],
        None => ' ',
    };
    let bars: String = steps.iter().map(bar).collect();
    format!("{label:<18} {bars:>room$}  ≤ {}", spell(high))
}

fn fleet_head(name: usize) -> String {
    format!(
        "{:<name$}  {:<8}  {:<11}  {:>7}  {:>7}  {:>8}  {:>6}  {:>10}  {:>10}",
        "INSTANCE", "STATE", "INDEX", "WAITING", "RUNNING", "WAIT", "BUSY", "BLOCKS", "REQUESTS"
    )
}

fn fleet(instance: &Instance, name: usize) -> String {
    format!(
        "{:<name$}  {:<8}  {:<11}  {:>7}  {:>7}  {:>8}  {:>6}  {:>10}  {:>10}",
        cut(&instance.name, name),
        instance.availability,
        instance.knowledge,
        instance.prefill_requests,
        instance.decode_requests,
        seconds(instance.prefill_wait_seconds),
        percent(instance.busy_share),
        instance.cached_blocks,
        instance.assigned
    )
}

fn decision_head(name: usize) -> String {
    format!(
        "{:>6}  {:<name$}  {:>8}  {:>8}  {:>8}  {:<14}  {:>8}  {:>8}  {}",
        "AGO", "INSTANCE", "PROMPT", "CACHED", "AT MOST", "WENT BY", "EXPECTED", "CAME", "END"
    )
}

fn decision(placed: &Placed, name: usize) -> String {
    let why = match (placed.why, placed.was_held) {
        (Why::ByLoad, false) => "load (unknown)",
        (Why::ByLoad, true) => "load, held",
        (Why::Cold, false) => "load (cold)",
        (Why::Cold, true) => "cold, held",
        (Why::Prefix, false) => "prefix",
        (Why::Prefix, true) => "prefix, held",
        (Why::Load, false) => "load",
        (Why::Load, true) => "load, held",
    };
    format!(
        "{:>6}  {:<name$}  {:>8}  {:>8}  {:>8}  {why:<14}  {:>8}  {:>8}  {}",
        span(placed.age_seconds),
        cut(&placed.instance, name),
        placed.prompt_tokens,
        placed.overlap_tokens,
        placed.best_overlap_tokens,
        seconds(placed.expected_ttft_seconds),
        or_none(placed.ttft_seconds, seconds),
        placed.ended.as_deref().unwrap_or("in flight")
    )
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

fn or_none(value: Option<f64>, spell: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), spell)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

fn span(seconds: f64) -> String {
    match seconds {
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::{Queue, Suspect, Verdict};

    fn status() -> Status {
        let instance = |name: &str, availability: &str, knowledge: &str, assigned| Instance {
            name: name.to_owned(),
            url: "http://10.0.0.1:8000".to_owned(),
            model: "m".to_owned(),
            availability: availability.to_owned(),
            knowledge: knowledge.to_owned(),
            kv_events_connected: true,
            cached_blocks: 20_000,
            prefill_requests: 2,
            prefill_tokens: 8000,
            prefill_wait_seconds: 0.25,
            decode_requests: 7,
            decode_tokens: 40_000,
            busy_share: 0.5,
            assigned,
            saturated: false,
            reported: None,
            foreign_requests: 0,
            approximate_blocks_max: None,
        };
        let placed = |request, why, ttft_seconds, ended: Option<&str>| Placed {
            request,
            age_seconds: 3.0,
            instance: "vllm-0".to_owned(),
            prompt_tokens: 4000,
            overlap_tokens: 1600,
            best_overlap_tokens: 3200,
            why,
            waited_seconds: (request == 1).then_some(0.2),
            was_held: request == 1,
            expected_ttft_seconds: 0.3,
            ttft_seconds,
            ended: ended.map(str::to_owned),
        };
        let step = |chosen: Option<f64>| Step {
            at: 1_700_000_000,
            requests_per_second: 12.5,
            prompt_tokens_per_second: 50_000.0,
            best: chosen,
            chosen,
            delivered: chosen,
            ttft_p50: Some(0.125),
            ttft_p99: Some(1.5),
            in_flight: 9,
        };
        Status {
            version: "0.1.0".to_owned(),
            policy: "prefix_cost".to_owned(),
            uptime_seconds: 720.0,
            draining: false,
            verdict: Verdict {
                suspect: Suspect::Nothing,
                says: "Routing well.".to_owned(),
                best: Some(0.64),
                chosen: Some(0.62),
                delivered: None,
            },
            in_flight: 9,
            queue: Queue { requests: [1, 4, 2], held: 3, tokens: 9_000, longest_seconds: 1.5, shed: 12 },
            index_blocks: 40_000,
            index_bytes: 5 << 20,
            index_bytes_max: 4 << 30,
            instances: vec![instance("vllm-0", "ready", "exact", 900), instance("vllm-1", "down", "degraded", 17)],
            step_seconds: 5,
            history: [None, Some(0.1), Some(0.4), Some(0.8)].map(step).to_vec(),
            decisions: vec![placed(2, Why::Load, None, None), placed(1, Why::Prefix, Some(0.28), Some("finished"))],
            settings: Vec::new(),
            reload: None,
            sources: Vec::new(),
            fleet_problems: Vec::new(),
        }
    }

    #[test]
    fn a_screen_is_what_is_expected() {
        let screen = draw(&status(), 120);
        let expected = include_str!("screen.txt");
        assert!(screen == expected, "the screen is now\n{screen}");
    }

    #[test]
    fn reloads_and_sources_are_told_where_there_are_any() {
        let reload = Reloaded {
            outcome: "refused".to_owned(),
            age_seconds: 12.0,
            problems: (0..7).map(|at| format!("routing.{at}: unknown\nfield")).collect(),
        };
        let source = |name: &str, asked, problem: Option<&str>| Found {
            source: name.to_owned(),
            instances: 3,
            asked,
            age_seconds: 40.0,
            problem: problem.map(str::to_owned),
        };
        let sources = vec![source("file a.toml", true, None), source("dns b", false, Some("no answer"))];
        let fleet_problems = vec!["c: its name is taken".to_owned()];
        let told = Status { reload: Some(reload), sources, fleet_problems, ..status() };
        let screen = draw(&told, 120);
        for line in [
            "configuration read again 12 s ago: refused",
            "  routing.4: unknown field",
            "  … and 2 more",
            "        3     40 s  file a.toml",
            "        –        –  dns b: no answer",
            "of the wanted fleet could not be had:",
            "  c: its name is taken",
        ] {
            assert!(screen.lines().any(|shown| shown == line), "{line:?} is missing from\n{screen}");
        }
        assert!(!draw(&status(), 120).contains("SOURCE"));
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_and_nothing_known_is_no_trouble() {
        let bare = Status { history: Vec::new(), decisions: Vec::new(), instances: Vec::new(), ..status() };
        for status in [status(), bare] {
            for width in [80, 100, 240] {
                assert!(draw(&status, width).lines().all(|line| line.chars().count() <= width), "{width}");
            }
        }
    }
}
