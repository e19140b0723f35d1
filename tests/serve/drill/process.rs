//! Real processes: they are started with free ports, say where they listen, and are killed when they are dropped.

use crate::support::{MODEL, eventually, get};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process of the binary under test.
pub struct Process {
    child: Child,
    started: String,
}

impl Process {
    /// Starts it, and waits for the first line of its log, which says where it listens.
    pub fn start(arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_warmpath"));
        command.args(arguments).env_remove("RUST_LOG").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = BufReader::new(child.stderr.take().expect("its log is piped"));
        let (first, started) = mpsc::channel();
        // Read to its end, so that nothing waits for the log.
        std::thread::spawn(move || {
            log.lines().map_while(Result::ok).for_each(|line| {
                let _ = first.send(line);
            });
        });
        let started = started.recv_timeout(PATIENCE).expect("it says where it listens");
        Process { child, started }
    }

    /// Where it says to listen for something.
    pub fn address(&self, of: &str) -> SocketAddr {
        let key = format!("{of}=");
        let value = self.started.split_whitespace().find_map(|word| word.strip_prefix(&*key));
        value.unwrap_or_else(|| panic!("no {key} in {}", self.started)).parse().expect("it is an address")
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "kill {signal}");
    }

    /// How it ended, which must be soon.
    pub async fn end(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the end of the process", || {
            ended = self.child.try_wait().expect("it is our child");
            ended.is_some()
        })
        .await;
        ended.expect("it ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stand-in for one vLLM.
pub fn mock() -> Process {
    let ports = ["--port", "0", "--kv-events-port", "0", "--speed", "20"];
    Process::start(&[&["mock-vllm", "--model", MODEL][..], &ports].concat())
}

/// A router with its configuration file.
pub struct Router {
    pub process: Process,
    /// Where its configuration is.
    folder: TempDir,
}

impl Router {
    /// A router in front of instances, by name and address; `more` is what else its configuration says.
    pub fn start(instances: &[(&str, SocketAddr)], more: &str) -> Router {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("warmpath.toml");
        std::fs::write(&path, Router::configuration(instances, more)).expect("the file is written");
        let process = Process::start(&["serve", "--config", path.to_str().expect("the path is a text")]);
        Router { process, folder }
    }

    fn configuration(instances: &[(&str, SocketAddr)], more: &str) -> String {
        let free = "\"127.0.0.1:0\"";
        let mut text = format!("[server]\nlisten = {free}\nhttp_listen = {free}\nadmin_listen = {free}\n");
        text += "[watch]\ndiscover_kv_events = false\nload_interval_busy_ms = 0\n[health]\ninterval_seconds = 1\n";
        text += more;
        for (name, address) in instances {
            text += &format!("[[instances]]\nname = \"{name}\"\nurl = \"http://{address}\"\nmodel = \"{MODEL}\"\n");
        }
        text
    }

    /// Writes its configuration anew, and asks it to read that.
    pub fn reconfigure(&self, instances: &[(&str, SocketAddr)], more: &str) {
        let text = Router::configuration(instances, more);
        std::fs::write(self.folder.path().join("warmpath.toml"), text).expect("the file is written");
        self.process.signal("-HUP");
    }

    pub fn http(&self) -> SocketAddr {
        self.process.address("http")
    }

    pub fn admin(&self) -> SocketAddr {
        self.process.address("admin")
    }

    /// A metric as a scrape has it.
    pub async fn metric(&self, series: &str) -> f64 {
        let (status, text) = get(self.admin(), "/metrics").await;
        assert_eq!(status, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().expect("it is a number")
    }

    /// Waits until a metric is as it should be.
    pub async fn until(&self, series: &str, is: impl Fn(f64) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let value = self.metric(series).await;
            if is(value) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{series} stays at {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// No request is in flight any more, and none waits.
    pub async fn until_idle(&self) {
        self.until("warmpath_requests_in_flight", |requests| requests == 0.0).await;
        for priority in ["high", "normal", "low"] {
            self.until(&format!("warmpath_queued_requests{{priority=\"{priority}\"}}"), |requests| requests == 0.0)
                .await;
        }
    }
}

/// The rule of this name watches a metric. What it does with it `promtool test rules` shows.
pub fn assert_alert(alert: &str, metric: &str) {
    let rules = include_str!("../../../deploy/prometheus/warmpath.rules.yml");
    let name = format!("- alert: {alert}\n");
    let rule = rules.split_once(&*name).unwrap_or_else(|| panic!("there is no alert {alert}")).1;
    let expression = rule.split("labels:").next().expect("a split has a first part");
    assert!(expression.contains(metric), "{alert} does not watch {metric}: {expression}");
}
