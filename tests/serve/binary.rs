//! The router as a process of its own, with its configuration in a file.

use crate::support::{eventually, get};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use warmpath::serve::Status;

/// `warmpath serve`, killed when it is dropped.
pub struct Router {
    child: Child,
    folder: TempDir,
    log: Arc<Mutex<Vec<String>>>,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
}

/// Listeners on free ports, no checks of health, and what follows.
pub fn file(rest: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\
         [health]\ninterval_seconds = 0\n[watch]\ndiscover_kv_events = false\nload_interval_busy_ms = 0\n{rest}"
    )
}

/// An instance's section.
pub fn section(name: &str, address: SocketAddr) -> String {
    format!("[[instances]]\nname = \"{name}\"\nurl = \"http://{address}\"\nmodel = \"m\"\n")
}

impl Router {
    /// Starts with this configuration and these variables, and waits until it serves.
    pub fn start(configuration: &str, environment: &[(&str, &str)]) -> Router {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warmpath.toml");
        std::fs::write(&path, configuration).unwrap();
        Router::start_in(folder, &path, environment)
    }

    pub fn start_in(folder: TempDir, path: &Path, environment: &[(&str, &str)]) -> Router {
        let mut command = Command::new(env!("CARGO_BIN_EXE_warmpath"));
        command.args(["serve", "--config"]).arg(path).env_remove("RUST_LOG").env("NO_COLOR", "1");
        command.envs(environment.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let serving = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {:?}", log.lock().unwrap())).unwrap();
            log.lock().unwrap().push(line.clone());
            if line.contains("serving") && line.contains("admin") {
                break line;
            }
        };
        let kept = Arc::clone(&log);
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        let address = |name: &str| {
            let at = [format!("{name}="), format!("\"{name}\":\"")].into_iter().find_map(|begin| {
                let rest = &serving[serving.find(&begin)? + begin.len()..];
                Some(rest[..rest.find([' ', '"']).unwrap_or(rest.len())].parse().unwrap())
            });
            at.unwrap_or_else(|| panic!("{name} is not in {serving}"))
        };
        let (http, grpc, admin) = (address("http"), address("grpc"), address("admin"));
        Router { child, folder, log, http, grpc, admin }
    }

    /// The folder of its configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("warmpath.toml")
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub async fn status(&self) -> Status {
        let (status, text) = get(self.admin, "/status").await;
        assert_eq!(status, 200);
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the status is as it should be.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&Status) -> bool) -> Status {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let status = self.status().await;
            if is_so(&status) {
                return status;
            }
            let in_time = std::time::Instant::now() < deadline;
            assert!(in_time, "{what} did not happen: {status:?}\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Waits until it logged a line with all of this.
    pub async fn logged(&self, parts: &[&str]) {
        eventually(&format!("a line with {parts:?} in\n{}", self.log()), || {
            let log = self.log.lock().unwrap();
            log.iter().any(|line| parts.iter().all(|part| line.contains(part)))
        })
        .await;
    }

    /// The value of a metric, named with its labels as it is rendered.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, text) = get(self.admin, "/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of the fleet.
pub fn names(status: &Status) -> Vec<&str> {
    status.instances.iter().map(|instance| instance.name.as_str()).collect()
}
