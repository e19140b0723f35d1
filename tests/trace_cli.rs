//! `warmpath trace`, as a user types it: pipes, files that are replaced, and what is said of files that are none.
#![cfg(feature = "serve")]

use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
const WARMPATH: &str = env!("CARGO_BIN_EXE_warmpath");

fn trace(arguments: &[&str]) -> Output {
    Command::new(WARMPATH).arg("trace").args(arguments).env_remove("RUST_LOG").output().unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = trace(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is said, which must be one line.
#[track_caller]
fn fails(arguments: &[&str]) -> String {
    let output = trace(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    said.trim_end().to_owned()
}

/// `warmpath trace` with each of these, one's output the next one's input.
fn pipeline(commands: &[&[&str]]) -> String {
    let mut input = Stdio::null();
    let mut children = Vec::new();
    for arguments in commands {
        let mut command = Command::new(WARMPATH);
        let mut child = command.arg("trace").args(*arguments).stdin(input).stdout(Stdio::piped()).spawn().unwrap();
        input = child.stdout.take().map_or(Stdio::null(), Stdio::from);
        children.push(child);
    }
    // Of the last one, the output is read here.
    let mut text = String::new();
    let mut last = Command::new("cat").stdin(input).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_to_string(&mut last.stdout.take().unwrap(), &mut text).unwrap();
    last.wait().unwrap();
    for mut child in children {
        assert!(child.wait().unwrap().success(), "{commands:?}");
    }
    text
}

fn slice() -> String {
    format!("{DATA}/mooncake/toolagent_arxiv_slice_93rows.jsonl")
}

#[test]
fn subcommands_compose() {
    let whole = slice();
    let stats = pipeline(&[
        &["slice", &whole, "--from", "1181", "--until", "1188"],
        &["scale", "-", "--factor", "2"],
        &["anonymize", "-", "--to", "qwen-bailian"],
        &["convert", "-", "--to", "mooncake"],
        &["stats", "-", "--json", "-"],
    ]);
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let lines = fs::read_to_string(&whole).unwrap();
    let at = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["timestamp"].as_u64().unwrap();
    let kept: Vec<u64> = lines.lines().map(at).filter(|at| (1_181_000..1_188_000).contains(at)).collect();
    assert_eq!(stats[0]["requests"], kept.len());
    let seconds = (kept[kept.len() - 1] - kept[0]) as f64 / 1000.0 * 2.0;
    assert!((stats[0]["arrivals"]["seconds"].as_f64().unwrap() - seconds).abs() < 1e-6, "{stats}");
    assert_eq!((&stats[0]["format"], &stats[0]["prefix"]), (&"Mooncake".into(), &"real".into()));
    // Who reads only the beginning breaks the pipe of who writes.
    assert_eq!(pipeline(&[&["convert", &whole], &["head", "-", "-n", "2", "--to", "mooncake"]]).lines().count(), 2);
}

#[test]
fn a_trace_may_be_replaced_by_what_is_made_of_it_and_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    fs::copy(slice(), &path).unwrap();
    let name = path.to_str().unwrap();
    succeeds(&["head", name, "-n", "5", "--to", "mooncake", "--output", name]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 5);
    // The fourth line is cut: three were written when that is found.
    let text = fs::read_to_string(&path).unwrap();
    let third = text.match_indices('\n').nth(2).unwrap().0;
    let damaged = folder.path().join("damaged.jsonl");
    fs::write(&damaged, &text[..third + 20]).unwrap();
    let said = fails(&["convert", damaged.to_str().unwrap(), "--output", name]);
    assert!(said.contains("line 4: the record is cut off in the middle"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "what was there before is there still");
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["damaged.jsonl", "t.jsonl"]);
    succeeds(&["convert", name, "--output", "/dev/null"]);
}

/// What stood beside an earlier file of that name is not said of the new one.
#[test]
fn provenance_goes_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let name = path.to_str().unwrap();
    let azure = format!("{DATA}/azure/AzureLLMInferenceTrace_code_1week.head5_tail5.csv");
    let to = ["--to", "qwen-bailian", "--output", name];
    succeeds(&[&["convert", &azure, "--overlay", "apps", "--overlay-seed", "7"][..], &to].concat());
    assert!(succeeds(&["stats", name]).contains("prefix: overlay(apps, 7)"));
    succeeds(&[&["convert", &format!("{DATA}/qwen_bailian/thinking_first_row.jsonl")][..], &to].concat());
    assert!(succeeds(&["stats", name]).contains("prefix: real"));
}

/// What is shared in one of them is still there after a trip through the native form.
#[test]
fn a_merge_with_a_trace_without_structure_keeps_that_of_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("merged.jsonl");
    let name = path.to_str().unwrap();
    let azure = format!("{DATA}/azure/AzureLLMInferenceTrace_code_1week.head5_tail5.csv");
    succeeds(&["merge", &azure, &slice(), "--block-size", "512", "--output", name]);
    let stats: serde_json::Value = serde_json::from_str(&succeeds(&["stats", name, "--json", "-"])).unwrap();
    assert_eq!(stats[0]["prefix"]["overlay"]["name"], "none + real");
    let hits = |stats: &serde_json::Value| {
        let reuse = &stats[0]["reuse"];
        (reuse["block_hit_ratio"].as_f64().unwrap() * reuse["blocks"].as_f64().unwrap()).round()
    };
    let alone = serde_json::from_str(&succeeds(&["stats", &slice(), "--json", "-"])).unwrap();
    assert_eq!(hits(&stats), hits(&alone));
}

