//! TLS at every listener, and towards instances.

use super::{complete, refusals, refusals_at};
use crate::binary::{Router, file, section};
use crate::support::{MODEL, RunningApp, RunningMock, config, engine_instance, eventually, mock_config};
use crate::support::{soon, start_app, start_grpc_mock, start_mock};
use axum::body::Bytes;
use axum::http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use warmpath::config::{Instance, ListenerTls};

/// Signs certificates, and keeps them in a folder.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { folder, issuer: Issuer::new(params, key), ca }
    }

    /// Certificate and key for a name, until a year.
    pub(crate) fn sign(&self, file: &str, name: &str, until: i32) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = [("crt", certificate.pem()), ("key", key.serialize_pem())].map(|(kind, pem)| {
            let path = self.folder.path().join(format!("{file}.{kind}"));
            std::fs::write(&path, pem).unwrap();
            path
        });
        paths.into()
    }

    /// Its own certificate.
    pub(crate) fn ca(&self) -> &Path {
        &self.ca
    }

    /// Keeps a file beside its certificates.
    pub(crate) fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn listener(&self, file: &str, client_ca: Option<&Authority>) -> ListenerTls {
        let (certificate, key) = self.sign(file, "127.0.0.1", 2040);
        ListenerTls { certificate, key, client_ca: client_ca.map(|authority| authority.ca.clone()) }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).unwrap()).unwrap();
        roots
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client that believes an authority, speaks a protocol, and may show who it is.
pub(crate) fn client(authority: &Authority, protocol: &[u8], identity: Option<(PathBuf, PathBuf)>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(authority.roots());
    let mut client = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
    };
    client.alpn_protocols = vec![protocol.to_vec()];
    client
}

pub(crate) async fn connect(address: SocketAddr, client: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    soon("agreeing on TLS", TlsConnector::from(Arc::new(client)).connect(name, stream)).await
}

/// The status of a GET over what ALPN agreed on; `None` where none came about.
async fn get(address: SocketAddr, path: &str, client: ClientConfig) -> Option<StatusCode> {
    let stream = connect(address, client).await.ok()?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let request = hyper::Request::get(format!("https://{address}{path}")).header("host", "a");
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let io = TokioIo::new(stream);
    let response = if is_http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
        tokio::spawn(connection);
        soon("an answer", sender.send_request(request)).await
    } else {
        let (mut sender, connection) = http1::handshake(io).await.ok()?;
        tokio::spawn(connection);
        soon("an answer", sender.send_request(request)).await
    };
    Some(response.ok()?.status())
}

fn expiry(app: &RunningApp, certificate: &str) -> f64 {
    app.metric(&format!("warmpath_certificate_expiry_seconds{{certificate=\"{certificate}\"}}"))
}

/// 2040-01-01.
const IN_2040: f64 = 2_208_988_800.0;

async fn secured(authority: &Authority, mock: &RunningMock, clients: Option<&Authority>) -> RunningApp {
    let mut config = config(vec![mock.instance("a")]);
    let tls = &mut config.security.tls;
    tls.http = Some(authority.listener("http", clients));
    tls.admin = Some(authority.listener("admin", clients));
    tls.grpc = Some(authority.listener("grpc", clients));
    tls.reload = Duration::from_millis(10);
    start_app(config).await
}

