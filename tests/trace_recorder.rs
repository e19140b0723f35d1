//! The recorder: what it writes, and that it never waits.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use warmpath::routing::block::Namespace;
use warmpath::trace::{Arrival, Format, Kind, Record, Recorded, Recorder, RecorderConfig, Trace};

fn fixed_salt() -> impl FnMut() -> std::io::Result<[u8; 16]> + Send {
    let mut drawn = 0;
    move || {
        drawn += 1;
        Ok([drawn; 16])
    }
}

fn start(config: RecorderConfig) -> Recorder {
    Recorder::start(config, fixed_salt()).unwrap()
}

fn arrival(second: u64, tokens: &[u32]) -> Arrival<'_> {
    let at = Duration::from_secs(1_000_000 + second);
    Arrival { at, namespace: Namespace::of_model("m"), tokens, session: None, kind: Some(Kind::new("chat")) }
}

/// A request that came in that second and had ended at its end.
fn serve(recorder: &Recorder, second: u64, tokens: &[u32]) -> bool {
    let taken = recorder.arrived(second, &arrival(second, tokens));
    recorder.ended(second, Duration::from_secs(1_000_001 + second), 5);
    taken
}

fn file(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("recording-{number:06}.jsonl"))
}

fn records(folder: &Path, number: u32) -> Vec<Record> {
    let trace = Trace::open(file(folder, number)).unwrap();
    assert_eq!(trace.format(), Format::QwenBailian);
    trace.records().unwrap().map(Result::unwrap).collect()
}

fn shared(one: &Record, other: &Record) -> usize {
    one.blocks.iter().zip(&other.blocks).take_while(|(a, b)| a == b).count()
}

fn tokens(range: std::ops::Range<u32>) -> Vec<u32> {
    range.map(|position| 900_000 + position).collect()
}

#[test]
fn what_is_recorded_can_be_read_and_says_nothing_of_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = start(RecorderConfig::new(folder.path().into()));
    serve(&recorder, 0, &tokens(0..40));
    serve(&recorder, 1, &tokens(0..50));
    serve(&recorder, 2, &[]);
    let recorded = recorder.finish();
    assert_eq!((recorded.written, recorded.empty, recorded.files), (2, 1, 1));
    let text = std::fs::read_to_string(file(folder.path(), 1)).unwrap();
    let found: HashSet<u64> = text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    assert!((0..50).all(|position| !found.contains(&(900_000 + position))), "{text}");
    let records = records(folder.path(), 1);
    assert_eq!((records[0].at, records[1].at), (Duration::ZERO, Duration::from_secs(1)));
    assert_eq!((records[0].prompt_tokens, records[0].output_tokens, records[0].blocks.len()), (40, 5, 3));
    assert_eq!((records[1].parent, records[1].turn), (Some(0), Some(2)));
    assert_eq!(shared(&records[0], &records[1]), 2, "both full blocks of the first");
}

#[test]
fn requests_are_written_in_order_of_arrival_once_all_before_them_ended() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = start(RecorderConfig::new(folder.path().into()));
    for request in 0..4 {
        assert!(recorder.arrived(request, &arrival(request, &tokens(0..20))));
    }
    for (request, output) in [(3, 30), (0, 10)] {
        recorder.ended(request, Duration::from_secs(1_000_009), output);
    }
    recorder.abandoned(1);
    // The third never ends.
    let recorded = recorder.finish();
    assert_eq!((recorded.written, recorded.unfinished, recorded.held_bytes), (2, 2, 0));
    let outputs: Vec<_> = records(folder.path(), 1).iter().map(|record| record.output_tokens).collect();
    assert_eq!(outputs, [10, 30]);
}

