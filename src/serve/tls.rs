//! Certificates and keys: read from files, checked, and exchanged while serving.
//!
//! A connection takes what is in force when it begins, so nothing that stands is disturbed. One provider of cryptography, ring,
//! is named each time rather than installed for the process: a library has no say over its host.

mod connector;
mod expiry;
mod names;
mod stream;

use crate::config::{ListenerTls, UpstreamAccess};
pub(crate) use connector::Connector;
use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub(crate) use stream::Stream;

/// HTTP/2 and, after it, HTTP/1.1, as ALPN calls them.
pub(super) const HTTP_2: &[u8] = b"h2";
pub(super) const HTTP_1: &[u8] = b"http/1.1";

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why certificates cannot be used. Files are named, what they hold is not.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file does not hold what it should.
    #[error("{} holds no {what} in PEM: {source}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What was found.
        source: pem::Error,
    },
    /// A file holds no certificate at all.
    #[error("{} holds no certificate in PEM", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// Certificate and key do not do, alone or together.
    #[error("{} and its key cannot be used: {source}", path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// An authority does not do.
    #[error("an authority in {} cannot be used: {source}", path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Clients' certificates cannot be checked.
    #[error("clients' certificates cannot be checked by {}: {source}", path.display())]
    Clients {
        /// The authorities' file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// What a listener shows.
pub(super) struct ServerTls {
    files: ListenerTls,
    protocols: &'static [&'static [u8]],
    in_force: RwLock<Arc<ServerConfig>>,
}

impl ServerTls {
    /// What these files hold, and when its certificate expires.
    pub fn load(
        files: &ListenerTls,
        protocols: &'static [&'static [u8]],
    ) -> Result<(Arc<Self>, Option<i64>), TlsError> {
        let (config, expiry) = server_config(files, protocols)?;
        let in_force = RwLock::new(Arc::new(config));
        Ok((Arc::new(ServerTls { files: files.clone(), protocols, in_force }), expiry))
    }

    /// The files that it is read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let ListenerTls { certificate, key, client_ca } = &self.files;
        [certificate, key].into_iter().chain(client_ca).cloned().collect()
    }

    /// Reads them again. After an error what was in force stays so.
    pub fn reload(&self) -> Result<Option<i64>, TlsError> {
        let (config, expiry) = server_config(&self.files, self.protocols)?;
        *self.in_force.write() = Arc::new(config);
        Ok(expiry)
    }

    /// For a connection that begins now.
    pub fn in_force(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_force.read())
    }
}

/// How instances are known, and what is shown to them.
pub(crate) struct ClientTls {
    access: UpstreamAccess,
    in_force: RwLock<Option<InForce>>,
}

/// The same for each protocol.
#[derive(Clone)]
struct InForce {
    http: Arc<ClientConfig>,
    grpc: Arc<ClientConfig>,
}

impl ClientTls {
    /// What these files hold, and when the certificate that is shown expires. Where no authorities are named and the system
    /// has none there is nothing in force.
    pub fn load(access: &UpstreamAccess) -> Result<(Arc<Self>, Option<i64>), TlsError> {
        let (in_force, expiry) = client_configs(access)?;
        Ok((Arc::new(ClientTls { access: access.clone(), in_force: RwLock::new(in_force) }), expiry))
    }

    /// The files that it is read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let UpstreamAccess { ca, identity, .. } = &self.access;
        let identity = identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        ca.iter().chain(identity).cloned().collect()
    }

    /// Reads them again. After an error what was in force stays so.
    pub fn reload(&self) -> Result<Option<i64>, TlsError> {
        let (in_force, expiry) = client_configs(&self.access)?;
        *self.in_force.write() = in_force;
        Ok(expiry)
    }

    /// For a connection that begins now, over HTTP/2 or HTTP/1.1; `None` where no authority is known.
    pub fn in_force(&self, http2: bool) -> Option<Arc<ClientConfig>> {
        let InForce { http, grpc } = self.in_force.read().clone()?;
        Some(if http2 { grpc } else { http })
    }

    /// The name that instances' certificates must have, where it is one for all.
    pub fn server_name(&self) -> Option<&str> {
        self.access.server_name.as_deref()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

const VERSIONS: &str = "ring speaks the default versions of TLS";

fn server_config(
    ListenerTls { certificate, key, client_ca }: &ListenerTls,
    protocols: &[&[u8]],
) -> Result<(ServerConfig, Option<i64>), TlsError> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect(VERSIONS);
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let failed = |source| TlsError::Clients { path: path.clone(), source };
            builder.with_client_cert_verifier(verifier.map_err(failed)?)
        }
    };
    let chain = certificates(certificate)?;
    let expiry = expiry::of(&chain);
    let failed = |source| TlsError::Identity { path: certificate.clone(), source };
    let mut config = builder.with_single_cert(chain, private_key(key)?).map_err(failed)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok((config, expiry))
}

fn client_configs(access: &UpstreamAccess) -> Result<(Option<InForce>, Option<i64>), TlsError> {
    let system = || SYSTEM.iter().map(PathBuf::from).find(|path| path.exists());
    let Some(ca) = access.ca.clone().or_else(system) else {
        return Ok((None, None));
    };
    let roots = authorities(&ca)?;
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect(VERSIONS);
    let builder = builder.with_root_certificates(roots);
    let (config, expiry) = match &access.identity {
        None => (builder.with_no_client_auth(), None),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let expiry = expiry::of(&chain);
            let failed = |source| TlsError::Identity { path: certificate.clone(), source };
            (builder.with_client_auth_cert(chain, private_key(key)?).map_err(failed)?, expiry)
        }
    };
    let speaking = |protocol: &[u8]| {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    };
    Ok((Some(InForce { http: speaking(HTTP_1), grpc: speaking(HTTP_2) }), expiry))
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (mut added, mut last) = (0, None);
    for certificate in certificates(path)? {
        match roots.add(certificate) {
            Ok(()) => added += 1,
            // A system's bundle may hold some that are too odd to be used; of one's own authorities each counts.
            Err(error) => last = Some(error),
        }
    }
    let is_system = SYSTEM.iter().any(|system| Path::new(system) == path);
    match last {
        Some(source) if added == 0 || !is_system => Err(TlsError::Authority { path: path.to_owned(), source }),
        _ => Ok(roots),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), what: "certificate", source };
    let read = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let certificates = read.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if certificates.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), what: "private key", source };
    PrivateKeyDer::from_pem_file(path).map_err(failed)
}
