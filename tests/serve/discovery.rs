//! Instances that are found by themselves.

use crate::binary::{Router, file, names, section};
use crate::support::{MODEL, mock_config, post, start_mock};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn write(router: &Router, name: &str, text: &str) {
    // At once, as a well-behaved writer does it.
    let path = router.folder().join(name);
    std::fs::write(path.with_extension("new"), text).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
}

fn source(folder: &std::path::Path, name: &str) -> String {
    let path = folder.join(name);
    format!("[[discovery.file]]\npath = \"{}\"\npoll_seconds = 1\n", path.display())
}

#[tokio::test]
async fn a_file_of_instances_is_followed_and_what_is_wrong_with_it_changes_nothing() {
    let mock = start_mock(mock_config()).await;
    let folder = tempfile::tempdir().unwrap();
    let sources = source(folder.path(), "fleet.toml") + &source(folder.path(), "fleet.json");
    let path = folder.path().join("warmpath.toml");
    std::fs::write(folder.path().join("fleet.toml"), section("found", mock.http)).unwrap();
    std::fs::write(&path, file(&format!("{sources}[discovery]\nempty_seconds = 0\n"))).unwrap();
    let router = Router::start_in(folder, &path, &[]);
    let told = |status: &warmpath::serve::Status| {
        names(status) == ["found"] && status.sources[0].instances == 1 && status.sources[1].problem.is_some()
    };
    let status = router.until("the first one", told).await;
    let [toml, json] = &status.sources[..] else { panic!("{:?}", status.sources) };
    assert_eq!((toml.instances, &toml.problem), (1, &None));
    assert!(json.problem.as_ref().is_some_and(|problem| problem.contains("No such file")), "{json:?}");
    let body = json!({"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 1});
    assert_eq!(post(router.http, "/v1/completions", &body).await.0, 200);

    let other = json!({"instances": [{"name": "other", "url": "http://127.0.0.1:1", "model": "m"}]});
    write(&router, "fleet.json", &other.to_string());
    router.until("the second one", |status| names(status) == ["found", "other"]).await;

    write(&router, "fleet.toml", "[[instances]]\nname = \"found\"\nurl = \"nonsense\"\ntypo = 1\n");
    let told = |status: &warmpath::serve::Status| {
        let problem = status.sources[0].problem.clone().unwrap_or_default();
        ["typo: unknown field", "url: ", "model: is missing"].iter().all(|part| problem.contains(part))
    };
    let status = router.until("its problems", told).await;
    assert_eq!(names(&status), ["found", "other"]);
    assert_eq!(router.metric("warmpath_discovery_failing{source=\"file\"}").await, 1.0);

    write(&router, "fleet.toml", "");
    let left = |status: &warmpath::serve::Status| names(status) == ["other"] && status.sources[0].instances == 0;
    let status = router.until("the first one's leaving", left).await;
    assert_eq!(status.sources[0].problem, None);
    assert_eq!(router.metric("warmpath_discovery_instances{source=\"file\"}").await, 1.0);
}

#[tokio::test]
async fn a_source_that_suddenly_finds_nobody_is_not_believed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warmpath.toml");
    std::fs::write(folder.path().join("fleet.toml"), section("found", NOWHERE)).unwrap();
    let configuration = file(&format!("[discovery]\nempty_seconds = 3600\n{}", source(folder.path(), "fleet.toml")));
    std::fs::write(&path, &configuration).unwrap();
    let router = Router::start_in(folder, &path, &[]);
    router.until("the first one", |status| names(status) == ["found"]).await;
    write(&router, "fleet.toml", "");
    let status = router.until("a word of it", |status| status.sources[0].problem.is_some()).await;
    assert_eq!((names(&status), status.sources[0].instances), (vec!["found"], 1));
    assert_eq!(router.metric("warmpath_discovery_updates_total{source=\"file\",outcome=\"empty\"}").await, 1.0);
    // Whoever means it says so.
    std::fs::write(router.configuration(), configuration.replace("3600", "1")).unwrap();
    router.signal("HUP");
    router.until("its leaving", |status| status.instances.is_empty()).await;
}

#[tokio::test]
async fn two_that_want_one_name_or_address_are_told_of_and_the_first_one_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warmpath.toml");
    let elsewhere: SocketAddr = "127.0.0.1:2".parse().unwrap();
    let found = section("a", elsewhere) + &section("b", NOWHERE) + &section("c", "127.0.0.1:3".parse().unwrap());
    std::fs::write(folder.path().join("fleet.toml"), found).unwrap();
    let sources = source(folder.path(), "fleet.toml");
    std::fs::write(&path, file(&format!("{sources}{}", section("a", NOWHERE)))).unwrap();
    let router = Router::start_in(folder, &path, &[]);
    let told = |status: &warmpath::serve::Status| names(status) == ["a", "c"] && status.fleet_problems.len() == 2;
    let status = router.until("the third one", told).await;
    assert_eq!(status.instances[0].url, "http://127.0.0.1:1");
    let problems = status.fleet_problems.join("\n");
    assert!(
        problems.contains("\"a\" is wanted at") && problems.contains("\"b\" is at http://127.0.0.1:1"),
        "{problems}"
    );
}