#[test]
fn tenants_share_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = start(RecorderConfig::new(folder.path().into()));
    let prompt = tokens(0..64);
    for (request, cache_salt) in [(0, None), (1, Some("a")), (2, Some("a"))] {
        let namespace = Namespace { model: "m", lora: None, cache_salt };
        recorder.arrived(request, &Arrival { namespace, ..arrival(request, &prompt) });
        recorder.ended(request, Duration::from_secs(1_000_009), 1);
    }
    recorder.finish();
    let records = records(folder.path(), 1);
    assert_eq!((shared(&records[0], &records[1]), shared(&records[1], &records[2])), (0, 4));
}

/// Three requests share a system prompt; the fourth continues the first, the fifth forks from it, the sixth came before the
/// second had ended.
#[test]
fn conversations_are_found_from_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = start(RecorderConfig::new(folder.path().into()));
    let with = |own: u32, tokens: u32| -> Vec<u32> { (0..160).chain(own..own + tokens).collect() };
    let prompts = [with(1000, 40), with(2000, 40), with(3000, 40), with(1000, 90), with(1000, 80), with(2000, 70)];
    for (request, prompt) in (0..).zip(&prompts) {
        recorder.arrived(request, &arrival(request, prompt));
        let seconds = if request == 1 { 100 } else { request + 1 };
        recorder.ended(request, Duration::from_secs(1_000_000 + seconds), 1);
    }
    recorder.finish();
    let parents: Vec<_> = records(folder.path(), 1).iter().map(|record| record.parent).collect();
    assert_eq!(parents, [None, None, None, Some(0), None, None]);
}

#[test]
fn named_sessions_go_before_what_prompts_tell() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = start(RecorderConfig::new(folder.path().into()));
    for (request, session) in [(0, Some(77_000_001)), (1, Some(77_000_002)), (2, Some(77_000_001))] {
        recorder.arrived(request, &Arrival { session, ..arrival(request, &tokens(0..64)) });
        recorder.ended(request, Duration::from_secs(1_000_009), 1);
    }
    recorder.finish();
    let parents: Vec<_> = records(folder.path(), 1).iter().map(|record| record.parent).collect();
    assert_eq!(parents, [None, None, Some(0)]);
    assert!(!std::fs::read_to_string(file(folder.path(), 1)).unwrap().contains("77000001"));
}

#[test]
fn files_are_followed_by_others_never_overwritten_and_the_oldest_deleted() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let config = RecorderConfig { file_requests_max: 2, files_max: 5, ..RecorderConfig::new(folder.path().into()) };
        let recorder = start(config);
        for second in 0..5 {
            assert!(serve(&recorder, second, &tokens(0..20)));
        }
        assert_eq!(recorder.finish().files, 3);
    }
    assert!(!file(folder.path(), 1).exists());
    let rows: Vec<_> = (2..=6).map(|number| records(folder.path(), number).len()).collect();
    assert_eq!(rows, [2, 1, 2, 2, 1]);
}

#[test]
fn each_limit_of_a_file_begins_the_next() {
    let check = |limit: &dyn Fn(&mut RecorderConfig), files| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = RecorderConfig::new(folder.path().into());
        limit(&mut config);
        let recorder = start(config);
        (0..4).for_each(|second| {
            assert!(serve(&recorder, second, &tokens(second as u32 * 100..second as u32 * 100 + 33)))
        });
        assert_eq!(recorder.finish().files, files);
    };
    check(&|_| {}, 1);
    check(&|config| config.file_bytes_max = 1, 4);
    check(&|config| config.file_blocks_max = 4, 2);
    check(&|config| config.file_requests_max = 3, 2);
}

/// A salt that is drawn at once for the recorder itself, and for files when the test says so.
fn slow_salt() -> (impl FnMut() -> std::io::Result<[u8; 16]> + Send, Receiver<()>, std::sync::mpsc::Sender<()>) {
    let (reached, at_salt) = channel();
    let (open, closed) = channel();
    let mut drawn = 0;
    let salt = move || {
        drawn += 1;
        if drawn > 1 {
            let _ = reached.send(());
            let _ = closed.recv();
        }
        Ok([drawn; 16])
    };
    (salt, at_salt, open)
}

