//! Certificates, clients' keys and the keys for instances: read when serving starts, and again whenever their files change.
//!
//! Files are looked at by what they hold, again and again: a mounted Kubernetes secret changes by a link being turned, which no
//! time of the file tells. What cannot be used is told, counted, and leaves in force what was.

use super::core::Core;
use super::ingress::guard::{Guard, Lines};
use super::reload::{Part, Step};
use super::telemetry::labels::{Certificate, Material, Reload};
use super::tls::{ClientTls, HTTP_1, HTTP_2, ServerTls, TlsError};
use super::upstream::{ApiKeyError, ApiKeys};
use crate::config::{self, Config, KeyLine, ListenerTls, Problem, key_lines};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// What listeners speak.
const HTTP_2_ONLY: &[&[u8]] = &[HTTP_2];
const HTTP: &[&[u8]] = &[HTTP_2, HTTP_1];

/// No file that is looked at is longer, or it is none of ours.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why what was configured cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A certificate.
    #[error("{setting}: {source}")]
    Tls {
        /// The section.
        setting: &'static str,
        /// Why.
        source: TlsError,
    },
    /// A key for instances.
    #[error(transparent)]
    ApiKey(#[from] ApiKeyError),
    /// Clients' keys cannot be read.
    #[error("{setting}: cannot read {}: {source}", path.display())]
    Keys {
        /// The setting that names their file.
        setting: &'static str,
        /// Their file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// They are not as they should be.
    #[error("{setting}: {what}; write lines as `warmpath key new` prints them")]
    KeyLines {
        /// Whose they are.
        setting: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// All of it, in force.
pub(super) struct Secured {
    pub grpc: Option<Arc<ServerTls>>,
    pub http: Option<Arc<ServerTls>>,
    pub admin: Option<Arc<ServerTls>>,
    pub upstream: Arc<ClientTls>,
    pub api_keys: Arc<ApiKeys>,
    pub guard: Arc<Guard>,
    /// What is configured of clients' keys now.
    keys: Arc<Mutex<config::Keys>>,
    watched: Vec<Watched>,
    every: Duration,
}

/// Files that belong together, and what to do when they change.
struct Watched {
    material: Material,
    files: Box<dyn Fn() -> Vec<PathBuf> + Send>,
    read: Box<dyn Fn() -> Result<(), Box<dyn Error>> + Send>,
    seen: [u8; 32],
}

impl Secured {
    /// Reads all that is configured.
    pub fn load(config: &Config, core: &Arc<Core>) -> Result<Self, SecurityError> {
        let config::Security { tls, upstream, keys, limits } = &config.security;
        let mut watched = Vec::new();
        let mut listener = |setting, of, material, files: Option<&ListenerTls>, protocols| {
            let Some(files) = files else { return Ok::<_, SecurityError>(None) };
            let failed = |source| SecurityError::Tls { setting, source };
            let (tls, expiry) = ServerTls::load(files, protocols).map_err(failed)?;
            core.metrics().certificate_expires(of, expiry);
            watched.push(Watched::of_tls(material, of, core, {
                let (files, tls) = (Arc::clone(&tls), Arc::clone(&tls));
                (move || files.files(), move || tls.reload())
            }));
            Ok(Some(tls))
        };
        let grpc = listener("tls.grpc", Certificate::Grpc, Material::GrpcTls, tls.grpc.as_ref(), HTTP_2_ONLY)?;
        let http = listener("tls.http", Certificate::Http, Material::HttpTls, tls.http.as_ref(), HTTP)?;
        let admin = listener("tls.admin", Certificate::Admin, Material::AdminTls, tls.admin.as_ref(), HTTP)?;

        let failed = |source| SecurityError::Tls { setting: "upstream", source };
        let (client, expiry) = ClientTls::load(upstream).map_err(failed)?;
        core.metrics().certificate_expires(Certificate::Upstream, expiry);
        watched.push(Watched::of_tls(Material::UpstreamTls, Certificate::Upstream, core, {
            let (files, client) = (Arc::clone(&client), Arc::clone(&client));
            (move || files.files(), move || client.reload())
        }));

        let api_keys = Arc::new(ApiKeys::new(upstream.api_key.clone()));
        api_keys.load(config.instances.iter().map(|instance| &instance.access))?;
        let (files, read) = (Arc::clone(&api_keys), Arc::clone(&api_keys));
        watched.push(Watched::new(Material::ApiKeys, move || files.files(), move || Ok(read.reload()?)));

        let guard = Guard::new(Arc::clone(core), *limits);
        replace_keys(&guard, keys, &lines_of(keys)?);
        let keys = Arc::new(Mutex::new(keys.clone()));
        watched.push({
            let (named, keys, guard) = (Arc::clone(&keys), Arc::clone(&keys), Arc::clone(&guard));
            let files = move || {
                let config::Keys { clients, operators, .. } = &*named.lock();
                clients.file.iter().chain(&operators.file).cloned().collect()
            };
            Watched::new(Material::Keys, files, move || {
                let keys = keys.lock();
                replace_keys(&guard, &keys, &lines_of(&keys)?);
                Ok(())
            })
        });
        Ok(Secured { grpc, http, admin, upstream: client, api_keys, guard, keys, watched, every: tls.reload })
    }

    /// What goes by `[keys]` and `[limits]`.
    pub fn part(&self) -> Entry {
        Entry { guard: Arc::clone(&self.guard), keys: Arc::clone(&self.keys) }
    }

    /// Looks at the files again and again.
    pub fn keep(
        &mut self,
        core: Arc<Core>,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        let (mut watched, every) = (std::mem::take(&mut self.watched), self.every);
        async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while let Some(_tick) = stop.run_until_cancelled(ticks.tick()).await {
                let core = Arc::clone(&core);
                let look = tokio::task::spawn_blocking(move || {
                    watched.iter_mut().for_each(|watched| watched.look(&core));
                    watched
                });
                watched = look.await.expect("looking at files does not panic");
            }
            Ok(())
        }
    }
}

/// `[keys]` and `[limits]`.
pub(super) struct Entry {
    guard: Arc<Guard>,
    keys: Arc<Mutex<config::Keys>>,
}

impl Part for Entry {
    fn prepare(&self, _now: &Config, next: &Config) -> Result<Step, Vec<Problem>> {
        let lines = lines_of(&next.security.keys).map_err(|error| {
            let (path, what) = ("keys".to_owned(), error.to_string());
            vec![Problem { path, what, advice: "mend it, or set it back".to_owned() }]
        })?;
        let (guard, in_force) = (Arc::clone(&self.guard), Arc::clone(&self.keys));
        let (keys, limits) = (next.security.keys.clone(), next.security.limits);
        Ok(Box::new(move || {
            guard.replace_limits(limits);
            // Held while both change, so that a look at the file does not put the old ones back.
            let mut in_force = in_force.lock();
            replace_keys(&guard, &keys, &lines);
            *in_force = keys;
        }))
    }
}

fn replace_keys(guard: &Guard, keys: &config::Keys, lines: &Lines) {
    guard.replace_keys(lines, keys.quota, keys.forward);
}

/// What files and settings say about keys.
fn lines_of(config::Keys { clients, operators, .. }: &config::Keys) -> Result<Lines, SecurityError> {
    Ok(Lines {
        clients: lines_in(clients, "keys", "keys.file")?,
        operators: lines_in(operators, "keys.admin", "keys.admin_file")?,
    })
}

/// What one file and setting say; `None` where nobody is asked for a key.
fn lines_in(
    keys: &config::KeySource,
    setting: &'static str,
    file_setting: &'static str,
) -> Result<Option<Vec<KeyLine>>, SecurityError> {
    if !keys.are_asked_for() {
        return Ok(None);
    }
    let mut text = keys.lines.clone().unwrap_or_default();
    if let Some(path) = &keys.file {
        let failed = |source| SecurityError::Keys { setting: file_setting, path: path.clone(), source };
        // Lines of both are one list: a name stands for one key.
        text = format!(
            "{}\n{text}",
            read(path)
                .and_then(|bytes| {
                    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
                })
                .map_err(failed)?
        );
    }
    let lines: Vec<KeyLine> = key_lines(&text).map_err(|what| SecurityError::KeyLines { setting, what })?;
    if lines.is_empty() {
        // A file that is being written is empty for a moment, in which nobody should be locked out.
        return Err(SecurityError::KeyLines { setting, what: "there is no key".to_owned() });
    }
    Ok(Some(lines))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Watched {
    fn new(
        material: Material,
        files: impl Fn() -> Vec<PathBuf> + Send + 'static,
        read: impl Fn() -> Result<(), Box<dyn Error>> + Send + 'static,
    ) -> Self {
        let seen = fingerprint(&files());
        Watched { material, files: Box::new(files), read: Box::new(read), seen }
    }

    fn of_tls(
        material: Material,
        of: Certificate,
        core: &Arc<Core>,
        (files, read): (
            impl Fn() -> Vec<PathBuf> + Send + 'static,
            impl Fn() -> Result<Option<i64>, TlsError> + Send + 'static,
        ),
    ) -> Self {
        let core = Arc::clone(core);
        Watched::new(material, files, move || {
            core.metrics().certificate_expires(of, read()?);
            Ok(())
        })
    }

    fn look(&mut self, core: &Core) {
        let fingerprint = fingerprint(&(self.files)());
        if fingerprint == self.seen {
            return;
        }
        self.seen = fingerprint;
        let outcome = match (self.read)() {
            Ok(()) => {
                tracing::info!(material = ?self.material, "its files changed and are in force");
                Reload::Loaded
            }
            Err(error) => {
                tracing::error!(material = ?self.material, %error, "its files changed and cannot be used; what was stays");
                Reload::Failed
            }
        };
        core.metrics().security_reloaded(self.material, outcome);
    }
}

/// What files hold; a file that cannot be read holds nothing.
fn fingerprint(files: &[PathBuf]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files {
        let bytes = read(file).unwrap_or_default();
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    hash.finalize().into()
}
