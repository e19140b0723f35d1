//! Clients that send too much, or take their time.

use super::{echo, refusals};
use crate::support::{MODEL, RunningApp, config, eventually, instance, prompt, soon, start_app};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::post;
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use warmpath::config::{Config, Limits};

const SHORT: Duration = Duration::from_millis(100);

async fn limited(limit: impl FnOnce(&mut Limits)) -> RunningApp {
    let (instance, _) = echo().await;
    let mut config = config(vec![instance]);
    limit(&mut config.security.limits);
    start_app(config).await
}

/// Sends some bytes, and reads what comes until the connection ends.
async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is cut off may end with an error.
    let _ = soon("the end of the connection", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn who_does_not_send_a_request_is_cut_off() {
    let app = limited(|limits| limits.header = SHORT).await;
    for (said, at) in
        [(&b""[..], 1.0), (b"POST /v1/completions HTTP/1.1\r\nhost: a\r\n", 2.0), (b"PRI * HTTP/2.0\r\n", 3.0)]
    {
        assert_eq!(say(app.http, said).await, "");
        eventually("the count", || refusals(&app, "header_late") == at).await;
    }
    app.running.stop().await;
}

#[tokio::test]
async fn a_second_request_must_come_whole_too() {
    let app = limited(|limits| limits.header = SHORT).await;
    let mut stream = TcpStream::connect(app.http).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    soon("an answer", stream.read_exact(&mut [0; 12])).await.unwrap();
    // Between requests it may stand longer than that: what ends it is what comes and does not come whole.
    tokio::time::sleep(2 * SHORT).await;
    assert_eq!(refusals(&app, "header_late"), 0.0);
    stream.write_all(b"GET /b HTTP").await.unwrap();
    let _ = soon("the end", stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(refusals(&app, "header_late"), 1.0);
    app.running.stop().await;
}

#[tokio::test]
async fn an_idle_connection_ends_and_is_nobodys_fault() {
    let app = limited(|limits| limits.idle = SHORT).await;
    let answer = say(app.http, b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut sender = h2(&app, 65_535).await;
    let request = || hyper::Request::get("http://a/a").body(Full::<Bytes>::default()).unwrap();
    soon("an answer", sender.send_request(request())).await.unwrap();
    eventually("the end", || sender.is_closed()).await;
    assert_eq!(refusals(&app, "header_late"), 0.0);
    app.running.stop().await;
}

#[tokio::test]
async fn a_body_must_keep_coming() {
    let app = limited(|limits| (limits.body, limits.body_bytes_per_second_min) = (SHORT, 1_000_000)).await;
    let answer = say(app.http, b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{").await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("RequestTimeoutError"), "{answer}");
    assert_eq!(refusals(&app, "body_late"), 1.0);
    // The same time is enough for what comes at once, and a long one earns more of it.
    let body = "x".repeat(1 << 20);
    let head = format!("POST /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let answer = say(app.http, (head + &body).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{}", &answer[..200]);
    assert_eq!(refusals(&app, "body_late"), 1.0);
    app.running.stop().await;
}

#[tokio::test]
async fn headers_are_so_many_and_so_long() {
    let app = limited(|limits| (limits.headers_max, limits.header_bytes_max) = (20, 8192)).await;
    let head = |headers: &str| format!("GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
    let many: String = (0..19).map(|at| format!("x-{at}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "a".repeat(8100));
    let longer = format!("x-long: {}\r\n", "a".repeat(100_000));
    assert!(say(app.http, head("x-a: 1\r\n").as_bytes()).await.starts_with("HTTP/1.1 200 "));
    for (at, headers) in [(1.0, &many), (2.0, &long), (3.0, &longer)] {
        let answer = say(app.http, head(headers).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty() && headers == &longer, "{answer}");
        eventually("the count", || refusals(&app, "headers") == at).await;
    }
    let request = (0..19).fold(hyper::Request::get("http://a/a"), |request, at| request.header(format!("x-{at}"), "1"));
    let mut sender = h2(&app, 65_535).await;
    let request = request.header("x-20", "1").header("x-21", "1").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(soon("an answer", sender.send_request(request)).await.unwrap().status(), 431);
    assert_eq!(refusals(&app, "headers"), 4.0);
    app.running.stop().await;
}

#[tokio::test]
async fn a_body_has_so_many_bytes() {
    let (instance, _) = echo().await;
    let mut config = config(vec![instance]);
    config.http.body_bytes_max = 100;
    let app = start_app(config).await;
    let head = "POST /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    let answer = say(app.http, format!("{head}content-length: 101\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n65\r\n{}\r\n0\r\n\r\n", "x".repeat(101));
    assert!(say(app.http, chunked.as_bytes()).await.starts_with("HTTP/1.1 413 "));
    assert_eq!(refusals(&app, "body_bytes"), 2.0);
    app.running.stop().await;
}

#[tokio::test]
async fn a_listener_has_so_many_connections() {
    let app = limited(|limits| limits.connections_max = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(app.http).await.unwrap();
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        soon("an answer", stream.read_exact(&mut [0; 12])).await.unwrap();
        held.push(stream);
    }
    assert_eq!(say(app.http, b"").await, "");
    eventually("the count", || refusals(&app, "connections") == 1.0).await;
    // The place of one that ends is free again.
    held.pop();
    let request = b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    while answer.is_empty() {
        let mut stream = TcpStream::connect(app.http).await.unwrap();
        let (mut read, _) = (Vec::new(), stream.write_all(request).await);
        let _ = soon("the end", stream.read_to_end(&mut read)).await;
        answer = String::from_utf8(read).unwrap();
    }
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    app.running.stop().await;
}

#[tokio::test]
async fn a_connection_has_so_many_requests_at_once() {
    let open = Arc::new(Semaphore::new(0));
    let (began, waits) = (Arc::new(Semaphore::new(0)), Arc::clone(&open));
    let begins = Arc::clone(&began);
    let route = post(move |_: Bytes| async move {
        begins.add_permits(1);
        waits.acquire().await.unwrap().forget();
    });
    let mut config = serving(Router::new().fallback(route)).await;
    config.security.limits.streams_max = 2;
    let app = start_app(config).await;
    let mut sender = h2(&app, 65_535).await;
    // One answer, and with it the server's settings, is there before more is asked.
    open.add_permits(1);
    let ask = || hyper::Request::post("http://a/a").body(Full::<Bytes>::default()).unwrap();
    soon("an answer", sender.send_request(ask())).await.unwrap();
    soon("the first", began.acquire()).await.unwrap().forget();
    let asked: Vec<_> = (0..3).map(|_| tokio::spawn(sender.send_request(ask()))).collect();
    soon("two of three", began.acquire_many(2)).await.unwrap().forget();
    assert_eq!(began.available_permits(), 0);
    open.add_permits(1);
    soon("the third", began.acquire()).await.unwrap().forget();
    open.add_permits(2);
    for answer in asked {
        soon("an answer", answer).await.unwrap().unwrap();
    }
    app.running.stop().await;
}

/// An answer without end.
async fn endless() -> Config {
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let body = move || {
        let chunks = stream::repeat_with({
            let chunk = chunk.clone();
            move || Ok::<_, Infallible>(chunk.clone())
        });
        async move { Body::from_stream(chunks) }
    };
    serving(Router::new().fallback(post(body))).await
}

async fn serving(routes: Router) -> Config {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    config(vec![instance("a", address, None)])
}

fn completion() -> hyper::Request<Full<Bytes>> {
    let body = json!({"model": MODEL, "prompt": prompt(1, 40), "max_tokens": 1}).to_string();
    hyper::Request::post("http://a/v1/completions").header("host", "a").body(Full::from(body)).unwrap()
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_broken_off() {
    let mut config = endless().await;
    config.security.limits.write = SHORT;
    let app = start_app(config).await;
    // Over HTTP/1 the connection ends with it.
    let io = TokioIo::new(TcpStream::connect(app.http).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let unread = soon("an answer", sender.send_request(completion())).await.unwrap();
    eventually("the end", || refusals(&app, "unread") >= 1.0 && app.core.router().in_flight() == 0).await;
    drop(unread);
    let _ = soon("the end of the connection", connection).await;

    // Over HTTP/2 it is that answer alone: others on the connection are served on.
    let before = refusals(&app, "unread");
    let mut sender = h2(&app, 65_535).await;
    let unread = soon("an answer", sender.send_request(completion())).await.unwrap();
    let mut other = soon("an answer", sender.send_request(completion())).await.unwrap().into_body();
    let read = tokio::spawn(async move { while other.frame().await.is_some_and(|frame| frame.is_ok()) {} });
    eventually("the end of one", || refusals(&app, "unread") > before).await;
    eventually("the other", || app.core.router().in_flight() == 1).await;
    assert!(!read.is_finished());
    drop(unread);
    read.abort();
    app.running.stop().await;
}

/// A connection over HTTP/2, with so large a window for each answer.
async fn h2(app: &RunningApp, window: u32) -> http2::SendRequest<Full<Bytes>> {
    let io = TokioIo::new(TcpStream::connect(app.http).await.unwrap());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window).initial_connection_window_size(16 << 20);
    let (sender, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender
}
