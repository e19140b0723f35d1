//! `warmpath load`, through real sockets.

use crate::support::{MODEL, mock_config, start_mock};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use warmpath::mock::MockConfig;
use warmpath::replay::StudyReport;

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mooncake/synthetic_trace.jsonl.gz");

async fn load(url: String, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warmpath"));
    command.args(["load", TRACE, "--model", MODEL, "--url", &url]).args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn study(file: &Path) -> StudyReport {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[tokio::test]
async fn what_an_endpoint_caches_is_what_a_replay_says() {
    // Blocks of the trace's own size, and room for all, so that nothing hangs on the pace.
    let block_size = warmpath::routing::block::BlockSize::new(512).unwrap();
    let config =
        MockConfig { block_size, blocks: Some(20_000), max_model_len: Some(200_000), speed: 100.0, ..mock_config() };
    let mock = start_mock(config).await;
    let folder = tempfile::tempdir().unwrap();
    let [live, simulated, rows] = ["live.json", "simulated.json", "rows.csv"].map(|name| folder.path().join(name));
    let fleet = ["--limit", "200", "--instances", "1", "--blocks", "20000", "--time-scale", "0.01"];
    let preset = ["--preset", "qwen3-32b-h100-tp2", "--policy", "prefix_cost", "--output-tokens-max", "20"];
    // Whatever else the machine has to do, all of it is in time.
    let in_time = ["--slo-ttft", "600000"];
    let to = ["--json", live.to_str().unwrap(), "--csv", rows.to_str().unwrap()];
    let said = load(format!("http://{}", mock.http), &[&fleet[..], &preset, &in_time, &to].concat()).await;
    assert!(said.status.success(), "{said:?}");
    mock.running.stop().await;

    let mut replay = Command::new(env!("CARGO_BIN_EXE_warmpath"));
    replay.args(["replay", TRACE, "--policy", "prefix_cost", "--seeds", "2"]).args(fleet);
    replay.args(["--json", simulated.to_str().unwrap()]);
    assert!(replay.output().unwrap().status.success());
    let (measured, replayed) = (study(&live), study(&simulated));
    let (measured, replayed) = (&measured.scenarios[0], &replayed.scenarios[0]);
    assert!(measured.measured && !replayed.measured);
    let [ours, theirs] = [measured, replayed].map(|scenario| scenario.cells[0].token_hit_ratio.mean);
    assert!(ours > 0.05 && (ours - theirs).abs() < 0.005, "{ours} of the tokens hit, {theirs} replayed");
    assert_eq!(measured.cells[0].goodput.mean, 1.0);
    assert_eq!(std::fs::read_to_string(&rows).unwrap().lines().count(), 201);

    let mut compare = Command::new(env!("CARGO_BIN_EXE_warmpath"));
    compare.args(["replay", "--compare", simulated.to_str().unwrap(), live.to_str().unwrap()]);
    let said = String::from_utf8(compare.output().unwrap().stdout).unwrap();
    assert!(said.contains("measured: synthetic_trace.jsonl.gz") && said.contains("| prefix_cost |"), "{said}");
}

#[tokio::test]
async fn what_fails_and_what_is_left_out_is_said() {
    let mock = start_mock(MockConfig { max_model_len: Some(8_000), ..mock_config() }).await;
    let few = ["--limit", "40", "--time-scale", "0.001", "--output-tokens-max", "2"];
    let url = format!("http://{}", mock.http);
    let said = load(url.clone(), &[&few[..], &["--prompt-tokens-max", "20000"]].concat()).await;
    assert!(said.status.success(), "{said:?}");
    let errors = String::from_utf8(said.stderr).unwrap();
    assert!(errors.contains("requests failed: it answered 400 Bad Request"), "{errors}");
    assert!(errors.contains("requests were left out: their prompts are too long"), "{errors}");
    mock.running.stop().await;

    let said = load(url, &few).await;
    let errors = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1), "{errors}");
    assert!(errors.contains("40 requests failed: it cannot be reached"), "{errors}");
    assert!(errors.ends_with("error: no request was answered\n"), "{errors}");
    let said = load("grpc://127.0.0.1:1".to_owned(), &few).await;
    assert!(String::from_utf8(said.stderr).unwrap().contains("is not an http:// or https:// URL"));
}

#[test]
fn told_to_stop_it_stops_and_says_what_is_missing() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_warmpath"));
    command.args(["load", TRACE, "--model", MODEL, "--url", &url]).stderr(Stdio::piped()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    // It has begun once it connects.
    let (_connection, _) = silent.accept().unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let said = child.wait_with_output().unwrap();
    let errors = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1), "{errors}");
    assert!(errors.contains("stopped: 3993 requests were under way or yet to come"), "{errors}");
}
