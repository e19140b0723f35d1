//! The binary itself.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn warmpath(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warmpath"));
    command.args(arguments).env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A configuration file in a folder that lasts as long as the guard.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warmpath.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn configuration(listen: &str, admin_listen: &str) -> String {
    format!(
        "[server]\nlisten = \"{listen}\"\nhttp_listen = \"127.0.0.1:0\"\nadmin_listen = \"{admin_listen}\"\n\
         [health]\ninterval_seconds = 0\n\
         [[instances]]\nname = \"a\"\nurl = \"http://127.0.0.1:1\"\nmodel = \"m\"\n"
    )
}

#[test]
fn a_port_in_use_is_one_line_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (listen, admin, setting) in
        [(address.as_str(), "127.0.0.1:0", "server.listen"), ("127.0.0.1:0", &address, "server.admin_listen")]
    {
        let (_folder, path) = file(&configuration(listen, admin));
        let said = failed(&warmpath(&["serve", "--config", &path]).output().unwrap());
        let begin = format!("error: cannot listen on {address} ({setting}): ");
        assert!(said.starts_with(&begin) && said.ends_with("; stop what uses it, or set another address\n"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let port = taken.local_addr().unwrap().port().to_string();
    let said = failed(&warmpath(&["mock-vllm", "--port", &port, "--kv-events-port", "0"]).output().unwrap());
    assert!(said.starts_with(&format!("error: cannot listen on 127.0.0.1:{port} (port): ")), "{said}");
}

#[test]
fn a_bad_configuration_is_told_whole() {
    let (_folder, path) = file("[server]\nprot = 1\n[routing]\nblock_size = 3\n");
    let said = failed(&warmpath(&["config", "check", "--config", &path]).output().unwrap());
    for part in
        [&*path, "3 problems", "server.prot: unknown field", "routing.block_size: ", "instances: there are none"]
    {
        assert!(said.contains(part), "{part:?} is missing from {said}");
    }
    let said = failed(&warmpath(&["serve", "--config", "/nonexistent.toml"]).output().unwrap());
    assert!(said.starts_with("error: cannot read /nonexistent.toml: "), "{said}");
}

#[test]
fn the_printed_example_is_valid() {
    let example = warmpath(&["config", "example"]).output().unwrap();
    let (_folder, path) = file(std::str::from_utf8(&example.stdout).unwrap());
    let checked = warmpath(&["config", "check", "--config", &path]).output().unwrap();
    assert_eq!(String::from_utf8(checked.stdout).unwrap(), format!("{path}: valid, 2 instances\n"));
}

#[test]
fn help_teaches() {
    for (arguments, teaches) in [
        (&["--help"][..], "warmpath mock-vllm --model Qwen/Qwen3-32B --port 8001"),
        (&["serve", "--help"], "warmpath serve --config warmpath.toml"),
        (&["mock-vllm", "--help"], "curl http://127.0.0.1:8000/v1/completions"),
    ] {
        let help = warmpath(arguments).output().unwrap();
        assert!(String::from_utf8(help.stdout).unwrap().contains(teaches), "{arguments:?}");
    }
}

/// Help is printed as it stands, so no terminal of 80 columns may have to break its lines.
#[test]
fn help_fits_in_80_columns() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["mock-vllm", "--help"]] {
        let help = warmpath(arguments).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let about = help.split("Usage:").next().unwrap();
        assert!(about.lines().all(|line| line.len() <= 80), "{about}");
    }
}

#[test]
fn an_instance_that_refuses_is_news_once() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let events = format!("kv_events = {{ endpoint = \"tcp://127.0.0.1:{port}\" }}\n");
    let (_folder, path) = file(&(configuration("127.0.0.1:0", "127.0.0.1:0") + &events));
    let mut child = warmpath(&["serve", "--config", &path]).env("RUST_LOG", "warmpath=debug").spawn().unwrap();
    let (mut news, mut retries) = (Vec::new(), 0);
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        match () {
            () if line.contains(" WARN ") => news.push(line),
            () if line.contains("still no cache events") => retries += 1,
            () => {}
        }
        if retries == 3 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        matches!(&news[..], [line] if line.contains("Connection refused") && line.contains("instance=\"a\"")),
        "{news:?}"
    );
}

#[test]
fn sigterm_ends_both_servers_well() {
    let (_folder, path) = file(&configuration("127.0.0.1:0", "127.0.0.1:0"));
    for (arguments, started) in [
        (&["serve", "--config", &path][..], "serving grpc=127.0.0.1:"),
        (&["mock-vllm", "--port", "0", "--kv-events-port", "0"], "standing in for vLLM http=127.0.0.1:"),
    ] {
        let mut child = warmpath(arguments).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(line.contains(started), "{line}");
        let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    }
}
