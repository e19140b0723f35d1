//! How a router is reached that has a certificate, or asks for one, or for a key.

use crate::config::UpstreamAccess;
use crate::serve::{ClientTls, Connector, api_key};
use anyhow::{Context, Result, ensure};
use http_body_util::Full;
use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

/// Longer than any connection takes that comes about.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Where the key itself may stand, which has no place on a command line.
const KEY: &str = "WARMPATH_API_KEY";

/// What every command has that asks a router.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "TLS and keys")]
pub(super) struct Reach {
    /// Trust a router at https:// by these authorities (PEM); else by those that
    /// the system trusts.
    #[arg(long = "tls-ca", value_name = "FILE", env = "WARMPATH_TLS_CA", global = true)]
    ca: Option<PathBuf>,
    /// Show this certificate (PEM), with --tls-key.
    #[arg(long = "tls-certificate", value_name = "FILE", env = "WARMPATH_TLS_CERTIFICATE", global = true)]
    certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long = "tls-key", value_name = "FILE", env = "WARMPATH_TLS_KEY", global = true)]
    key: Option<PathBuf>,
    /// The name in the router's certificate, where it is not the host of the URL.
    #[arg(long = "tls-server-name", value_name = "NAME", env = "WARMPATH_TLS_SERVER_NAME", global = true)]
    server_name: Option<String>,
    /// Show the key in the first line of this file, as `warmpath key new` printed
    /// it. WARMPATH_API_KEY may hold the key itself.
    #[arg(long, value_name = "FILE", env = "WARMPATH_API_KEY_FILE", global = true)]
    api_key_file: Option<PathBuf>,
}

/// A client for HTTP, over TLS where the URL says so.
pub(super) type Http = Client<Connector, Full<Bytes>>;

/// A connection to a router that shows what it asks for.
pub(super) type Routers = InterceptedService<Channel, Show>;

/// Shows a key, where there is one.
#[derive(Clone)]
pub(super) struct Show(Option<MetadataValue<Ascii>>);

impl Interceptor for Show {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

impl Reach {
    /// Connects to a gRPC service.
    pub async fn grpc(&self, url: &str) -> Result<Routers> {
        let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("{url:?} is not a URL"))?;
        let key = self.key()?.map(|key| MetadataValue::try_from(key.as_bytes())).transpose();
        let mut key: Option<MetadataValue<Ascii>> = key.context("the key is no metadata's value")?;
        key.iter_mut().for_each(|key| key.set_sensitive(true));
        let channel = endpoint.connect_with_connector(self.connector(self.server_name.clone())?.http2()).await;
        let channel =
            channel.with_context(|| format!("cannot reach a router at {url}; is `warmpath serve` running?"))?;
        Ok(InterceptedService::new(channel, Show(key)))
    }

    /// A client for the router itself.
    pub fn http(&self) -> Result<Http> {
        Ok(Client::builder(TokioExecutor::new()).build(self.connector(self.server_name.clone())?))
    }

    /// A client for the instances that a router names: by the same authorities and certificate, each by its own name.
    pub fn http_to_instances(&self) -> Result<Http> {
        Ok(Client::builder(TokioExecutor::new()).build(self.connector(None)?))
    }

    /// What is shown as `Authorization`, if anything is.
    pub fn key(&self) -> Result<Option<HeaderValue>> {
        let here = std::env::var(KEY).ok().filter(|key| !key.is_empty());
        match (&self.api_key_file, here) {
            (Some(_), Some(_)) => anyhow::bail!("{KEY} is set beside --api-key-file; keep the one that applies"),
            (Some(path), None) => Ok(Some(api_key::read(path)?)),
            (None, Some(key)) => {
                let key = api_key::bearer(&key).with_context(|| format!("{KEY} has characters that no key has"));
                Ok(Some(key?))
            }
            (None, None) => Ok(None),
        }
    }

    fn connector(&self, server_name: Option<String>) -> Result<Connector> {
        ensure!(
            self.certificate.is_some() == self.key.is_some(),
            "--tls-certificate and --tls-key belong together: give both, or neither"
        );
        let access = UpstreamAccess {
            ca: self.ca.clone(),
            identity: self.certificate.clone().zip(self.key.clone()),
            server_name,
            api_key: None,
        };
        let (tls, _) = ClientTls::load(&access)?;
        Ok(Connector::new(tls, CONNECT_MAX, Arc::new(|_: &Uri| None)))
    }
}
