//! What reading costs: megabytes a second of one core's time (of elapsed time where the system does not tell it), beside the same lines through serde_json.
//!
//! The Qwen-Bailian lines are synthetic (`trace synth --preset qwen-coder`), as the published files are too large to carry
//! along; the BurstGPT lines repeat the real ones. Then the acceptance figures of the synthetic presets, whole.
//! Beside each preset stands how far it is from what was published, and the bench fails where that is too far.
//! `cargo bench --bench trace`; `-- --seed 2` makes others; `-- --quick` reads less, once, and makes ten minutes of the smallest preset.

use serde::Deserialize;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use warmpath::routing::block::Namespace;
use warmpath::trace::stats::{About, Stats};
use warmpath::trace::{
    Arrival, Provenance, Recorded, Recorder, RecorderConfig, Synthetic, SyntheticPreset, Target, Trace, Writer,
};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let seed = arguments.iter().skip_while(|argument| *argument != "--seed").nth(1);
    let seed = seed.map_or(1, |seed| seed.parse().expect("--seed takes a number"));
    let folder = std::env::temp_dir().join(format!("warmpath-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    println!("{:<28} {:>9} {:>9} {:>9}", "reading", "MB", "MB/s", "ratio");
    qwen_bailian(&folder, quick);
    burstgpt(&folder, quick);
    recording(&folder, quick);
    std::fs::remove_dir_all(&folder).expect("the temporary folder can be removed");
    let near = presets(quick, seed);
    assert!(quick || near, "a whole preset is further from what it imitates than it may be");
}

/// The published fields, as serde_json reads them: the baseline.
#[derive(Deserialize)]
struct Line {
    #[allow(dead_code)]
    timestamp: f64,
    input_length: u64,
    #[allow(dead_code)]
    output_length: u64,
    hash_ids: Vec<u64>,
}

fn qwen_bailian(folder: &Path, quick: bool) {
    let seconds = if quick { 60.0 } else { 1200.0 };
    let synthetic = Synthetic::generate(SyntheticPreset::QwenCoder, 1, seconds);
    let mut writer = Writer::new(Vec::new(), Target::QwenBailian, synthetic.block_size, &Provenance::Real)
        .expect("memory takes all");
    synthetic.records.iter().for_each(|record| writer.write(record).expect("memory takes all"));
    let bytes = writer.finish().expect("memory takes all");
    let path = folder.join("qwen.jsonl");
    std::fs::write(&path, &bytes).expect("the temporary folder can be written to");
    let baseline = median(quick, || {
        let text = std::fs::read_to_string(&path).expect("it was just written");
        let sum = text.lines().map(|line| {
            let line: Line = serde_json::from_str(line).expect("it was just written");
            line.input_length + line.hash_ids.len() as u64
        });
        black_box(sum.sum::<u64>());
    });
    let own = median(quick, || read(&path));
    row("Qwen-Bailian, serde_json", bytes.len(), baseline, baseline);
    row("Qwen-Bailian, warmpath", bytes.len(), own, baseline);
}

fn burstgpt(folder: &Path, quick: bool) {
    let path = folder.join("burstgpt.csv");
    let text = burstgpt_lines(if quick { 20_000 } else { 1_400_000 });
    std::fs::write(&path, &text).expect("the temporary folder can be written to");
    let baseline = median(quick, || {
        let text = std::fs::read_to_string(&path).expect("it was just written");
        let cell = |line: &str| line.split(',').nth(2).and_then(|cell| cell.parse::<u64>().ok());
        black_box(text.lines().filter_map(cell).sum::<u64>());
    });
    let own = median(quick, || read(&path));
    row("BurstGPT, one split column", text.len(), baseline, baseline);
    row("BurstGPT, warmpath", text.len(), own, baseline);
}

/// The real head of BurstGPT 1.1 again and again, later and later.
fn burstgpt_lines(rows: usize) -> String {
    let head: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/burstgpt/BurstGPT_1.head30.csv");
    let head = std::fs::read_to_string(head).expect("it is in the repository");
    let (heading, lines) = head.split_once('\n').expect("it has lines");
    let lines: Vec<(&str, &str)> = lines.lines().filter_map(|line| line.split_once(',')).collect();
    let mut text = format!("{heading}\n");
    for row in 0..rows {
        let (_, rest) = lines[row % lines.len()];
        let _ = writeln!(text, "{},{rest}", row * 4);
    }
    text
}

fn read(path: &Path) {
    let trace = Trace::open(path).expect("it was just written");
    let records = trace.records().expect("it was just written");
    let tokens = records.map(|record| u64::from(record.expect("it was just written").prompt_tokens));
    black_box(tokens.sum::<u64>());
}

fn row(what: &str, bytes: usize, time: Duration, baseline: Duration) {
    let megabytes = bytes as f64 / 1e6;
    let ratio = baseline.as_secs_f64() / time.as_secs_f64();
    println!("{what:<28} {megabytes:>9.1} {:>9.0} {ratio:>9.2}", megabytes / time.as_secs_f64());
}

fn median(quick: bool, mut run: impl FnMut()) -> Duration {
    let rounds = if quick { 1 } else { 5 };
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let (start, cpu) = (Instant::now(), cpu_time());
            // The system tells a core's time in steps of milliseconds: short work is done until it has had some of them.
            for done in 1.. {
                run();
                let time = match (cpu, cpu_time()) {
                    (Some(before), Some(after)) => after - before,
                    (None, _) | (_, None) => start.elapsed(),
                };
                if time > ENOUGH {
                    return time / done;
                }
            }
            unreachable!("time passes")
        })
        .collect();
    times.sort_unstable();
    times[rounds / 2]
}

