//! An SRE's drill: what goes wrong in a fleet does, under load, with the real binary. Each time no answer is wrong, no request
//! stays in flight, and the metric that should say so does, and an alert watches it.

mod crowd;
mod process;

use crate::security::tls::{Authority, client, connect};
use crate::support::{MODEL, eventually};
use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use axum::routing::any;
use crowd::Crowd;
use process::{Router, assert_alert, mock};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tonic::transport::Channel;
use warmpath::serve::proto::DrainRequest;
use warmpath::serve::proto::fleet_client::FleetClient;

const CLIENTS: u32 = 16;

async fn drain(router: &Router, instance: &str, resume: bool) {
    let admin = Channel::from_shared(format!("http://{}", router.admin())).unwrap().connect_lazy();
    FleetClient::new(admin).drain(DrainRequest { instance: instance.to_owned(), resume }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_killed() {
    let (stays, mut goes) = (mock(), mock());
    let router = Router::start(&[("stays", stays.address("http")), ("goes", goes.address("http"))], "");
    let crowd = Crowd::gather(CLIENTS, router.http(), stays.address("http")).await;
    crowd.answered(60).await;
    goes.signal("-KILL");
    goes.end().await;
    router.until("warmpath_instance_ready{instance=\"goes\"}", |ready| ready == 0.0).await;
    assert_alert("WarmpathInstanceDown", "warmpath_instance_ready");
    crowd.answered(60).await;
    let told = crowd.disperse().await;
    // Who was there when it died, or was given a connection that it had left, may be told so; everyone else was answered.
    let broken: usize = told.iter().filter(|(status, _)| **status != 200).map(|(_, times)| times).sum();
    assert!(broken <= 2 * CLIENTS as usize && told.keys().all(|status| [0, 200, 502].contains(status)), "{told:?}");
    router.until_idle().await;
    let mut failures = 0.0;
    for kind in ["connect", "send", "body"] {
        failures +=
            router.metric(&format!("warmpath_upstream_failures_total{{instance=\"goes\",kind=\"{kind}\"}}")).await;
    }
    assert!(failures >= 1.0, "nobody counted what failed");
    assert_alert("WarmpathUpstreamFailures", "warmpath_upstream_failures_total");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_drained() {
    let (stays, goes) = (mock(), mock());
    let router = Router::start(&[("stays", stays.address("http")), ("goes", goes.address("http"))], "");
    let crowd = Crowd::gather(CLIENTS, router.http(), stays.address("http")).await;
    crowd.answered(60).await;
    drain(&router, "goes", false).await;
    for stage in ["prefill", "decode"] {
        let series = format!("warmpath_instance_requests{{instance=\"goes\",stage=\"{stage}\"}}");
        router.until(&series, |requests| requests == 0.0).await;
    }
    let assigned = "warmpath_instance_assigned_total{instance=\"goes\"}";
    let before = router.metric(assigned).await;
    crowd.answered(60).await;
    assert_eq!(router.metric(assigned).await, before, "it gets nothing new");
    assert_eq!(router.metric("warmpath_instance_ready{instance=\"goes\"}").await, 0.0);
    let told = crowd.disperse().await;
    assert!(told.keys().eq([&200]), "{told:?}");
    router.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_full() {
    let instance = mock();
    // One prompt saturates the instance, and two may wait.
    let tight = "[admission]\nprefill_tokens_max = 1\nqueue_requests_max = 2\nwait_seconds_max = 20\n";
    let router = Router::start(&[("a", instance.address("http"))], tight);
    let crowd = Crowd::gather(CLIENTS, router.http(), instance.address("http")).await;
    router.until("warmpath_shed_total{reason=\"full\"}", |shed| shed >= 20.0).await;
    crowd.answered(20).await;
    let told = crowd.disperse().await;
    assert!(told.keys().eq([&200, &429]), "{told:?}");
    router.until_idle().await;
    assert_eq!(router.metric("warmpath_shed_total{reason=\"full\"}").await, told[&429] as f64);
    assert_eq!(router.metric("warmpath_http_requests_total{answer=\"shed\"}").await, told[&429] as f64);
    assert!(router.metric("warmpath_queue_wait_seconds_count{end=\"admitted\"}").await >= 1.0);
    assert_alert("WarmpathShedding", "warmpath_shed_total");
}

/// An instance that answers as long as someone reads; and how many bytes it was rid of.
async fn endless() -> (SocketAddr, Arc<AtomicUsize>) {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let answer = move || {
        let count = Arc::clone(&count);
        let events = std::iter::repeat_with(move || {
            let event = Bytes::from(format!("data: {{\"choices\":[{{\"text\":\"{}\"}}]}}\n\n", "a".repeat(8_000)));
            count.fetch_add(event.len(), Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(event)
        });
        async move { Body::from_stream(tokio_stream::iter(events)).into_response() }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = axum::routing::get(|| async { "" });
    let routes = axum::Router::new().route("/health", health).route("/v1/completions", any(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, written)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_never_reads() {
    let ((endless, written), instance) = (endless().await, mock());
    let fleet = [("endless", endless), ("a", instance.address("http"))];
    let router = Router::start(&fleet, "");
    let resident = "process_resident_memory_bytes";
    let before = router.metric(resident).await;
    drain(&router, "a", false).await;
    let deaf = ask_and_never_read(router.http()).await;
    // Until nothing goes any more: what is not read is not asked for either.
    let (mut last, mut still) = (0, 0);
    eventually("silence", || {
        let now = written.load(Ordering::Relaxed);
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
        still > 200
    })
    .await;
    router.until("warmpath_instance_requests{instance=\"endless\",stage=\"decode\"}", |requests| requests == 1.0).await;
    let grown = router.metric(resident).await - before;
    assert!(grown < 64e6, "{grown} bytes are held for one who does not read");
    // Nobody else notices.
    drain(&router, "a", true).await;
    drain(&router, "endless", false).await;
    let crowd = Crowd::gather(4, router.http(), instance.address("http")).await;
    crowd.answered(20).await;
    let told = crowd.disperse().await;
    assert!(told.keys().eq([&200]), "{told:?}");
    assert_eq!(router.metric("warmpath_requests_in_flight").await, 1.0, "it still counts");
    // One who comes once there is less patience is cut off, and counted.
    router.reconfigure(&fleet, "[limits]\nwrite_seconds_max = 1\n");
    router.until("warmpath_config_reloads_total{outcome=\"applied\"}", |applied| applied == 1.0).await;
    drain(&router, "endless", true).await;
    drain(&router, "a", false).await;
    let impatient = ask_and_never_read(router.http()).await;
    router.until("warmpath_refusals_total{listener=\"http\",reason=\"unread\"}", |unread| unread >= 1.0).await;
    assert_alert("WarmpathClientsCutOff", "warmpath_refusals_total");
    router.until("warmpath_requests_in_flight", |requests| requests == 1.0).await;
    drop((deaf, impatient));
    router.until_idle().await;
}

/// A client that asks for an answer and takes none of it.
async fn ask_and_never_read(router: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(router).await.unwrap();
    let body = json!({"model": MODEL, "prompt": [1, 2, 3], "stream": true}).to_string();
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n", body.len());
    deaf.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    deaf
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_read() {
    let instance = mock();
    let fleet = [("a", instance.address("http"))];
    let router = Router::start(&fleet, "");
    let crowd = Crowd::gather(CLIENTS, router.http(), instance.address("http")).await;
    crowd.answered(60).await;
    // It would also let nobody in any more.
    router.reconfigure(&fleet, "[routing]\nmax_in_flight = 1\npolicy = \"best\"\n");
    router.until("warmpath_config_last_reload_ok", |ok| ok == 0.0).await;
    assert_alert("WarmpathConfigRefused", "warmpath_config_last_reload_ok");
    crowd.answered(60).await;
    router.reconfigure(&fleet, "");
    router.until("warmpath_config_last_reload_ok", |ok| ok == 1.0).await;
    assert_eq!(router.metric("warmpath_config_reloads_total{outcome=\"refused\"}").await, 1.0);
    crowd.answered(60).await;
    let told = crowd.disperse().await;
    assert!(told.keys().eq([&200]), "{told:?}");
    router.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_expires() {
    let instance = mock();
    let authority = Authority::new();
    let (certificate, key) = authority.sign("grpc", "127.0.0.1", 2020);
    let tls = format!("[tls]\nreload_seconds = 1\n[tls.grpc]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let router = Router::start(&[("a", instance.address("http"))], &tls);
    let crowd = Crowd::gather(CLIENTS, router.http(), instance.address("http")).await;
    crowd.answered(60).await;
    let now = std::time::UNIX_EPOCH.elapsed().expect("it is after 1970").as_secs_f64();
    let expiry = "warmpath_certificate_expiry_seconds{certificate=\"grpc\"}";
    assert!(router.metric(expiry).await < now);
    assert_alert("WarmpathCertificateExpires", "warmpath_certificate_expiry_seconds");
    let grpc = router.process.address("grpc");
    let refused = connect(grpc, client(&authority, b"h2", None)).await.expect_err("it has expired");
    assert!(refused.to_string().contains("expired"), "{refused}");
    // The next one is taken without a restart, and who goes another way noticed nothing.
    authority.sign("grpc", "127.0.0.1", 2040);
    router.until(expiry, |expiry| expiry > now).await;
    connect(grpc, client(&authority, b"h2", None)).await.expect("it is good until 2040");
    crowd.answered(60).await;
    let told = crowd.disperse().await;
    assert!(told.keys().eq([&200]), "{told:?}");
    router.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_is_stopped() {
    let instance = mock();
    let tight = "[admission]\nprefill_tokens_max = 1\nqueue_requests_max = 64\nwait_seconds_max = 20\n";
    let mut router = Router::start(&[("a", instance.address("http"))], tight);
    let crowd = Crowd::gather(CLIENTS, router.http(), instance.address("http")).await;
    crowd.answered(40).await;
    router.process.signal("-TERM");
    assert_eq!(router.process.end().await.code(), Some(0));
    tokio::time::timeout(Duration::from_secs(60), async {
        let told = crowd.disperse().await;
        // Those in flight were answered, those who waited were told, those who came later found nobody.
        assert!(told[&200] >= 40 && told.keys().all(|status| [0, 200, 503].contains(status)), "{told:?}");
        assert!(told.contains_key(&503), "nobody who waited was told: {told:?}");
    })
    .await
    .expect("all clients end");
    // The instance has nothing left of it.
    tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let (status, metrics) = crate::support::get(instance.address("http"), "/metrics").await;
            assert_eq!(status, 200);
            let running = metrics.lines().find(|line| line.starts_with("vllm:num_requests_running"));
            let running = running.and_then(|line| line.rsplit_once(' ')).expect("it says how much it runs").1;
            if running.parse::<f64>().unwrap() == 0.0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the instance comes to rest");
}