/// While the thread waits for a file, what comes is held as far as memory allows; then it is dropped, and nobody waits.
#[test]
fn when_memory_is_full_requests_are_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (salt, at_salt, open) = slow_salt();
    let config = RecorderConfig { memory_bytes_max: 100_000, ..RecorderConfig::new(folder.path().into()) };
    let recorder = Recorder::start(config, salt).unwrap();
    assert!(serve(&recorder, 0, &tokens(0..100)));
    at_salt.recv().unwrap();
    let taken = (1..=40).filter(|&second| serve(&recorder, second, &tokens(0..1000))).count() as u64;
    assert!((20..25).contains(&taken), "4 kB each, {taken} taken");
    let held = recorder.recorded();
    assert_eq!((held.full, held.written), (40 - taken, 0));
    assert!(held.held_bytes <= 100_000);
    drop(open);
    assert_eq!(recorder.finish(), Recorded { written: taken + 1, full: 40 - taken, files: 1, ..Recorded::default() });
}

/// A request that does not end is given up when those after it took half the memory, or came too long after it.
#[test]
fn what_does_not_end_does_not_hold_up_the_rest() {
    let check = |memory_bytes_max, wait_seconds, late: u64| {
        let folder = tempfile::tempdir().unwrap();
        let wait_max = Duration::from_secs(wait_seconds);
        let config = RecorderConfig { memory_bytes_max, wait_max, ..RecorderConfig::new(folder.path().into()) };
        let recorder = start(config);
        assert!(recorder.arrived(0, &arrival(0, &tokens(0..20))));
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut others = 0;
        while others < 20 || recorder.recorded().late < late {
            assert!(Instant::now() < deadline, "it is not given up");
            others += 1;
            serve(&recorder, others, &tokens(0..200));
            std::thread::yield_now();
        }
        // The end of the first comes after all.
        recorder.ended(0, Duration::from_secs(1_000_100), 1);
        let recorded = recorder.finish();
        assert_eq!((recorded.late, recorded.written + recorded.full), (late, others + 1 - late));
    };
    check(1 << 20, 1000, 0);
    check(1 << 20, 10, 1);
    check(8000, u64::MAX / 2, 1);
}

/// A process that is killed leaves complete lines: what is on disk at any time ends with a line feed.
#[test]
fn lines_are_whole_before_the_recorder_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = start(RecorderConfig::new(folder.path().into()));
    for second in 0..200 {
        serve(&recorder, second, &vec![second as u32; 4000]);
        let text = std::fs::read(file(folder.path(), 1)).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with(b"}\n"));
    }
    recorder.finish();
}

/// A machine that lost power may leave half a line; the next recorder cuts it, but not what another one is still writing.
#[test]
fn half_a_line_is_cut_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = start(RecorderConfig::new(folder.path().into()));
    serve(&recorder, 0, &tokens(0..20));
    recorder.finish();
    let path = file(folder.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let half = [&whole[..], &whole[..whole.len() / 2], &[b'1'; 5000]].concat();
    std::fs::write(&path, &half).unwrap();
    let other = std::fs::File::open(&path).unwrap();
    other.lock().unwrap();
    start(RecorderConfig::new(folder.path().into())).finish();
    assert_eq!(std::fs::read(&path).unwrap(), half);
    drop(other);
    start(RecorderConfig::new(folder.path().into())).finish();
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_and_one_that_goes_away_too() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let refused = Recorder::start(RecorderConfig::new(missing.clone()), fixed_salt()).err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::NotFound);
    std::fs::create_dir(&missing).unwrap();
    let recorder = start(RecorderConfig::new(missing.clone()));
    std::fs::remove_dir(&missing).unwrap();
    serve(&recorder, 0, &tokens(0..20));
    serve(&recorder, 1, &tokens(0..20));
    let recorded = recorder.finish();
    assert_eq!((recorded.written, recorded.failed), (0, 2));
    assert_eq!(recorder.take_error().unwrap().kind(), std::io::ErrorKind::NotFound);
    assert!(recorder.take_error().is_none());
}