#[tokio::test]
async fn every_listener_speaks_tls_and_what_alpn_agrees_on() {
    let (authority, mock) = (Authority::new(), start_mock(mock_config()).await);
    let app = secured(&authority, &mock, None).await;
    for (address, path, protocol) in [
        (app.http, "/v1/models", &b"h2"[..]),
        (app.http, "/v1/models", b"http/1.1"),
        (app.admin, "/healthz", b"h2"),
        (app.admin, "/healthz", b"http/1.1"),
        (app.grpc, "/", b"h2"),
    ] {
        let status = get(address, path, client(&authority, protocol, None)).await;
        assert_eq!(status, Some(StatusCode::OK), "{path} by {protocol:?}");
    }
    assert_eq!(get(app.grpc, "/", client(&authority, b"http/1.1", None)).await, None, "gRPC is HTTP/2");
    assert_eq!(get(app.http, "/", client(&Authority::new(), b"h2", None)).await, None, "not the authority's");
    for certificate in ["http", "grpc", "admin"] {
        assert_eq!(expiry(&app, certificate), IN_2040);
    }
    assert!(expiry(&app, "upstream").is_nan());
    // Plain text is none.
    let before = refusals_at(&app, "admin", "handshake");
    let plain = TcpStream::connect(app.admin).await.unwrap();
    plain.try_write(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    eventually("the count", || refusals_at(&app, "admin", "handshake") > before).await;
    app.running.stop().await;
}

#[tokio::test]
async fn who_must_show_a_certificate_and_does_not_stays_out() {
    let (ours, theirs, mock) = (Authority::new(), Authority::new(), start_mock(mock_config()).await);
    let app = secured(&ours, &mock, Some(&theirs)).await;
    let shown = || theirs.sign("client", "a-client", 2040);
    for (address, path) in [(app.http, "/v1/models"), (app.admin, "/healthz"), (app.grpc, "/")] {
        assert_eq!(get(address, path, client(&ours, b"h2", Some(shown()))).await, Some(StatusCode::OK));
        assert_eq!(get(address, path, client(&ours, b"h2", None)).await, None);
        assert_eq!(get(address, path, client(&ours, b"h2", Some(ours.sign("other", "a-client", 2040)))).await, None);
        assert_eq!(get(address, path, client(&ours, b"h2", Some(theirs.sign("late", "a-client", 2020)))).await, None);
    }
    eventually("the count", || refusals(&app, "handshake") >= 3.0).await;
    app.running.stop().await;
}

#[tokio::test]
async fn where_no_key_is_asked_for_the_certificate_says_who_it_is() {
    let (ours, theirs, mock) = (Authority::new(), Authority::new(), start_mock(mock_config()).await);
    let ListenerTls { certificate, key, client_ca } = ours.listener("http", Some(&theirs));
    let tls = format!(
        "[tls]\nhttp = {{ certificate = {certificate:?}, key = {key:?}, client_ca = {:?} }}\n[logs]\nrequests = true\n",
        client_ca.unwrap()
    );
    let router = Router::start(&file(&format!("{tls}{}", section("a", mock.http))), &[]);
    let shown = theirs.sign("client", "team-a.example", 2040);
    assert_eq!(get(router.http, "/v1/models", client(&ours, b"h2", Some(shown))).await, Some(StatusCode::OK));
    router.logged(&["request_id=", "caller=\"team-a.example\""]).await;
}

#[tokio::test]
async fn a_new_certificate_is_in_force_and_a_broken_one_is_not() {
    let (authority, mock) = (Authority::new(), start_mock(mock_config()).await);
    let app = secured(&authority, &mock, None).await;
    let shown = async || {
        let stream = connect(app.http, client(&authority, b"h2", None)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let reloads = |outcome| {
        app.metric(&format!("warmpath_security_reloads_total{{material=\"http_tls\",outcome=\"{outcome}\"}}"))
    };
    let first = shown().await;
    authority.sign("http", "127.0.0.1", 2050);
    // Between the two files being written they may not belong together: that is one that failed, and the next look finds both.
    eventually("the new one", || expiry(&app, "http") == 2_524_608_000.0).await;
    let second = shown().await;
    assert_ne!(first, second);

    let failed = reloads("failed");
    std::fs::write(authority.folder.path().join("http.crt"), "broken").unwrap();
    eventually("the broken one", || reloads("failed") > failed).await;
    assert_eq!((shown().await, expiry(&app, "http")), (second.clone(), 2_524_608_000.0));
    // A key that is another certificate's is no better.
    let failed = reloads("failed");
    std::fs::copy(authority.sign("other", "127.0.0.1", 2060).0, authority.folder.path().join("http.crt")).unwrap();
    eventually("the wrong one", || reloads("failed") > failed).await;
    assert_eq!(shown().await, second);
    app.running.stop().await;
}

/// TLS before an instance; clients must show a certificate of this authority, if there is one.
async fn terminated(tls: ListenerTls, to: SocketAddr, clients: Option<&Authority>, protocol: &[u8]) -> SocketAddr {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_file(tls.certificate).unwrap()];
    let mut config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(tls.key).unwrap()).unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
            });
        }
    });
    address
}

