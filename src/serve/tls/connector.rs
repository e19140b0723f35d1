//! Connections to others: plain, or under TLS where their URL says so.

use super::{ClientTls, Stream};
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
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::codegen::{Service, StdError};

/// Says which name the certificate of whoever is at a URL must have, where it is one of its own.
pub(crate) type NameAt = Arc<dyn Fn(&Uri) -> Option<String> + Send + Sync>;

/// Makes them.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: Arc<ClientTls>,
    name_at: NameAt,
    /// For the connection, and then for TLS.
    within: Duration,
    /// Whether it is HTTP/2 that will be spoken.
    http2: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no authority is known that may have signed its certificate: the system has none, and none is named")]
    NoAuthorities,
    #[error("the host of its URL is no name of a server")]
    Name(#[from] InvalidDnsNameError),
    #[error("no TLS was agreed on in time")]
    Late,
    #[error("no TLS was agreed on")]
    Handshake(#[source] io::Error),
}

impl Connector {
    /// For HTTP/1.1, each connection made within a time.
    pub fn new(tls: Arc<ClientTls>, within: Duration, name_at: NameAt) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(within));
        // It only ever makes the connection that TLS goes over.
        tcp.enforce_http(false);
        Connector { tcp, tls, name_at, within, http2: false }
    }

    /// The same for HTTP/2.
    pub fn http2(self) -> Self {
        Connector { http2: true, ..self }
    }

    /// The name that the certificate must have.
    fn server_name(&self, uri: &Uri) -> Result<ServerName<'static>, InvalidDnsNameError> {
        let host = || uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let named = (self.name_at)(uri).or_else(|| self.tls.server_name().map(str::to_owned));
        ServerName::try_from(named.unwrap_or_else(host))
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
        let (config, within) = (self.tls.in_force(self.http2), self.within);
        let tcp = self.tcp.call(uri);
        Box::pin(async move {
            let tcp = tcp.await?.into_inner();
            let Some(name) = name else {
                return Ok(TokioIo::new(Stream::Plain(tcp)));
            };
            let config = config.ok_or(ConnectError::NoAuthorities)?;
            let connecting = TlsConnector::from(config).connect(name.map_err(ConnectError::Name)?, tcp);
            let agreed = timeout(within, connecting).await.map_err(|_| ConnectError::Late)?;
            let stream = agreed.map_err(ConnectError::Handshake)?;
            Ok(TokioIo::new(Stream::Tls(Box::new(stream.into()))))
        })
    }
}
