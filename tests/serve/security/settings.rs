//! What is configured, checked: every problem at once, and no secret in any of them.

use crate::support::{config, instance};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::Command;
use warmpath::config::{ApiKey, Config, ListenerTls, key_lines};
use warmpath::serve::App;

const INSTANCE: &str = "[[instances]]\nname = \"a\"\nurl = \"https://a:1\"\nmodel = \"m\"\n";

fn told(settings: &str) -> String {
    Config::parse(&format!("{settings}\n{INSTANCE}")).unwrap_err().to_string()
}

#[test]
fn every_problem_is_told() {
    let told = told(
        "[tls]\nhttp = { certificate = \"a\" }\ngrpc = { client_ca = \"a\" }\nadmin = { key = \"a\" }\nreload_seconds = 0\n\
         [upstream]\nkey = \"a\"\nserver_name = \"a b\"\napi_key = \"a\"\napi_key_file = \"a\"\n\
         [keys]\nlines = \"a sha256:0\"\nadmin_lines = \"b sha256:0\"\nrequests_per_second = -1.0\n\
         [limits]\nheader_bytes_max = 10\nwrite_seconds_max = 0",
    );
    for expected in [
        "tls.http.key: is missing",
        "tls.grpc.client_ca: is there without a certificate",
        "tls.admin.certificate: is missing",
        "tls.reload_seconds: is 0",
        "upstream.certificate: is missing",
        "upstream.server_name: \"a b\" is no name of a server",
        "upstream.api_key: is there beside api_key_file",
        "keys.lines: line 1: the name \"a\" is not followed by sha256:",
        "keys.admin_lines: line 1: the name \"b\" is not followed by sha256:",
        "keys.requests_per_second: -1 is no rate",
        "limits.header_bytes_max: is less than 8192",
        "limits.write_seconds_max: is 0",
    ] {
        assert!(told.contains(expected), "{expected} is missing from {told}");
    }
    assert!(told.starts_with("12 problems"), "{told}");
}

#[test]
fn no_secret_is_told() {
    for settings in [
        "[upstream]\napi_key = \"hush now\"",
        "[upstream]\napi_key = \"hush\" \"",
        "[upstream]\napi_key = hush",
        "[upstream]\napi_key = [\"hush\"]",
        "[keys]\nlines = \"a hush\"",
        "[keys]\nadmin_lines = \"a hush\"",
    ] {
        let told = told(settings);
        assert!(!told.contains("hush"), "{settings}: {told}");
    }
    let number = told("[upstream]\napi_key = 123456789");
    assert!(number.contains("upstream.api_key") && !number.contains("123456789"), "{number}");

    let environment = [("WARMPATH__UPSTREAM__API_KEY", "hush"), ("WARMPATH__KEYS__CONCURRENT_MAX", "7")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::parse_under(INSTANCE, environment).unwrap();
    let Some(ApiKey::Here(key)) = &config.security.upstream.api_key else { panic!("{config:?}") };
    assert_eq!((key.expose(), config.security.keys.quota.concurrent_max), ("hush", Some(7)));
    let shown = format!("{config:?} {:?}", config.settings());
    assert!(!shown.contains("hush") && shown.contains("(\"upstream.api_key\", \"***\")"), "{shown}");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (nowhere, broken) = (folder.path().join("nowhere"), file("broken", "hush"));
    let listener = |certificate: &PathBuf| {
        Some(ListenerTls { certificate: certificate.clone(), key: broken.clone(), client_ca: None })
    };
    let fails = async |change: &dyn Fn(&mut warmpath::config::Security), expected: &str| {
        let mut config = config(vec![instance("a", "127.0.0.1:1".parse().unwrap(), None)]);
        change(&mut config.security);
        let Err(error) = App::bind(config).await else { panic!("{expected}") };
        let told = error.to_string();
        assert!(told.contains(expected) && !told.contains("hush"), "{expected}: {told}");
    };
    fails(&|security| security.tls.http = listener(&nowhere), "tls.http: ").await;
    fails(&|security| security.tls.admin = listener(&broken), "broken holds no certificate in PEM").await;
    fails(&|security| security.upstream.ca = Some(broken.clone()), "upstream: ").await;
    fails(&|security| security.upstream.api_key = Some(ApiKey::File(nowhere.clone())), "cannot read the API key in ")
        .await;
    let two = file("two", "hush hush");
    fails(&|security| security.upstream.api_key = Some(ApiKey::File(two.clone())), "two holds no API key").await;
    fails(&|security| security.keys.clients.file = Some(nowhere.clone()), "keys.file: cannot read").await;
    fails(&|security| security.keys.operators.file = Some(nowhere.clone()), "keys.admin_file: cannot read").await;
    let line = file("line", "a hush");
    fails(&|security| security.keys.clients.file = Some(line.clone()), "keys: line 1: the name \"a\" is not").await;
}

#[test]
fn a_key_is_made_with_its_line() {
    let make = |name: &str| Command::new(env!("CARGO_BIN_EXE_warmpath")).args(["key", "new", name]).output().unwrap();
    let made = String::from_utf8(make("team-a").stdout).unwrap();
    let (key, line) = made.trim_end().split_once('\n').unwrap();
    let kept = key_lines(line).unwrap();
    assert_eq!((kept[0].name.as_str(), kept[0].digest), ("team-a", <[u8; 32]>::from(Sha256::digest(key))));
    assert!(key.len() == 67 && !line.contains(&key[3..]), "{made}");
    assert_ne!(make("team-a").stdout, made.into_bytes());
    let refused = make("team a");
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("is no name for a key"));
}