fn at(instance: Instance, url: String) -> Instance {
    Instance { url, ..instance }
}

/// The status of a completion at one instance that is reached like this.
async fn completes(instance: Instance, access: impl FnOnce(&mut warmpath::config::UpstreamAccess)) -> StatusCode {
    let mut config = config(vec![instance]);
    access(&mut config.security.upstream);
    let app = start_app(config).await;
    let (status, _, _) = complete(&app, &[], &json!({"model": MODEL, "prompt": [1, 2], "max_tokens": 1})).await;
    app.running.stop().await;
    status
}

#[tokio::test]
async fn instances_are_reached_by_tls_and_must_be_who_they_say() {
    let (authority, clients, mock) = (Authority::new(), Authority::new(), start_mock(mock_config()).await);
    let address = terminated(authority.listener("instance", None), mock.http, None, b"http/1.1").await;
    let instance = || at(mock.instance("a"), format!("https://{address}"));
    let ca = || Some(authority.ca.clone());
    assert_eq!(completes(instance(), |upstream| upstream.ca = ca()).await, StatusCode::OK);
    let other = Authority::new();
    assert_eq!(completes(instance(), |upstream| upstream.ca = Some(other.ca.clone())).await, StatusCode::BAD_GATEWAY);

    // By a name of its own, or one for all.
    let (certificate, key) = authority.sign("named", "vllm.example", 2040);
    let named = ListenerTls { certificate, key, client_ca: None };
    let address = terminated(named, mock.http, None, b"http/1.1").await;
    let instance = || at(mock.instance("a"), format!("https://{address}"));
    assert_eq!(completes(instance(), |upstream| upstream.ca = ca()).await, StatusCode::BAD_GATEWAY);
    let name = || Some("vllm.example".to_owned());
    let for_all = completes(instance(), |upstream| (upstream.ca, upstream.server_name) = (ca(), name())).await;
    assert_eq!(for_all, StatusCode::OK);
    let mut own = instance();
    own.access.server_name = name();
    assert_eq!(completes(own, |upstream| upstream.ca = ca()).await, StatusCode::OK);

    // To one that asks for a certificate.
    let address = terminated(authority.listener("asks", None), mock.http, Some(&clients), b"http/1.1").await;
    let instance = || at(mock.instance("a"), format!("https://{address}"));
    assert_eq!(completes(instance(), |upstream| upstream.ca = ca()).await, StatusCode::BAD_GATEWAY);
    let identity = Some(clients.sign("router", "router", 2040));
    let shown = completes(instance(), |upstream| (upstream.ca, upstream.identity) = (ca(), identity)).await;
    assert_eq!(shown, StatusCode::OK);
}

#[tokio::test]
async fn grpc_goes_over_tls_at_both_ends() {
    let (authority, mock) = (Authority::new(), start_grpc_mock().await);
    let engine = mock.grpc.unwrap();
    let address = terminated(authority.listener("engine", None), engine, None, b"h2").await;
    let instance = at(engine_instance(&mock, "a"), format!("grpcs://{address}"));
    let mut config = config(vec![instance]);
    config.security.upstream.ca = Some(authority.ca.clone());
    config.security.tls.grpc = Some(authority.listener("grpc", None));
    let app = start_app(config).await;
    let stream = connect(app.grpc, client(&authority, b"h2", None)).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // GetModelInfo, which any engine answers: an empty message.
    let request = hyper::Request::post("https://router/vllm.grpc.engine.VllmEngine/GetModelInfo");
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let request = request.body(Full::new(Bytes::from_static(&[0; 5]))).unwrap();
    let answer = soon("an answer", sender.send_request(request)).await.unwrap();
    assert_eq!(answer.headers()["x-warmpath-instance"], "a");
    let body = soon("a body", answer.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    app.running.stop().await;
}
