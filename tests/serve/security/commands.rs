//! The commands that ask a router, where it asks for a certificate and a key.

use super::line;
use super::tls::Authority;
use crate::support::{MODEL, RunningApp, config, mock_config, start_app, start_mock};
use std::path::Path;
use std::process::{Command, Output};

/// Runs one beside this test's own runtime.
async fn run(arguments: Vec<String>, environment: Vec<(&'static str, String)>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warmpath"));
    command.args(arguments).env_remove("RUST_LOG").envs(environment);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Every one of them, with what it says of the router.
fn commands(app: &RunningApp) -> [(Vec<String>, &'static str); 4] {
    let (router, admin) = (format!("https://{}", app.grpc), format!("https://{}", app.admin));
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    [
        (words(&["route", "--router", &router, "--model", MODEL, "--token-ids", "1,2,3", "--send"]), "answered: "),
        (words(&["instances", "--router", &router]), "a at http://"),
        (words(&["instances", "drain", "a", "--admin", &admin]), "0 requests in flight there"),
        (words(&["top", "--once", "--admin", &admin]), "prefix_cost"),
    ]
}

#[tokio::test]
async fn they_show_what_they_are_asked_for_and_say_what_is_missing() {
    let (authority, operators) = (Authority::new(), Authority::new());
    let mock = start_mock(mock_config()).await;
    let mut config = config(vec![mock.instance("a")]);
    let tls = &mut config.security.tls;
    tls.grpc = Some(authority.listener("grpc", Some(&operators)));
    tls.admin = Some(authority.listener("admin", Some(&operators)));
    config.security.keys.clients.lines = Some(line("us", "secret", ""));
    config.security.keys.operators.lines = Some(line("us", "secret", ""));
    let app = start_app(config).await;
    let (certificate, key) = operators.sign("us", "us.example", 2040);
    let ca = vec!["--tls-ca".to_owned(), path(authority.ca())];
    let identity = vec!["--tls-certificate".to_owned(), path(&certificate), "--tls-key".to_owned(), path(&key)];
    let file = authority.write("key", "secret\n");
    let shown = vec!["--api-key-file".to_owned(), path(&file)];
    let succeeds = async |arguments: Vec<String>, environment: Vec<(&'static str, String)>, says: &str| {
        let output = run(arguments.clone(), environment).await;
        let told = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && told.contains(says), "{arguments:?}: {told}{error}");
    };
    let fails = async |arguments: Vec<String>, environment: Vec<(&'static str, String)>, says: &str| {
        let output = run(arguments.clone(), environment).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(says), "{arguments:?}: {error}");
        assert!(!error.contains("secret"), "{error}");
    };
    for (command, says) in commands(&app) {
        succeeds([&command[..], &ca, &identity, &shown].concat(), Vec::new(), says).await;
        // All of it from the environment.
        let environment = vec![
            ("WARMPATH_TLS_CA", path(authority.ca())),
            ("WARMPATH_TLS_CERTIFICATE", path(&certificate)),
            ("WARMPATH_TLS_KEY", path(&key)),
            ("WARMPATH_API_KEY", "secret".to_owned()),
        ];
        succeeds(command.clone(), environment, says).await;
        // Another authority's router, and half of what is shown.
        let trusting_others = vec!["--tls-ca".to_owned(), path(operators.ca())];
        fails([&command[..], &trusting_others, &identity, &shown].concat(), Vec::new(), "no TLS was agreed on").await;
        let half = vec!["--tls-key".to_owned(), path(&key)];
        fails([&command[..], &half].concat(), Vec::new(), "belong together").await;
        let unknown = vec![("WARMPATH_API_KEY", "other".to_owned())];
        fails([&command[..], &ca, &identity].concat(), unknown, "").await;
    }
    let (route, _) = &commands(&app)[0];
    fails([&route[..], &ca, &identity].concat(), Vec::new(), "there is no API key").await;
    let twice = vec![("WARMPATH_API_KEY", "secret".to_owned())];
    fails([&route[..], &ca, &identity, &shown].concat(), twice, "keep the one that applies").await;
    app.running.stop().await;
}
