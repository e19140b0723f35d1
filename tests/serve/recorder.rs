//! What `serve` records of real traffic, through real processes.

use crate::support::{MODEL, get, mock_config, open_post, post, prompt, soon, start_mock};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use warmpath::serve::proto::router_client::RouterClient;
use warmpath::serve::proto::{CompleteRequest, Outcome, RouteRequest};
use warmpath::trace::{Record, Trace};

/// `warmpath serve` in a process of its own.
struct Serving {
    child: Child,
    http: SocketAddr,
    admin: SocketAddr,
    grpc: SocketAddr,
}

fn serve(folder: &Path, instance: SocketAddr) -> Serving {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\
         [health]\ninterval_seconds = 0\n[recorder]\nfolder = \"{folder}\"\n\
         [[instances]]\nname = \"a\"\nurl = \"http://{instance}\"\nmodel = \"{MODEL}\"\n",
        folder = folder.display()
    );
    let config = folder.join("warmpath.toml");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_warmpath"));
    command.args(["serve", "--config"]).arg(config).env_remove("RUST_LOG").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = |name: &str| {
        let after = line.split(&format!("{name}=")).nth(1).unwrap_or_else(|| panic!("{line}"));
        after.split_whitespace().next().unwrap().parse().unwrap()
    };
    Serving { http: address("http"), admin: address("admin"), grpc: address("grpc"), child }
}

impl Serving {
    /// Waits until so many requests came to that end.
    async fn recorded(&self, outcome: &str, count: u64) {
        let line = format!("warmpath_recorder_requests_total{{outcome=\"{outcome}\"}} {count}");
        let all = async {
            while !get(self.admin, "/metrics").await.1.lines().any(|found| found == line) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        soon(&line, all).await;
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn records(folder: &Path, number: u32) -> Vec<Record> {
    let trace = Trace::open(folder.join(format!("recording-{number:06}.jsonl"))).unwrap();
    trace.records().unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn what_was_served_before_a_kill_can_be_replayed() {
    let mock = start_mock(mock_config()).await;
    let folder = tempfile::tempdir().unwrap();
    let serving = serve(folder.path(), mock.http);
    // Two turns of one conversation, and something else; one that streams.
    let (first, other) = (prompt(1, 100), prompt(2, 40));
    let second = [&first[..], &prompt(3, 60)].concat();
    for (prompt, max_tokens, stream) in [(&first, 3, false), (&second, 5, true), (&other, 7, false)] {
        let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "stream": stream});
        assert_eq!(post(serving.http, "/v1/completions", &body).await.0, 200);
    }
    // A text is forwarded, and not recorded: nobody knows its tokens.
    post(serving.http, "/v1/completions", &json!({"model": MODEL, "prompt": "It was", "max_tokens": 1})).await;
    serving.recorded("untokenized", 1).await;
    serving.recorded("written", 3).await;
    serving.kill();

    let records = records(folder.path(), 1);
    let said: Vec<_> = records.iter().map(|record| (record.prompt_tokens, record.output_tokens, record.turn)).collect();
    assert_eq!(said, [(100, 3, Some(1)), (160, 5, Some(2)), (40, 7, Some(1))]);
    assert_eq!((records[1].parent, records[2].parent), (Some(0), None));
    assert_eq!(records[0].blocks[..6], records[1].blocks[..6]);

    let mut replay = Command::new(env!("CARGO_BIN_EXE_warmpath"));
    replay.args(["replay", "--instances", "2", "--policy", "prefix_cost", "--json", "-"]);
    let replayed = replay.arg(folder.path().join("recording-000001.jsonl")).output().unwrap();
    assert!(replayed.status.success(), "{replayed:?}");
    let report: Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!((&report[0]["outcomes"][0]["requests"], &report[0]["trace"]["prefix"]), (&json!(3), &json!("real")));

    // Started again, it goes on in a file of its own; a client that hangs up leaves no record.
    let serving = serve(folder.path(), mock.http);
    let endless = json!({"model": MODEL, "prompt": prompt(4, 20), "max_tokens": 100_000, "stream": true});
    drop(open_post(serving.http, "/v1/completions", &endless).await);
    serving.recorded("unfinished", 1).await;
    let mut client = soon("connecting", RouterClient::connect(format!("http://{}", serving.grpc))).await.unwrap();
    let request = RouteRequest {
        model: MODEL.to_owned(),
        token_ids: prompt(5, 50),
        session_id: Some("s".to_owned()),
        ..Default::default()
    };
    let request_id = client.route(request).await.unwrap().into_inner().request_id;
    let outcome = Outcome::Finished.into();
    let complete = CompleteRequest { request_id, output_tokens: 9, outcome };
    client.complete(complete).await.unwrap();
    serving.recorded("written", 1).await;
    serving.kill();
    let after = self::records(folder.path(), 2);
    assert_eq!((after.len(), after[0].prompt_tokens, after[0].output_tokens), (1, 50, 9));
    mock.running.stop().await;
}

/// Requests go on coming and being written while the process is killed.
#[tokio::test]
async fn a_kill_while_writing_leaves_whole_lines() {
    let mock = start_mock(mock_config()).await;
    let folder = tempfile::tempdir().unwrap();
    let serving = serve(folder.path(), mock.http);
    let client = soon("connecting", RouterClient::connect(format!("http://{}", serving.grpc))).await.unwrap();
    let busy: Vec<_> = (0..4).map(|seed| tokio::spawn(route_until_it_fails(client.clone(), seed * 100_000))).collect();
    let written = async {
        loop {
            let page = get(serving.admin, "/metrics").await.1;
            let line =
                page.lines().find_map(|l| l.strip_prefix("warmpath_recorder_requests_total{outcome=\"written\"} "));
            match line.and_then(|count| count.parse().ok()) {
                Some(count) if count >= 100 => break count,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    let told: usize = soon("a hundred are written", written).await;
    serving.kill();
    for task in busy {
        assert!(soon("it fails", task).await.unwrap() > 0);
    }
    let text = std::fs::read_to_string(folder.path().join("recording-000001.jsonl")).unwrap();
    assert!(text.ends_with("}\n"), "{}", &text[text.len().saturating_sub(200)..]);
    let records = records(folder.path(), 1);
    assert_eq!(records.len(), text.lines().count());
    assert!(records.len() >= told, "{} of {told}", records.len());
    mock.running.stop().await;
}

/// How many were routed and completed.
async fn route_until_it_fails(mut client: RouterClient<tonic::transport::Channel>, seed: u32) -> u32 {
    for done in 0.. {
        let token_ids = prompt(seed + done, 2000);
        let request = RouteRequest { model: MODEL.to_owned(), token_ids, ..Default::default() };
        let Ok(routed) = client.route(request).await else { return done };
        let request_id = routed.into_inner().request_id;
        let complete = CompleteRequest { request_id, output_tokens: 9, outcome: Outcome::Finished.into() };
        if client.complete(complete).await.is_err() {
            return done;
        }
    }
    unreachable!("the process is killed")
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_told_before_anything_is_served() {
    let mut config = crate::support::config(vec![crate::support::instance("a", ([127, 0, 0, 1], 1).into(), None)]);
    config.recorder = Some(warmpath::trace::RecorderConfig::new("/nonexistent".into()));
    let refused = warmpath::serve::App::bind(config).await.err().unwrap().to_string();
    assert!(refused.starts_with("cannot record in /nonexistent (recorder.folder)"), "{refused}");
}
