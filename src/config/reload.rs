//! What may change while the router runs, and what needs another start.

use super::Config;
use super::problem::Problem;

/// Settings, or beginnings of settings, that may change. All others may not: what is added to the file is fixed until someone
/// sees to its change.
const CHANGEABLE: [&str; 13] = [
    "instances[",
    "discovery",
    "http.",
    "admission.",
    "keys.",
    "limits.",
    "reload.",
    "logs.requests",
    "routing.policy",
    "routing.hold_steps",
    "routing.lease_seconds",
    "routing.max_in_flight",
    "routing.tier_weights",
];

impl Config {
    /// What `next` changes that cannot change while the router runs.
    pub fn fixed_changes(&self, next: &Config) -> Vec<Problem> {
        let (before, after) = (self.settings(), next.settings());
        let value_in = |settings: &[(String, String)], path: &str| {
            settings.iter().find(|(other, _)| other == path).map_or("(nothing)", |(_, value)| value).to_owned()
        };
        let mut paths: Vec<&String> = before.iter().chain(&after).map(|(path, _)| path).collect();
        paths.retain(|path| !CHANGEABLE.iter().any(|changeable| path.starts_with(changeable)));
        let mut problems: Vec<Problem> = Vec::new();
        for path in paths {
            let (was, is) = (value_in(&before, path), value_in(&after, path));
            if was != is && problems.iter().all(|problem| problem.path != *path) {
                let what = format!("cannot change from {was} to {is} while the router runs");
                problems.push(restart(path, what));
            }
        }
        // What is not told of these, or not all of it: keys are hidden.
        let (now, then) = (&self.security, &next.security);
        for (path, is_changed) in [
            ("recorder", self.recorder != next.recorder),
            ("tls", now.tls != then.tls),
            ("upstream", now.upstream != then.upstream),
        ] {
            if is_changed && problems.iter().all(|problem| !problem.path.starts_with(path)) {
                problems.push(restart(path, "cannot change while the router runs".to_owned()));
            }
        }
        problems
    }
}

fn restart(path: &str, what: String) -> Problem {
    Problem {
        path: path.to_owned(),
        what,
        advice: "it needs a restart: restart the router, or set this back".to_owned(),
    }
}