/// What a name server answers: records of a type, with a time to live; `None`: that it fails.
type Answers = Arc<Mutex<Option<Vec<(RecordType, RData)>>>>;

/// A name server of one answer, over UDP.
async fn start_name_server(answers: &Answers, ttl: u32) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let answers = Arc::clone(answers);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            answer.metadata.recursion_desired = true;
            answer.metadata.recursion_available = true;
            let query = question.queries[0].clone();
            let (name, kind): (Name, RecordType) = (query.name().clone(), query.query_type());
            answer.add_query(query);
            match &*answers.lock().unwrap() {
                None => answer.metadata.response_code = ResponseCode::ServFail,
                Some(records) => {
                    for (of, data) in records {
                        if *of == kind {
                            answer.add_answer(Record::from_rdata(name.clone(), ttl, data.clone()));
                        }
                    }
                }
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    address
}

fn dns(server: SocketAddr, name: &str, port: Option<u16>) -> String {
    let port = port.map(|port| format!("port = {port}\n")).unwrap_or_default();
    format!(
        "[discovery]\nempty_seconds = 0\n[[discovery.dns]]\nname = \"{name}\"\n{port}server = \"{server}\"\n\
         interval_min_seconds = 1\ninstance = {{ model = \"m\", kv_events_port = 5557 }}\n"
    )
}

#[tokio::test]
async fn the_addresses_of_a_name_are_followed_and_a_server_that_fails_changes_nothing() {
    let mock = start_mock(mock_config()).await;
    let address = |last: u8| (RecordType::A, RData::A(A(Ipv4Addr::new(127, 0, 0, last))));
    let answers: Answers = Arc::new(Mutex::new(Some(vec![address(1), address(2)])));
    let server = start_name_server(&answers, 1).await;
    let port = mock.http.port();
    let router = Router::start(&file(&dns(server, "vllm.example.test", Some(port))), &[]);
    let both = [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}")];
    router.until("both", |status| names(status) == both).await;

    *answers.lock().unwrap() = None;
    let status = router.until("the failure", |status| status.sources[0].problem.is_some()).await;
    assert_eq!(names(&status), both);
    *answers.lock().unwrap() = Some(vec![address(1)]);
    router.until("the second one's leaving", |status| names(status) == both[..1]).await;
    let body = json!({"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 1});
    assert_eq!(post(router.http, "/v1/completions", &body).await.0, 200);
    // Where there is no record any more, nobody is there.
    *answers.lock().unwrap() = Some(Vec::new());
    router.until("everyone's leaving", |status| status.instances.is_empty()).await;
}

#[tokio::test]
async fn srv_records_tell_hosts_and_ports() {
    let target =
        |host: &str, port: u16| (RecordType::SRV, RData::SRV(SRV::new(0, 0, port, Name::from_ascii(host).unwrap())));
    let answers: Answers = Arc::new(Mutex::new(Some(vec![target("vllm-0.test.", 8000), target("vllm-1.test.", 8001)])));
    let server = start_name_server(&answers, 1).await;
    let router = Router::start(&file(&dns(server, "_http._tcp.vllm.test", None)), &[]);
    let status = router.until("both", |status| names(status) == ["vllm-0.test:8000", "vllm-1.test:8001"]).await;
    assert_eq!(status.instances[1].url, "http://vllm-1.test:8001");
    *answers.lock().unwrap() = Some(vec![target("vllm-1.test.", 8001), target(".", 0)]);
    router.until("the first one's leaving", |status| names(status) == ["vllm-1.test:8001"]).await;
}

/// A time to live of an hour, a bound of a second: the name is asked for again all the same.
#[tokio::test]
async fn a_long_time_to_live_is_bounded() {
    let address = |last: u8| (RecordType::A, RData::A(A(Ipv4Addr::new(127, 0, 0, last))));
    let answers: Answers = Arc::new(Mutex::new(Some(vec![address(1)])));
    let server = start_name_server(&answers, 3600).await;
    let bounded =
        dns(server, "vllm.example.test", Some(9)).replace("instance =", "interval_max_seconds = 1\ninstance =");
    let router = Router::start(&file(&bounded), &[]);
    router.until("the first one", |status| names(status) == ["127.0.0.1:9"]).await;
    *answers.lock().unwrap() = Some(vec![address(1), address(2)]);
    router.until("the second one", |status| names(status) == ["127.0.0.1:9", "127.0.0.2:9"]).await;
}