/// What is synthetic says so, in a file and through a pipe.
#[test]
fn a_synthetic_trace_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("synthetic.jsonl");
    let name = path.to_str().unwrap();
    let synth = ["synth", "--preset", "qwen-thinking", "--seed", "5", "--seconds", "60", "--output"];
    succeeds(&[&synth[..], &[name]].concat());
    let piped = pipeline(&[&[&synth[..], &["-"]].concat(), &["stats", "-", "--json", "-"]]);
    let in_file = succeeds(&["stats", name, "--json", "-"]);
    let [piped, in_file] =
        [piped, in_file].map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].take());
    for stats in [&piped, &in_file] {
        assert_eq!(stats["prefix"]["overlay"]["name"], "synthetic qwen-thinking");
    }
    for same in ["requests", "sessions", "reuse", "input_tokens", "kinds"] {
        assert_eq!(piped[same], in_file[same], "{same}");
    }
    let beside = fs::read_to_string(folder.path().join("synthetic.jsonl.provenance.json")).unwrap();
    let beside: serde_json::Value = serde_json::from_str(&beside).unwrap();
    assert_eq!(
        (&beside["synthetic"]["seed"], &beside["targets"]["requests"]["published"]),
        (&5.into(), &10812.0.into())
    );
    // Who reads only the beginning breaks the pipe.
    assert_eq!(
        pipeline(&[&[&synth[..], &["-"]].concat(), &["head", "-", "-n", "2", "--to", "qwen-bailian"]]).lines().count(),
        2
    );
}

#[test]
fn what_was_left_out_is_told_by_every_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("o.jsonl");
    let burst = format!("{DATA}/burstgpt/BurstGPT_1.head30.csv");
    let more: [&[&str]; 6] =
        [&["convert"], &["head", "-n", "100"], &["slice"], &["merge"], &["scale", "--factor", "1"], &["anonymize"]];
    for command in more {
        let arguments = [command, &[&burst, "--output", output.to_str().unwrap()]].concat();
        let said = String::from_utf8(trace(&arguments).stderr).unwrap();
        assert!(said.contains("1 records left out: empty prompt"), "{command:?}: {said}");
    }
}

fn written(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn files_that_are_none_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| written(folder.path(), name, content);
    let gzipped = |content: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let without = folder.path().join("without");
    fs::create_dir(&without).unwrap();
    fs::copy(slice(), without.join("trace.jsonl")).unwrap();
    let whole = fs::read(slice()).unwrap();
    let cut = gzipped(&whole);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:07ce\nsize 56\n";
    for (path, part) in [
        ("/nonexistent.jsonl".to_owned(), "cannot read /nonexistent.jsonl: No such file or directory"),
        (file("pointer.jsonl", pointer), "is a Git LFS pointer, not the data; run `git lfs pull`"),
        (file("empty.jsonl", b""), "is empty"),
        (file("blank.jsonl.gz", &gzipped(b"\n\n")), "is empty"),
        (file("cut.jsonl.gz", &cut[..cut.len() / 2]), "the record is cut off in the middle; the file is incomplete"),
        (file("binary.jsonl", &[0xff, 0, 0xfe, 7]), "the line is not UTF-8 text"),
        (file("other.csv", b"a,b,c\n1,2,3\n"), "is neither JSON nor a heading with known columns"),
        (
            file("column.csv", b"Timestamp,Request tokens,Log Type\n1,2,x\n"),
            "like that of BurstGPT, which has Response tokens, too",
        ),
        (file("fields.jsonl", b"{\"prompt\":\"x\"}\n"), "has the fields prompt"),
        (without.to_str().unwrap().to_owned(), "is a folder without files in .json or .parquet"),
        ("/dev/null".to_owned(), "/dev/null is not a regular file"),
        (
            file("stats.json", b"[{\"input_tokens\":{\"mean\":1},\"output_tokens\":{},\"requests\":1}]"),
            "has the fields",
        ),
    ] {
        let said = fails(&["stats", &path]);
        assert!(said.contains(part), "{path}: {said}");
    }
    let times = b"arrived_at,num_prefill_tokens,num_decode_tokens\nNaN,10,5\n,10,5\n1,10,5\n";
    assert!(succeeds(&["stats", &file("nan.csv", times)]).contains("2 records left out: time unreadable"));
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let whole = slice();
    for (arguments, part) in [
        (&["slice", &whole, "--from", "-1"][..], "\"-1\" is not a number of seconds"),
        (&["slice", &whole, "--until", "soon"], "\"soon\" is not a number of seconds"),
        (&["scale", &whole, "--factor", "NaN"], "\"NaN\" is not a number from 0"),
        (&["convert", &whole, "--to", "csv"], "known forms are native, qwen-bailian, mooncake"),
        (&["synth", "--preset", "qwen"], "known are qwen-a, qwen-b, qwen-coder, qwen-thinking, mooncake"),
        (&["synth", "--preset", "qwen-a", "--seconds", "0"], "--seconds must be above 0"),
        (&["slice", &whole, "--from", "9", "--until", "3"], "nothing lies between"),
    ] {
        let output = trace(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(part), "{arguments:?}: {said}");
    }
}
