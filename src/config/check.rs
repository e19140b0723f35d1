//! From what was written to what can be run, noting every problem on the way: here the order of the sections and what they
//! all need, in [`server`] and its siblings what is asked of each.

use super::Config;
use super::problem::{Invalid, Problem};
use super::raw::{self, Leaf};
use std::collections::HashMap;

mod admission;
mod discovery;
mod endpoint;
mod instances;
mod routing;
mod security;
mod server;
mod telemetry;

pub(super) use discovery::fleet;
pub(super) use instances::named;

pub(super) fn config(raw: raw::Config, problems: Vec<Problem>) -> Result<Config, Invalid> {
    let mut check = Check { problems };
    check.version(raw.version);
    let server = check.server(raw.server);
    let http = check.http(raw.http);
    let health = check.health(raw.health);
    let mut routing = check.routing(raw.routing);
    routing.saturation = check.saturation(&raw.admission);
    let admission = check.admission(raw.admission);
    let discovery = check.discovery(raw.discovery);
    let instances = check.instances(raw.instances, !discovery.sources.is_empty());
    let tokenizers = check.tokenizers(raw.tokenizers, &instances, &discovery);
    let recorder = raw.recorder.map(|recorder| check.recorder(recorder));
    let watch = check.watch(raw.watch);
    let security = check.security((raw.tls, raw.upstream, raw.keys, raw.limits));
    let reload = check.reload(raw.reload);
    let logs = check.logs(raw.logs);
    let tracing = check.tracing(raw.tracing);
    if check.problems.is_empty() {
        Ok(Config {
            server,
            http,
            health,
            routing,
            instances,
            tokenizers,
            recorder,
            watch,
            admission,
            security,
            discovery,
            reload,
            logs,
            tracing,
        })
    } else {
        Err(Invalid { problems: check.problems })
    }
}

impl Check {
    /// What is for another Warmpath may mean something else by the same names.
    fn version(&mut self, raw: Option<Leaf<u64>>) {
        let advice = format!("write {}, after changing what deploy/CHANGELOG.md says", Config::VERSION);
        let version = self.leaf("version", raw, &advice);
        if let Some(other) = version.filter(|&version| version != Config::VERSION) {
            self.problem("version", format!("is {other}, and this Warmpath reads {}", Config::VERSION), &advice);
        }
    }
}

/// The problems found so far. Where one is found the default stands in, only so that the checks can go on.
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    /// A text that must be there and not be empty; the empty text once the problem is noted.
    fn text(&mut self, path: &str, raw: Option<Leaf<String>>, advice: &str) -> String {
        if raw.is_none() {
            self.problem(path, "is missing", advice);
            return String::new();
        }
        let text = self.leaf(path, raw, advice);
        if text.as_deref() == Some("") {
            self.problem(path, "is empty", advice);
        }
        text.unwrap_or_default()
    }

    fn at_least_one<T: Default + PartialEq>(&mut self, path: &str, raw: Option<Leaf<T>>) -> Option<T> {
        const ADVICE: &str = "write a whole number, at least 1";
        let value = self.leaf(path, raw, ADVICE);
        if value.as_ref() == Some(&T::default()) {
            self.problem(path, "is 0", ADVICE);
        }
        value
    }

    fn parsed<R, T: Default, E: std::fmt::Display>(
        &mut self,
        path: &str,
        raw: Option<R>,
        parse: impl FnOnce(R) -> Result<T, E>,
        advice: &str,
    ) -> T {
        match raw.map(parse) {
            None => T::default(),
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                self.problem(path, error.to_string(), advice);
                T::default()
            }
        }
    }

    fn leaf<T>(&mut self, path: &str, raw: Option<Leaf<T>>, advice: &str) -> Option<T> {
        match raw? {
            Leaf::Value(value) => Some(value),
            Leaf::Wrong(what) => {
                self.problem(path, what, advice);
                None
            }
        }
    }

    fn unique(&mut self, path: &str, value: &str, seen: &mut HashMap<String, String>) {
        if value.is_empty() {
            return;
        }
        match seen.get(value) {
            Some(first) => self.problem(path, format!("{value:?} is also {first}"), "make each one different"),
            None => {
                seen.insert(value.to_owned(), path.to_owned());
            }
        }
    }

    fn problem(&mut self, path: &str, what: impl Into<String>, advice: &str) {
        self.problems.push(Problem { path: path.to_owned(), what: what.into(), advice: advice.to_owned() });
    }
}