/// What is timed at least.
const ENOUGH: Duration = Duration::from_millis(50);

/// What this thread has had of a core so far; other programs share the machine. Linux only.
fn cpu_time() -> Option<Duration> {
    let nanos = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(nanos.split_whitespace().next()?.parse().ok()?))
}

/// What the recorder costs a request: its prompt of 4,000 tokens is copied, the rest is another thread's work.
fn recording(folder: &Path, quick: bool) {
    let requests = if quick { 1000 } else { 20_000 };
    let recorder = Recorder::start(RecorderConfig::new(folder.to_owned()), || Ok([7; 16])).expect("it is there");
    let mut tokens: Vec<u32> = (0..4000).collect();
    let (mut recorded, mut copied) = (Vec::new(), Vec::new());
    for request in 0..requests {
        tokens[0] = request as u32;
        let at = Duration::from_millis(request);
        let arrival = Arrival { at, namespace: Namespace::of_model("m"), tokens: &tokens, session: None, kind: None };
        let start = Instant::now();
        recorder.arrived(request, &arrival);
        recorder.ended(request, at, 10);
        recorded.push(start.elapsed());
        let start = Instant::now();
        black_box(tokens.clone());
        copied.push(start.elapsed());
    }
    let Recorded { written, full, .. } = recorder.finish();
    let micros = |times: &mut Vec<Duration>, part: usize| {
        times.sort_unstable();
        times[times.len() * part / 100].as_secs_f64() * 1e6
    };
    println!(
        "\nrecording a request of 4,000 tokens takes {:.1} µs of its time (p99 {:.1}); copying these {:.1} µs; {written} \
         written, {full} dropped",
        micros(&mut recorded, 50),
        micros(&mut recorded, 99),
        micros(&mut copied, 50)
    );
}

/// Makes them, and says whether all are near what they imitate.
fn presets(quick: bool, seed: u64) -> bool {
    println!(
        "\n{:<14} {:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}  of what may be missed",
        "preset", "rows", "in", "out", "ideal", "child", "single", "LRU 5%", "10%", "25%", "50%"
    );
    let mut near = true;
    let presets = if quick { vec![SyntheticPreset::QwenThinking] } else { SyntheticPreset::ALL.to_vec() };
    for preset in presets {
        let targets = preset.imitates();
        let seconds = if quick { 600.0 } else { targets.seconds };
        let synthetic = Synthetic::generate(preset, seed, seconds);
        let prefix = synthetic.provenance.clone();
        let about = About { file: preset.name(), format: "none", block_size: synthetic.block_size, prefix };
        let stats = Stats::of_any(about, synthetic.records.into_iter().map(Ok), &mut |_| {}).expect("nothing is read");
        let (sessions, reuse) = (stats.sessions.expect("there are"), stats.reuse.expect("there is"));
        let mut found = vec![
            (Some(targets.requests), stats.requests as f64),
            (Some(targets.block_hit_ratio), reuse.block_hit_ratio),
            (Some(targets.child_share), sessions.child_share),
            (targets.single_request_share, sessions.single_request_share),
        ];
        let lru = reuse.cache_sizes[1..].iter().map(|size| size.lru);
        found.extend(lru.enumerate().map(|(size, lru)| (targets.lru_hit_ratios.map(|figures| figures[size]), lru)));
        let parts = found.iter().filter_map(|&(figure, number)| Some(figure?.missed_by(number)));
        let missed = parts.fold(0.0, f64::max);
        near &= missed <= 1.0;
        let lru: Vec<String> = found[4..].iter().map(|(_, ratio)| format!("{ratio:>7.3}")).collect();
        println!(
            "{:<14} {:>8} {:>7.0} {:>7.0} {:>7.3} {:>7.3} {:>7.3} {}  {missed:.2}",
            preset.name(),
            stats.requests,
            stats.input_tokens.mean,
            stats.output_tokens.mean,
            reuse.block_hit_ratio,
            sessions.child_share,
            sessions.single_request_share,
            lru.join(" ")
        );
    }
    near
}
