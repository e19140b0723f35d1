//! Takes connections: under TLS where it is configured, no more than there may be, none that waste time.
//!
//! All listeners are served alike. Each connection has a task that serves it and looks, again and again, whether its other end
//! does its part: sends its request, reads its answer.
//!
//! Absent on purpose: protocol upgrades. Nothing that is served or forwarded knows them.

mod answer;
mod paced;
mod progress;

use super::caller::Caller;
use super::guard::Guard;
use crate::config::Limits;
use crate::serve::telemetry::labels::{Listener, Refusal};
use crate::serve::tls::{ServerTls, Stream};
use answer::Answered;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use paced::Paced;
pub(super) use paced::is_late;
use progress::{Look, Progress, Watched};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service;

/// A connection is looked at four times in its shortest limit, within these bounds.
const LOOK_LEAST: Duration = Duration::from_millis(10);
const LOOK_MOST: Duration = Duration::from_secs(1);
/// Nobody is there any more, unless he answers to this.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_MAX: Duration = Duration::from_secs(20);
/// Until there are descriptors again.
const PAUSE: Duration = Duration::from_millis(100);

/// An address that is listened on, and what is served there.
pub(in crate::serve) struct Door {
    pub listener: Listener,
    pub tls: Option<Arc<ServerTls>>,
    pub guard: Arc<Guard>,
    pub routes: Router,
    /// Whether it is gRPC that is spoken: HTTP/2, and nothing else.
    pub http2_only: bool,
}

impl Door {
    /// Serves until `stop`, then lets requests under way end.
    pub async fn serve(self, socket: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let door = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let limits = door.guard.limits();
                    if connections.len() >= limits.connections_max {
                        door.refused(Refusal::Connections);
                        continue;
                    }
                    connections.spawn(Arc::clone(&door).connection(stream, peer, limits, stop.clone()));
                }
                Err(error) => {
                    // Its other end gave up, or there are no descriptors left for the moment.
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(socket);
        while connections.join_next().await.is_some() {}
        Ok(())
    }

    fn refused(&self, why: Refusal) {
        self.guard.refused(self.listener, why);
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, limits: Limits, stop: CancellationToken) {
        // One that is gone already fails soon enough by itself.
        let _ = stream.set_nodelay(true);
        let Some(stream) = self.agree(stream, &limits, &stop).await else { return };
        let progress = Arc::new(Progress::new());
        let caller = stream.client_name().map(|name| Caller { name: name.into() });
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&progress)));
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let (door, progress, caller) = (Arc::clone(&self), Arc::clone(&progress), caller.clone());
            async move { Ok::<_, std::convert::Infallible>(door.answer(request, (peer, caller), progress).await) }
        });
        let server = self.server(&limits);
        let mut connection = pin!(server.serve_connection(io, service));
        let shortest = limits.header.min(limits.idle).min(limits.write);
        let mut looks = tokio::time::interval((shortest / 4).clamp(LOOK_LEAST, LOOK_MOST));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_stopping, mut is_idle) = (false, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if ended.is_err_and(|error| is_too_large(&*error)) {
                        self.refused(Refusal::Headers);
                    }
                    return;
                }
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = looks.tick() => match progress.look(&limits) {
                    Look::Fine { unread } => (0..unread).for_each(|_| self.refused(Refusal::Unread)),
                    // Who does not take the hint is gone.
                    Look::Idle if is_idle => return,
                    Look::Idle => {
                        is_idle = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Look::Late => return self.refused(Refusal::HeaderLate),
                    Look::Unread => return self.refused(Refusal::Unread),
                },
            }
        }
    }

    /// Agrees on TLS, where there is any.
    async fn agree(&self, stream: TcpStream, limits: &Limits, stop: &CancellationToken) -> Option<Stream> {
        let Some(tls) = &self.tls else {
            return Some(Stream::Plain(stream));
        };
        let agreed = timeout(limits.header, TlsAcceptor::from(tls.in_force()).accept(stream));
        match stop.run_until_cancelled(agreed).await? {
            Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream.into()))),
            Ok(Err(error)) => {
                tracing::debug!(listener = ?self.listener, %error, "no TLS was agreed on");
                self.refused(Refusal::Handshake);
                None
            }
            Err(_) => {
                self.refused(Refusal::HeaderLate);
                None
            }
        }
    }

    fn server(&self, limits: &Limits) -> auto::Builder<TokioExecutor> {
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new()).header_read_timeout(None);
        server.http1().max_headers(limits.headers_max).max_buf_size(limits.header_bytes_max);
        // What is a little over is refused, and counted, by the guard; what is far over, by the connection.
        let header_list = u32::try_from(limits.header_bytes_max.saturating_mul(2)).unwrap_or(u32::MAX);
        server
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(header_list)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_MAX);
        if self.http2_only { server.http2_only() } else { server }
    }

    async fn answer(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
        (peer, caller): (SocketAddr, Option<Caller>),
        progress: Arc<Progress>,
    ) -> hyper::Response<Answered> {
        let under_way = progress.begins();
        let door = Arc::clone(&self);
        let mut request: Request = request.map(|body| match body.is_end_stream() {
            true => Body::empty(),
            false => Body::new(Paced::new(body, door)),
        });
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        let Ok(response) = self.routes.clone().call(request).await;
        response.map(|body| under_way.answered(body))
    }
}

/// Whether a head was refused for its size.
fn is_too_large(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse_too_large)
}
