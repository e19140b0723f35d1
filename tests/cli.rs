//! The commands, as a user types them.
#![cfg(feature = "serve")]

use std::process::{Command, Output};

const CONVERSATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mooncake/conversation_trace.jsonl.gz");

fn warmpath(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_warmpath")).args(arguments).env_remove("RUST_LOG").output().unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = warmpath(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is said, which must be one line.
#[track_caller]
fn fails(arguments: &[&str]) -> String {
    let output = warmpath(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said.trim_end().to_owned()
}

#[test]
fn the_demo_ends_well_and_says_what_was_won() {
    let said = succeeds(&["demo", "--requests", "40", "--speed", "200"]);
    for part in ["round_robin ", "prefix_cost ", "max/mean", "of all prompt tokens from a cache where round_robin took"]
    {
        assert!(said.contains(part), "{part:?} is missing from {said}");
    }
}

/// Killed when it had finished something; then it does the rest and says what one that was never killed says.
#[test]
fn a_study_that_is_killed_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger.jsonl");
    let study = ["replay", CONVERSATION, "--limit", "1500", "--instances", "2,4", "--seeds", "4", "--json", "-"];
    let resumed = [&study[..], &["--resume", ledger.to_str().unwrap()]].concat();
    let mut killed = Command::new(env!("CARGO_BIN_EXE_warmpath"))
        .args(&resumed)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let finished = || std::fs::read_to_string(&ledger).map_or(0, |text| text.lines().count());
    while finished() < 2 && killed.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(finished() >= 2);
    let said = succeeds(&resumed);
    // Two fleets, three policies, four seeds: each once, whatever was half written.
    assert_eq!(finished(), 24);
    assert_eq!(said, succeeds(&study));
    std::fs::write(&ledger, "mine\n").unwrap();
    assert!(fails(&resumed).contains("line 1 of "));
}

#[test]
fn step_times_are_fitted_told_and_replayed_with() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("steps.csv");
    let mut rows = "prefill_tokens,prefill_context_tokens,decode_sequences,decode_context_tokens,seconds\n".to_owned();
    for prefill in [1000, 2000, 4000, 8000] {
        rows += &format!("{prefill},0,0,0,{}\n", 0.01 + 1e-4 * f64::from(prefill));
    }
    std::fs::write(&file, rows).unwrap();
    let file = file.to_str().unwrap();
    let told = succeeds(&["replay", "--fit", file]);
    for part in
        ["fitted to 4 measurements", "token           1.0000e-4 s", "(these measurements cannot tell)", "R² 1.0000"]
    {
        assert!(told.contains(part), "{part:?} is missing from {told}");
    }
    let table = succeeds(&["replay", CONVERSATION, "--limit", "50", "--policy", "random", "--fit", file]);
    assert!(table.contains("qwen3-32b-h100-tp2 (fitted)"), "{table}");
    std::fs::write(file, "a,b\n").unwrap();
    assert!(fails(&["replay", "--fit", file]).contains("the heading has neither the columns"));
}

#[test]
fn a_replay_is_a_table_and_the_same_json_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let arguments = ["replay", CONVERSATION, "--limit", "300", "--policy", "random,prefix_cost", "--seed", "3"];
    let table = succeeds(&[&arguments[..], &["--json", file.to_str().unwrap()]].concat());
    for part in ["random ", "prefix_cost ", "ideal ", "300 requests", "8 instances · 527 blocks each"] {
        assert!(table.contains(part), "{part:?} is missing from {table}");
    }
    let json = succeeds(&[&arguments[..], &["--json", "-"]].concat());
    assert_eq!(json, std::fs::read_to_string(file).unwrap());
    let reports: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(reports[0]["outcomes"][1]["policy"], "prefix_cost");
    assert_eq!(reports[0]["outcomes"][1]["requests"], 300);
}

#[test]
fn what_cannot_be_replayed_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = folder.path().join("pointer.jsonl");
    std::fs::write(&pointer, "version https://git-lfs.github.com/spec/v1\noid sha256:07ce\nsize 56\n").unwrap();
    let said = fails(&["replay", pointer.to_str().unwrap()]);
    assert!(
        said.ends_with("is a Git LFS pointer, not the data; run `git lfs pull` in the repository that it came from")
    );
    let said = fails(&["replay", "absent.jsonl"]);
    assert_eq!(said, "error: cannot read absent.jsonl: No such file or directory (os error 2)");
    let said = fails(&["replay", CONVERSATION, "--time-scale", "0"]);
    assert_eq!(said, "error: the time scale must be a number above 0, not 0");
    let said = fails(&["replay", CONVERSATION, "--limit", "3", "--json", folder.path().to_str().unwrap()]);
    assert!(said.starts_with("error: cannot write "), "{said}");
}

