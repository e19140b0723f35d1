//! Connections to instances: plain, or under TLS where their URL says so.

use crate::config::Protocol;
use crate::serve::core::Core;
use crate::serve::tls::{ClientTls, Stream};
use axum::http::Uri;
use axum::http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::codegen::{Service, StdError};

/// Makes them.
#[derive(Clone)]
pub(super) struct Connector {
    pub core: Arc<Core>,
    pub tcp: HttpConnector,
    pub tls: Arc<ClientTls>,
    /// Whether it is HTTP/2 that will be spoken.
    pub http2: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no authority is known that signs instances' certificates; set upstream.ca")]
    NoAuthorities,
    #[error("the host of its URL is no name of a server")]
    Name(#[from] InvalidDnsNameError),
    #[error("no TLS was agreed on in time")]
    Late,
    #[error("no TLS was agreed on")]
    Handshake(#[source] io::Error),
}

impl Connector {
    /// The name that the certificate must have.
    fn server_name(&self, uri: &Uri) -> Result<ServerName<'static>, InvalidDnsNameError> {
        let is_there = |address: Option<&str>| {
            let authority = address.and_then(|address| address.split_once("://")).map(|(_, authority)| authority);
            authority == uri.authority().map(|authority| authority.as_str())
        };
        let of_its_own = self.core.members().find_map(|(_, member)| {
            let is_it = Protocol::ALL.iter().any(|&protocol| is_there(member.address(protocol)));
            member.access.server_name.as_deref().filter(|_| is_it)
        });
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(of_its_own.or(self.tls.server_name()).unwrap_or(host).to_owned())
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, StdError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let name = is_https.then(|| self.server_name(&uri));
        let config = self.tls.in_force(self.http2);
        let tcp = self.tcp.call(uri);
        Box::pin(async move {
            let tcp = tcp.await?.into_inner();
            let Some(name) = name else {
                return Ok(TokioIo::new(Stream::Plain(tcp)));
            };
            let config = config.ok_or(ConnectError::NoAuthorities)?;
            let connecting = TlsConnector::from(config).connect(name.map_err(ConnectError::Name)?, tcp);
            let agreed = timeout(super::CONNECT_MAX, connecting).await.map_err(|_| ConnectError::Late)?;
            let stream = agreed.map_err(ConnectError::Handshake)?;
            Ok(TokioIo::new(Stream::Tls(Box::new(stream.into()))))
        })
    }
}
