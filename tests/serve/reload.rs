//! The configuration, read again while requests are on their way.

use crate::binary::{Router, file, names, section};
use crate::security::{echo, line};
use crate::support::{MODEL, get, mock_config, open_post, post, send, soon, start_mock};
use http_body_util::BodyExt;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use warmpath::mock::MockConfig;

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
const NOWHERE_ELSE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2);
/// On SIGHUP only.
const BY_HAND: &str = "[reload]\npoll_seconds = 0\n";

#[tokio::test]
async fn instances_join_change_and_leave_on_sighup_without_a_lost_request() {
    let (one, other) = (start_mock(mock_config()).await, start_mock(mock_config()).await);
    let router = Router::start(&file(&format!("{BY_HAND}{}", section("a", one.http))), &[]);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (over, http) = (Arc::clone(&over), router.http);
            tokio::spawn(async move {
                let mut answered = 0u32;
                while !over.load(Ordering::Relaxed) {
                    let prompt: Vec<u32> = (0..64).map(|token| client * 1000 + answered % 7 * 100 + token).collect();
                    let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": 4});
                    let (status, answer) = post(http, "/v1/completions", &body).await;
                    assert_eq!(status, 200, "{answer}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let says = async |instances: String| {
        std::fs::write(router.configuration(), file(&format!("{BY_HAND}{instances}"))).unwrap();
        router.signal("HUP");
    };
    for _ in 0..5 {
        // One joins; the first one leaves; the one that stays moves to another address; all is as it was.
        says(section("a", one.http) + &section("b", other.http)).await;
        router.until("the second one's joining", |status| names(status) == ["a", "b"]).await;
        says(section("b", other.http)).await;
        router.until("the first one's leaving", |status| names(status) == ["b"]).await;
        says(section("b", one.http)).await;
        let url = format!("http://{}", one.http);
        router.until("the move", |status| status.instances.len() == 1 && status.instances[0].url == url).await;
        says(section("a", one.http)).await;
        router.until("the beginning", |status| names(status) == ["a"]).await;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(soon("the clients", client).await.unwrap() > 0);
    }
    let status = router.status().await;
    assert_eq!(status.in_flight, 0, "{status:?}");
    assert_eq!(status.reload.unwrap().outcome, "applied");
    assert_eq!(router.metric("warmpath_config_reloads_total{outcome=\"applied\"}").await, 20.0);
    // A name has one series, wherever it was.
    let (_, text) = get(router.admin, "/metrics").await;
    let ready: Vec<&str> = text.lines().filter(|line| line.starts_with("warmpath_instance_ready{")).collect();
    assert_eq!(ready, ["warmpath_instance_ready{instance=\"a\"} 1", "warmpath_instance_ready{instance=\"b\"} 0"]);
}

#[tokio::test]
async fn an_instance_that_leaves_ends_what_it_has() {
    let mock = start_mock(MockConfig { speed: 0.1, ..mock_config() }).await;
    let router = Router::start(&file(&format!("{BY_HAND}{}", section("a", mock.http))), &[]);
    let body = json!({"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 50, "stream": true});
    let mut answer = open_post(router.http, "/v1/completions", &body).await.into_body();
    soon("the first token", answer.frame()).await.unwrap().unwrap();
    std::fs::write(router.configuration(), file(&format!("{BY_HAND}{}", section("b", NOWHERE)))).unwrap();
    router.signal("HUP");
    let both = router.until("the other's joining", |status| names(status) == ["a", "b"]).await;
    assert_eq!(both.instances[0].availability, "draining");
    let rest = soon("the rest", answer.collect()).await.unwrap().to_bytes();
    assert!(std::str::from_utf8(&rest).unwrap().trim_end().ends_with("data: [DONE]"));
    router.until("its leaving", |status| names(status) == ["b"]).await;
}

#[tokio::test]
async fn a_bad_file_is_refused_whole_with_every_problem_and_the_next_good_one_is_taken() {
    let router = Router::start(&file(&format!("{BY_HAND}{}", section("a", NOWHERE))), &[]);
    let before = router.status().await;
    assert_eq!(before.reload, None);
    // A good change beside three bad ones: an unknown field, a wrong value, and what cannot change.
    let bad = file(&format!(
        "{BY_HAND}[routing]\npolicy = \"random\"\nhold_steps = 0.25\nseed = 5\nlease_seconds = 0\ntypo = 1\n{}{}",
        section("a", NOWHERE),
        section("b", NOWHERE_ELSE)
    ));
    std::fs::write(router.configuration(), &bad).unwrap();
    router.signal("HUP");
    let refused = router.until("the refusal", |status| status.reload.is_some()).await;
    let reload = refused.reload.clone().unwrap();
    assert_eq!(reload.outcome, "refused");
    for problem in ["routing.typo: unknown field", "routing.lease_seconds: is 0"] {
        assert!(reload.problems.iter().any(|told| told.contains(problem)), "{problem} is not in {reload:?}");
        router.logged(&[problem]).await;
    }
    assert_eq!((names(&refused), &refused.settings, &refused.policy), (vec!["a"], &before.settings, &before.policy));
    // Once by the signal; and once more where the file was written before it was first looked at.
    assert!(router.metric("warmpath_config_reloads_total{outcome=\"refused\"}").await >= 1.0);
    assert_eq!(router.metric("warmpath_config_last_reload_ok").await, 0.0);

    // Valid, but with what needs a restart: named, and still nothing changes.
    let fixed = bad.replace("lease_seconds = 0\ntypo = 1\n", "").replace("[health]\n", "[health]\nfailures_max = 9\n");
    std::fs::write(router.configuration(), &fixed).unwrap();
    router.signal("HUP");
    let named = |status: &warmpath::serve::Status| {
        let problems = status.reload.as_ref().map(|reload| reload.problems.join("\n")).unwrap_or_default();
        problems.contains("routing.seed: cannot change from 0 to 5")
            && problems.contains("health.failures_max: cannot change from 3 to 9")
    };
    let refused = router.until("the second refusal", named).await;
    assert_eq!((names(&refused), &refused.policy), (vec!["a"], &before.policy));

    // Only what may change.
    let good = fixed.replace("seed = 5\n", "").replace("failures_max = 9\n", "");
    std::fs::write(router.configuration(), &good).unwrap();
    router.signal("HUP");
    let applied = router.until("the change", |status| names(status) == ["a", "b"]).await;
    assert_eq!((applied.policy.as_str(), applied.reload.unwrap().problems), ("random", Vec::new()));
    assert_eq!(router.metric("warmpath_config_last_reload_ok").await, 1.0);
    let in_force = |path: &str| applied.settings.iter().find(|(told, _)| told == path).unwrap().1.clone();
    assert_eq!(in_force("routing.policy"), "random");
    assert_eq!(router.metric("warmpath_routing_info{policy=\"random\",block_size=\"16\"}").await, 1.0);
    assert_eq!(in_force("routing.hold_steps"), "0.25");

    router.signal("HUP");
    router.until("no change", |status| status.reload.as_ref().is_some_and(|now| now.outcome == "unchanged")).await;
}

#[tokio::test]
async fn limits_follow_the_file() {
    let mock = start_mock(mock_config()).await;
    let router = Router::start(&file(&format!("{BY_HAND}{}", section("a", mock.http))), &[]);
    let body = json!({"model": MODEL, "prompt": vec![7; 500], "max_tokens": 1});
    assert_eq!(post(router.http, "/v1/completions", &body).await.0, 200);
    let limited = format!(
        "{BY_HAND}[http]\nbody_bytes_max = 100\n[routing]\nmax_in_flight = 1\nlease_seconds = 7\n{}",
        section("a", mock.http)
    );
    std::fs::write(router.configuration(), file(&limited)).unwrap();
    router.signal("HUP");
    router.until("the change", |status| status.reload.is_some()).await;
    assert_eq!(post(router.http, "/v1/completions", &body).await.0, 413);
    let status = router.status().await;
    for setting in [("http.body_bytes_max", "100"), ("routing.max_in_flight", "1"), ("routing.lease_seconds", "7")] {
        let setting = (setting.0.to_owned(), setting.1.to_owned());
        assert!(status.settings.contains(&setting), "{setting:?} is not in {:?}", status.settings);
    }
}

#[tokio::test]
async fn bounds_of_waiting_follow_the_file() {
    let mock = start_mock(mock_config()).await;
    let written = |more: &str| file(&format!("{BY_HAND}{more}{}", section("a", mock.http)));
    let router = Router::start(&written(""), &[]);
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", router.grpc)).unwrap();
    let mut client = warmpath::serve::proto::router_client::RouterClient::new(channel.connect_lazy());
    // Booked, and never ended: with a bound of 100 tokens the instance is saturated.
    let asked =
        warmpath::serve::proto::RouteRequest { model: MODEL.to_owned(), token_ids: vec![7; 200], ..Default::default() };
    client.route(asked).await.unwrap();
    let body = json!({"model": MODEL, "prompt": vec![8; 20], "max_tokens": 1});
    assert_eq!(post(router.http, "/v1/completions", &body).await.0, 200);
    let none = "[admission]\nprefill_tokens_max = 100\nqueue_requests_max = 0\n";
    std::fs::write(router.configuration(), written(none)).unwrap();
    router.signal("HUP");
    let is = |outcome: &'static str, problems: usize| {
        move |status: &warmpath::serve::Status| {
            status.reload.as_ref().is_some_and(|now| now.outcome == outcome && now.problems.len() == problems)
        }
    };
    router.until("the change", is("applied", 0)).await;
    assert_eq!(post(router.http, "/v1/completions", &body).await.0, 429);
    // What is not changed while it runs is refused, and says that it needs a restart.
    std::fs::write(router.configuration(), written(&format!("{none}[upstream]\napi_key = \"other\"\n"))).unwrap();
    router.signal("HUP");
    let refused = router.until("the refusal", is("refused", 1)).await.reload.unwrap();
    assert!(refused.problems[0].contains("upstream") && refused.problems[0].contains("needs a restart"), "{refused:?}");
    std::fs::write(router.configuration(), written("")).unwrap();
    router.signal("HUP");
    router.until("the change back", is("applied", 0)).await;
    assert_eq!(post(router.http, "/v1/completions", &body).await.0, 200);
}

#[tokio::test]
async fn clients_keys_and_limits_follow_the_file() {
    let mock = start_mock(mock_config()).await;
    let written = |more: &str| file(&format!("{BY_HAND}{more}{}", section("a", mock.http)));
    let router = Router::start(&written(""), &[]);
    let asked = async |key: &str, tokens: usize| {
        let body = json!({"model": MODEL, "prompt": vec![7; tokens], "max_tokens": 1}).to_string();
        let request = hyper::Request::post(format!("http://{}/v1/completions", router.http)).header("x-api-key", key);
        send(request.body(body.into()).unwrap()).await.status().as_u16()
    };
    let reloads = async |outcome: &str, times: f64| {
        let series = format!("warmpath_config_reloads_total{{outcome=\"{outcome}\"}}");
        while router.metric(&series).await != times {
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(asked("any", 100).await, 200);
    let keys = format!("[keys]\nlines = \"{}\"\n[limits]\nprompt_tokens_max = 50\n", line("a", "secret", ""));
    std::fs::write(router.configuration(), written(&keys)).unwrap();
    router.signal("HUP");
    soon("the change", reloads("applied", 1.0)).await;
    assert_eq!([asked("any", 10).await, asked("secret", 10).await, asked("secret", 100).await], [401, 200, 400]);

    // A line that is none: nothing of the file is in force, and nobody is locked out.
    let broken = "[keys]\nlines = \"a sha256:0\"\n[limits]\nprompt_tokens_max = 5\n";
    std::fs::write(router.configuration(), written(broken)).unwrap();
    router.signal("HUP");
    soon("the refusal", reloads("refused", 1.0)).await;
    assert_eq!([asked("any", 10).await, asked("secret", 10).await], [401, 200]);

    std::fs::write(router.configuration(), written("")).unwrap();
    router.signal("HUP");
    soon("the change back", reloads("applied", 2.0)).await;
    assert_eq!(asked("any", 100).await, 200);
}

#[tokio::test]
async fn an_instance_that_joins_is_shown_the_key_in_its_file() {
    let (instance, seen) = echo().await;
    let router = Router::start(&file(&format!("{BY_HAND}{}", section("a", NOWHERE))), &[]);
    let key = router.folder().join("key");
    let (of_a, url) = (section("a", NOWHERE), instance.url);
    let joined =
        format!("{BY_HAND}{of_a}[[instances]]\nname = \"b\"\nurl = \"{url}\"\nmodel = \"k\"\napi_key_file = {key:?}\n");
    // Without the file it stays out, and that is told.
    std::fs::write(router.configuration(), file(&joined)).unwrap();
    router.signal("HUP");
    let told = router.until("what is missing", |status| !status.fleet_problems.is_empty()).await;
    assert!(told.fleet_problems[0].contains("cannot read the API key"), "{told:?}");
    assert_eq!(names(&told), ["a"]);

    std::fs::write(&key, "of-b\n").unwrap();
    std::fs::write(router.configuration(), file(&joined.replace("name = \"b\"", "name = \"c\""))).unwrap();
    router.signal("HUP");
    router.until("it joined", |status| names(status) == ["a", "c"]).await;
    let body = json!({"model": "k", "prompt": [1], "max_tokens": 1});
    assert_eq!(post(router.http, "/v1/completions", &body).await.0, 200);
    assert_eq!(seen.lock().unwrap()[0]["authorization"], "Bearer of-b");
}

/// As the kubelet does it: `warmpath.toml` leads through `..data` into a folder, and `..data` is replaced at once.
#[tokio::test]
async fn a_config_map_that_is_swapped_is_noticed_without_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let version = |number: u32, text: String| {
        let name = format!("..version_{number}");
        std::fs::create_dir(folder.path().join(&name)).unwrap();
        std::fs::write(folder.path().join(&name).join("warmpath.toml"), text).unwrap();
        let link = folder.path().join("..data_tmp");
        std::os::unix::fs::symlink(&name, &link).unwrap();
        std::fs::rename(link, folder.path().join("..data")).unwrap();
    };
    let poll = "[reload]\npoll_seconds = 1\n";
    version(1, file(&format!("{poll}{}", section("a", NOWHERE))));
    let path = folder.path().join("warmpath.toml");
    std::os::unix::fs::symlink("..data/warmpath.toml", &path).unwrap();
    let at = folder.path().to_owned();
    let router = Router::start_in(folder, &path, &[]);
    let link = |number: u32, text: String| {
        let name = format!("..version_{number}");
        std::fs::create_dir(at.join(&name)).unwrap();
        std::fs::write(at.join(&name).join("warmpath.toml"), text).unwrap();
        std::os::unix::fs::symlink(&name, at.join("..data_tmp")).unwrap();
        std::fs::rename(at.join("..data_tmp"), at.join("..data")).unwrap();
    };
    link(2, file(&format!("{poll}{}{}", section("a", NOWHERE), section("b", NOWHERE_ELSE))));
    router.until("the second one's joining", |status| names(status) == ["a", "b"]).await;
    link(3, file(&format!("{poll}[[instances]]\nname = \"a\"\n")));
    router.until("the refusal", |status| status.reload.as_ref().is_some_and(|last| last.outcome == "refused")).await;
    link(4, file(&format!("{poll}{}", section("b", NOWHERE_ELSE))));
    router.until("the first one's leaving", |status| names(status) == ["b"]).await;
}