#[test]
fn an_unknown_name_lists_what_there_is() {
    let output = warmpath(&["replay", CONVERSATION, "--policy", "fastest"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains(r#"unknown policy "fastest"; there are random, round_robin,"#), "{said}");
    let output = warmpath(&["replay", CONVERSATION, "--preset", "gpt"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(r#"unknown model preset "gpt"; there are qwen3-32b-h100-tp2,"#), "{said}");
}

#[test]
fn a_router_that_is_not_there_is_said_so() {
    let said = fails(&["route", "--router", "http://127.0.0.1:1", "--model", "m", "--token-ids", "1,2"]);
    assert!(
        said.starts_with("error: cannot reach a router at http://127.0.0.1:1; is `warmpath serve` running?: "),
        "{said}"
    );
}

/// What is generated is in the repository as it is generated now.
#[test]
fn the_list_of_metrics_is_current() {
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/metrics.md")).unwrap();
    assert!(kept == succeeds(&["metrics"]), "deploy/metrics.md is not what `warmpath metrics` prints now");
}

#[test]
fn manual_pages_and_completions_know_every_command() {
    let page = succeeds(&["man"]);
    let folder = tempfile::tempdir().unwrap();
    succeeds(&["man", "--folder", folder.path().to_str().unwrap()]);
    for command in ["serve", "replay", "top", "config", "mock\\-vllm"] {
        assert!(page.contains(&format!("warmpath\\-{command}")), "{command} is missing from {page}");
        let file = format!("warmpath-{}.1", command.replace('\\', ""));
        let page = std::fs::read_to_string(folder.path().join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(page.contains(".SH SYNOPSIS"), "{file}: {page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = succeeds(&["completions", shell]);
        assert!(script.contains("mock-vllm") && script.contains("kv-replay-port"), "{shell}: {script}");
    }
}

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// Text traces, with a real tokenizer and chat template: Parquet and JSON alike.
#[test]
fn texts_are_tokenized_with_the_model_that_is_named() {
    let tokenizer = format!("{DATA}/vllm_render/tools");
    for trace in ["formats/sharegpt.json", "parquet/lmsys_chat.parquet"] {
        let trace = format!("{DATA}/{trace}");
        let said = fails(&["trace", "stats", &trace]);
        assert!(said.contains("need a tokenizer") && said.contains("--tokenizer"), "{said}");
        let stats = succeeds(&["trace", "stats", &trace, "--tokenizer", &tokenizer, "--json", "-"]);
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        assert_eq!(stats[0]["prefix"], "real");
        assert!(stats[0]["reuse"]["token_hit_ratio"].as_f64().unwrap() > 0.1, "{stats}");
        let native = succeeds(&["trace", "convert", &trace, "--tokenizer", &tokenizer]);
        let session = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["session"].clone();
        assert!(native.lines().skip(1).all(|line| session(line).is_u64()), "{native}");
        let table = succeeds(&["replay", &trace, "--tokenizer", &tokenizer, "--policy", "prefix_cost"]);
        assert!(table.contains("prefix: real"), "{table}");
    }
    let missing = fails(&["trace", "stats", &format!("{DATA}/formats/sharegpt.json"), "--tokenizer", "/nonexistent"]);
    assert!(missing.contains("cannot read /nonexistent/tokenizer.json"), "{missing}");
}

#[test]
fn an_overlay_is_replayed_and_named_beside_its_hit_ratios() {
    let trace = format!("{DATA}/azure/AzureLLMInferenceTrace_code_1week.head5_tail5.csv");
    let replay = |overlay: &[&str]| succeeds(&[&["replay", &trace, "--policy", "prefix_cost"], overlay].concat());
    assert!(replay(&[]).contains("prefix: overlay(none, 0)"));
    assert!(replay(&["--overlay", "apps", "--overlay-seed", "7"]).contains("prefix: overlay(apps, 7)"));
    let markdown = succeeds(&["replay", &trace, "--policy", "prefix_cost", "--overlay", "apps", "--seeds", "2"]);
    assert!(markdown.contains("overlay(apps, 0)"), "{markdown}");
}

#[test]
fn what_is_published_may_be_told() {
    let trace = format!("{DATA}/mooncake/toolagent_arxiv_slice_93rows.jsonl");
    let published = format!("{DATA}/mooncake/published_slice.json");
    let text = succeeds(&["trace", "stats", &trace, "--published", &published]);
    assert!(text.contains("sha256 matches") && !text.contains("DIFFERS"), "{text}");
    assert!(!succeeds(&["trace", "stats", &trace]).contains("published"));
}
