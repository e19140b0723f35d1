//! What reading costs: megabytes a second of one core's time (of elapsed time where the system does not tell it), beside the same lines through serde_json.
//!
//! The Qwen-Bailian lines are synthetic (`trace synth --preset qwen-coder`), as the published files are too large to carry
//! along; the BurstGPT lines repeat the real ones. Then the acceptance figures of the synthetic presets, whole.
//! `cargo bench --bench trace`; `-- --quick` reads less, once, and makes ten minutes of the smallest preset.

use serde::Deserialize;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use warmpath::trace::stats::{About, Stats};
use warmpath::trace::{Provenance, Synthetic, SyntheticPreset, Target, Trace, Writer};

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let folder = std::env::temp_dir().join(format!("warmpath-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    println!("{:<28} {:>9} {:>9} {:>9}", "reading", "MB", "MB/s", "ratio");
    qwen_bailian(&folder, quick);
    burstgpt(&folder, quick);
    std::fs::remove_dir_all(&folder).expect("the temporary folder can be removed");
    presets(quick);
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

fn presets(quick: bool) {
    println!(
        "\n{:<14} {:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "preset", "rows", "in", "out", "ideal", "child", "single", "LRU 5%", "10%", "25%", "50%"
    );
    let presets = if quick { vec![SyntheticPreset::QwenThinking] } else { SyntheticPreset::ALL.to_vec() };
    for preset in presets {
        let seconds = if quick { 600.0 } else { preset.target().1 };
        let synthetic = Synthetic::generate(preset, 1, seconds);
        let prefix = synthetic.provenance.clone();
        let about = About { file: preset.name(), format: "none", block_size: synthetic.block_size, prefix };
        let stats = Stats::of_any(about, synthetic.records.into_iter().map(Ok), &mut |_| {}).expect("nothing is read");
        let (sessions, reuse) = (stats.sessions.expect("there are"), stats.reuse.expect("there is"));
        let lru: Vec<String> = reuse.cache_sizes[1..].iter().map(|size| format!("{:>7.3}", size.lru)).collect();
        println!(
            "{:<14} {:>8} {:>7.0} {:>7.0} {:>7.3} {:>7.3} {:>7.3} {}",
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
}
