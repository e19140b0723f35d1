//! The configuration, as an operator writes it.

use std::time::Duration;
use warmpath::config::{Admission, Config, Endpoint, Source};
use warmpath::routing;
use warmpath::routing::admission::Saturation;
use warmpath::routing::policy::PolicyKind;

const INSTANCE: &str = "[[instances]]\nname = \"a\"\nurl = \"http://a:8000\"\nmodel = \"m\"\n";

/// The problems of a file, one a line.
fn problems(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Ok(config) => panic!("{config:?} should not be valid"),
        Err(invalid) => invalid.problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_example_is_valid_and_states_the_defaults() {
    let example = Config::parse(Config::EXAMPLE).unwrap();
    let bare = Config::parse(INSTANCE).unwrap();
    assert_eq!(example.server, bare.server);
    assert_eq!((example.http, example.health, example.watch), (bare.http, bare.health, bare.watch));
    assert_eq!(example.routing, bare.routing);
    assert_eq!(example.admission, bare.admission);
    // A simulated fleet says for itself whether it is to be saturated.
    let saturation = Some(Admission::SATURATION);
    assert_eq!(example.routing, routing::Config { saturation, ..routing::Config::default() });
    assert_eq!(example.instances.len(), 2);
    assert_eq!(example.instances[1].kv_events.as_ref().unwrap().endpoint.to_string(), "tcp://127.0.0.1:5558");
}

#[test]
fn a_file_for_another_warmpath_is_refused() {
    assert!(Config::parse(&format!("version = 1\n{INSTANCE}")).is_ok());
    let told = Config::parse(&format!("version = 2\n{INSTANCE}")).unwrap_err().to_string();
    assert!(told.contains("version: is 2, and this Warmpath reads 1") && told.contains("CHANGELOG"), "{told}");
    assert!(Config::parse(&format!("version = \"1\"\n{INSTANCE}")).is_err());
}

#[test]
fn every_setting_is_read() {
    let text = "[server]\nlisten = \"0.0.0.0:1\"\nadmin_listen = \"[::1]:2\"\nhttp_listen = \"[::1]:3\"\n\
                [http]\nbody_bytes_max = 10\nretries_max = 0\n[health]\ninterval_seconds = 0\nfailures_max = 9\n[routing]\npolicy = \"random\"\n\
                block_size = 32\nseed = 7\nlease_seconds = 5\nmax_in_flight = 9\nindex_bytes_max = 11\napproximate_blocks_max = 12\n\
                [[instances]]\nname = \"a\"\nurl = \"http://[::1]:8000\"\nmodel = \"m\"\n\
                kv_events = { endpoint = \"tcp://[::1]:5557\", topic = \"kv\",\n\
                replay_endpoint = \"tcp://r:5567\" }\n\
                [routing.tier_weights]\ngpu = 0.9\ncpu = 0.5\nstorage = 0\n\
                [watch]\ndiscover_kv_events = false\nload_interval_busy_ms = 7\nload_interval_idle_ms = 70\n\
                [admission]\nprefill_tokens_max = 5\nkv_usage_max = 0\nqueue_requests_max = 0\nqueue_bytes_max = 6\nwait_seconds_max = 7\n";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:1");
    assert_eq!(config.server.admin_listen.to_string(), "[::1]:2");
    assert_eq!(config.server.http_listen.to_string(), "[::1]:3");
    assert_eq!((config.http.body_bytes_max, config.http.retries_max), (10, 0));
    assert_eq!((config.health.interval, config.health.failures_max), (None, 9));
    let routing = config.routing;
    assert_eq!((routing.policy, routing.block_size.tokens(), routing.seed), (PolicyKind::Random, 32, 7));
    assert_eq!((routing.lease.as_secs(), routing.requests_max, routing.index_bytes_max), (5, 9, 11));
    let weights = routing.tier_weights;
    assert_eq!((weights.gpu, weights.cpu, weights.storage, routing.approximate_blocks_max), (0.9, 0.5, 0.0, 12));
    let load = config.watch.load.unwrap();
    assert_eq!((config.watch.discover_kv_events, load.busy.as_millis(), load.idle.as_millis()), (false, 7, 70));
    assert_eq!(routing.saturation, Some(Saturation { prefill_tokens_max: Some(5), kv_usage_max: None }));
    let wait_max = Duration::from_secs(7);
    assert_eq!(config.admission, Admission { queue_requests_max: 0, queue_bytes_max: 6, wait_max });
    let off = format!("{INSTANCE}[admission]\nprefill_tokens_max = 0\nkv_usage_max = 0\n");
    assert_eq!(Config::parse(&off).unwrap().routing.saturation, None);
    let wrong = problems(&format!("{INSTANCE}[admission]\nkv_usage_max = 1.5\nwait_seconds_max = 0\n"));
    assert!(
        matches!(&wrong[..], [usage, wait] if usage.contains("not from 0 to 1") && wait.contains("is 0")),
        "{wrong:?}"
    );
    let events = config.instances[0].kv_events.clone().unwrap();
    assert!(!events.listens);
    assert_eq!(events.replay.unwrap().to_string(), "tcp://r:5567");
    assert_eq!((events.endpoint, events.topic.as_str()), (Endpoint { host: "::1".to_owned(), port: 5557 }, "kv"));
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = "typo = 1\n[server]\nlisten = \"localhost\"\nport = 3\n[routing]\npolicy = \"best\"\nblock_size = 24\n\
                seed = \"x\"\nlease_seconds = 0\nmax_in_flight = -1\nindex_bytes_max = 0\n\
                [[instances]]\nname = \"\"\nurl = \"ftp://a\"\n\
                [[instances]]\nname = \"b\"\nurl = \"http://b:1\"\nmodel = 3\nkv_events = { endpoint = \"tcp://*:5557\", to = 1 }\n\
                [[instances]]\nname = \"b\"\nurl = \"http://b:1\"\nmodel = \"m\"\nkv_events = {}\n";
    let found = problems(text);
    let paths: Vec<&str> = found.iter().map(|problem| problem.split(": ").next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "instances[1].kv_events.to",
            "server.port",
            "typo",
            "server.listen",
            "routing.seed",
            "routing.policy",
            "routing.block_size",
            "routing.lease_seconds",
            "routing.max_in_flight",
            "routing.index_bytes_max",
            "instances[0].name",
            "instances[0].model",
            "instances[0].url",
            "instances[1].model",
            "instances[1].kv_events.endpoint",
            "instances[2].kv_events.endpoint",
            "instances[2].name",
            "instances[2].url",
        ],
        "{found:#?}"
    );
    assert!(found[6].contains("24 is not a power of two from 1 to 512"), "{}", found[6]);
}

#[test]
fn how_long_requests_are_held_is_said_in_one_place() {
    let found = problems(&format!("[routing]\npolicy = \"prefix_cost:hold=0.1\"\n{INSTANCE}"));
    let expected =
        "routing.policy: policy \"prefix_cost:hold=0.1\" says how long requests are held, which is routing.hold_steps";
    assert!(matches!(found.as_slice(), [problem] if problem.starts_with(expected)), "{found:?}");
    let found = problems(&format!("[routing]\nhold_steps = -1\n{INSTANCE}"));
    assert!(
        matches!(found.as_slice(), [problem] if problem.starts_with("routing.hold_steps: -1 is not from 0 to 1000")),
        "{found:?}"
    );
    for (said, holds) in [
        ("hold_steps = 0.25", Some(0.25)),
        ("hold_steps = 0", None),
        ("policy = \"lmetric\"", None),
        ("seed = 1", Some(0.4)),
    ] {
        let config = Config::parse(&format!("[routing]\n{said}\n{INSTANCE}")).unwrap();
        assert_eq!(config.routing.policy_spec().hold(), holds, "{said}");
    }
}

#[test]
fn a_fleet_has_instances_and_ports_of_its_own() {
    assert_eq!(problems("").len(), 1);
    let same = "[server]\nlisten = \"127.0.0.1:9090\"\n";
    assert_eq!(
        problems(&format!("{same}{INSTANCE}")),
        ["server.admin_listen: 127.0.0.1:9090 is also server.listen; give each its own port"]
    );
}

#[test]
fn what_is_not_toml_says_where() {
    assert!(problems("[server\n")[0].contains("line 1"));
}

#[test]
fn data_parallel_ranks_are_instances_of_their_own() {
    let text = format!(
        "{INSTANCE}data_parallel_ranks = 2\nkv_events = {{ endpoint = \"tcp://a:5557\", replay_endpoint = \"tcp://a:5567\" }}\n"
    );
    let instances = Config::parse(&text).unwrap().instances;
    let said = |instance: &warmpath::config::Instance| {
        let events = instance.kv_events.as_ref().unwrap();
        let (endpoint, replay) = (&events.endpoint, events.replay.as_ref().unwrap().port);
        format!("{} {} {:?} {endpoint} {replay}", instance.name, instance.url, instance.data_parallel_rank)
    };
    let said: Vec<String> = instances.iter().map(said).collect();
    assert_eq!(
        said,
        ["a.dp0 http://a:8000 Some(0) tcp://a:5557 5567", "a.dp1 http://a:8000 Some(1) tcp://a:5558 5568"]
    );
    assert_eq!(Config::parse(&format!("{INSTANCE}data_parallel_ranks = 1\n")).unwrap().instances[0].name, "a");
    assert_eq!(problems(&format!("{INSTANCE}data_parallel_ranks = 0\n")).len(), 1);
}

#[test]
fn an_instance_says_what_it_speaks_and_where() {
    use warmpath::config::Protocol;
    let addresses = |text: &str| {
        let instance = Config::parse(text).unwrap().instances.remove(0);
        Protocol::ALL.map(|protocol| instance.address(protocol).unwrap_or_default())
    };
    assert_eq!(addresses(INSTANCE), ["http://a:8000", "", ""]);
    assert_eq!(addresses(&INSTANCE.replace("http://", "grpc://")), ["", "http://a:8000", ""]);
    let beside = "inference_url = \"grpc://a:9000\"\n";
    assert_eq!(addresses(&format!("{INSTANCE}{beside}")), ["http://a:8000", "", "http://a:9000"]);
    let both = format!("{}{beside}", INSTANCE.replace("http://", "grpc://"));
    assert!(problems(&both)[0].starts_with("instances[0].inference_url: "), "{both}");
    assert_eq!(problems(&format!("{INSTANCE}{}", beside.replace("grpc", "http"))).len(), 1);
}

#[test]
fn what_is_recorded_is_bounded_as_configured() {
    let section = "[recorder]\nfolder = \"/r\"\nfile_bytes_max = 1\nfiles_max = 2\nmemory_bytes_max = 3\n";
    let recorder = Config::parse(&format!("{section}{INSTANCE}")).unwrap().recorder.unwrap();
    assert_eq!(recorder.folder.to_str(), Some("/r"));
    assert_eq!((recorder.file_bytes_max, recorder.files_max, recorder.memory_bytes_max), (1, 2, 3));
    assert_eq!(Config::parse(INSTANCE).unwrap().recorder, None);
    // What the example says in comments are the defaults.
    let example = Config::EXAMPLE.split("# [recorder]").nth(1).unwrap();
    let lines = example.lines().filter_map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")));
    let example = Config::parse(&format!("[recorder]\n{}\n{INSTANCE}", lines.collect::<Vec<_>>().join("\n"))).unwrap();
    let default = warmpath::trace::RecorderConfig::new("/var/lib/warmpath".into());
    assert_eq!(example.recorder, Some(default));
    let found = problems(&format!("[recorder]\nfiles_max = 0\nmemory_bytes_max = \"a\"\n{INSTANCE}"));
    let paths: Vec<&str> = found.iter().map(|problem| problem.split(": ").next().unwrap()).collect();
    assert_eq!(paths, ["recorder.folder", "recorder.files_max", "recorder.memory_bytes_max"]);
}

#[test]
fn a_tokenizer_belongs_to_a_model_that_is_served() {
    let tokenizer = |model: &str| format!("{INSTANCE}[[tokenizers]]\nmodel = \"{model}\"\npath = \"/models/m\"\n");
    let tokenizers = Config::parse(&tokenizer("m")).unwrap().tokenizers;
    assert_eq!((tokenizers[0].model.as_str(), tokenizers[0].path.to_str()), ("m", Some("/models/m")));
    let found = problems(&tokenizer("x"));
    assert_eq!(found, ["tokenizers[0].model: no instance serves \"x\"; write an instance's model"]);
}

#[test]
fn the_environment_stands_above_the_file() {
    let parse = |text: &str, variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::parse_under(text, variables)
    };
    let file = format!("[routing]\npolicy = \"random\"\nseed = 1\n{INSTANCE}");
    let variables = [
        ("WARMPATH__ROUTING__POLICY", "round_robin"),
        ("WARMPATH__SERVER__LISTEN", "0.0.0.0:7000"),
        ("WARMPATH__HTTP__BODY_BYTES_MAX", "1_000"),
        // Kubernetes gives these to everyone beside a service of that name.
        ("WARMPATH_PORT", "tcp://10.0.0.1:9000"),
        ("WARMPATH_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = parse(&file, &variables).unwrap();
    assert_eq!((config.routing.policy, config.routing.seed), (PolicyKind::RoundRobin, 1));
    assert_eq!((config.server.listen.to_string().as_str(), config.http.body_bytes_max), ("0.0.0.0:7000", 1000));

    let wrong = [("WARMPATH__ROUTING__POLICI", "x"), ("WARMPATH__ROUTING", "x"), ("WARMPATH__ROUTING__SEED", "a b")];
    let problems = parse(&file, &wrong).unwrap_err().problems;
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["WARMPATH__ROUTING", "WARMPATH__ROUTING__POLICI", "WARMPATH__ROUTING__SEED"]);
    // Checked as what is written in the file is.
    let found = parse(&file, &[("WARMPATH__ROUTING__BLOCK_SIZE", "24")]).unwrap_err().problems;
    assert_eq!(found[0].path, "routing.block_size");
    // A file that cannot be read says where, whatever the environment says.
    assert!(parse("[server\n", &variables).unwrap_err().to_string().contains("line 1"));
}

#[test]
fn a_publisher_connects_or_is_connected_to() {
    let events = |events: &str| format!("{INSTANCE}kv_events = {{ {events} }}\n");
    let listening = Config::parse(&events("listen = \"tcp://0.0.0.0:5601\"")).unwrap().instances[0].kv_events.clone();
    let listening = listening.unwrap();
    assert_eq!((listening.endpoint.to_string().as_str(), listening.listens), ("tcp://0.0.0.0:5601", true));
    for (text, path) in [
        (events("listen = \"tcp://*:5601\""), "instances[0].kv_events.listen: "),
        (events("listen = \"tcp://router:5601\""), "instances[0].kv_events.listen: "),
        (
            events("listen = \"tcp://0.0.0.0:1\", endpoint = \"tcp://a:1\""),
            "instances[0].kv_events.listen: is there beside",
        ),
    ] {
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].starts_with(path), "{text}: {found:#?}");
    }
    let two = events("listen = \"tcp://0.0.0.0:5601\"");
    let two = format!("{two}{}", two.replace("\"a\"", "\"b\"").replace("a:8000", "b:8000"));
    assert!(problems(&two)[0].starts_with("instances[1].kv_events.listen: "), "{:#?}", problems(&two));
}

#[test]
fn weights_and_intervals_make_sense() {
    for (text, path) in [
        ("[routing.tier_weights]\ncpu = 1.5\n", "routing.tier_weights.cpu: 1.5 is not from 0 to 1"),
        ("[routing.tier_weights]\nstorage = 0.9\n", "routing.tier_weights.storage: 0.9 is more than"),
        ("[routing.tier_weights]\ndisk = 0.9\n", "routing.tier_weights.disk: unknown field"),
        (
            "[watch]\nload_interval_busy_ms = 100\nload_interval_idle_ms = 10\n",
            "watch.load_interval_idle_ms: 10 ms is less",
        ),
        ("[watch]\ndiscover_kv_events = 1\n", "watch.discover_kv_events: "),
        ("[routing]\napproximate_blocks_max = 0\n", "routing.approximate_blocks_max: is 0"),
    ] {
        let found = problems(&format!("{text}{INSTANCE}"));
        assert!(found.len() == 1 && found[0].starts_with(path), "{text}: {found:#?}");
    }
    let never = Config::parse(&format!("[watch]\nload_interval_busy_ms = 0\n{INSTANCE}")).unwrap();
    assert_eq!(never.watch.load, None);
}

/// What the schema says is wrong with a file.
fn refused_by_schema(text: &str) -> Vec<String> {
    let validator = jsonschema::validator_for(&Config::schema()).unwrap();
    let file: serde_json::Value = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
    validator.iter_errors(&file).map(|error| format!("{} {error}", error.instance_path())).collect()
}

#[test]
fn the_schema_takes_the_example_and_what_is_commented_out_in_it_and_refuses_what_the_checks_refuse() {
    assert_eq!(refused_by_schema(Config::EXAMPLE), [""; 0]);
    // Settings that are comments in the example are taken, too.
    let is_setting = |line: &str| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        line.starts_with("[[")
            || line.starts_with("[recorder]")
            || line
                .split(" = ")
                .next()
                .is_some_and(|name| line.contains(" = ") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let all: Vec<&str> = Config::EXAMPLE
        .lines()
        .map(|line| if is_setting(line) { line.strip_prefix("# ").unwrap_or(line) } else { line })
        .collect();
    let all = all.join("\n");
    assert!(
        all.contains("\n[[discovery.kubernetes]]") && all.contains("\n[[tokenizers]]") && all.contains("\n[recorder]")
    );
    assert_eq!(refused_by_schema(&all), [""; 0], "{all}");

    for (wrong, place) in [
        ("[server]\nlisen = \"127.0.0.1:1\"\n", "/server"),
        ("typo = 1\n", ""),
        ("[routing]\nblock_size = \"16\"\n", "/routing/block_size"),
        ("[routing]\nlease_seconds = 0\n", "/routing/lease_seconds"),
        ("[[instances]]\nname = \"a\"\nurl = \"http://a:1\"\n", "/instances/0"),
        ("[[discovery.dns]]\nname = \"a\"\n", "/discovery/dns/0"),
        ("[tracing]\nsample_ratio = 2.0\n", "/tracing/sample_ratio"),
        ("[logs]\nrequests = \"yes\"\n", "/logs/requests"),
    ] {
        let refused = refused_by_schema(wrong);
        assert!(!refused.is_empty() && refused.iter().all(|error| error.starts_with(place)), "{wrong}: {refused:?}");
        assert!(Config::parse(&format!("{wrong}{INSTANCE}")).is_err(), "{wrong}");
    }
}

#[cfg(feature = "kubernetes")]
#[test]
fn where_instances_are_found_is_read_and_checked() {
    let template =
        "instance = { model = \"m\", protocol = \"grpc\", kv_events_port = 5557, kv_events_topic = \"kv\" }\n";
    let text = format!(
        "[discovery]\nempty_seconds = 7\ndrain_seconds = 8\n[[discovery.file]]\npath = \"/a.json\"\n\
         [[discovery.dns]]\nname = \"_http._tcp.a\"\nserver = \"[::1]:53\"\ninterval_min_seconds = 2\n{template}\
         [[discovery.kubernetes]]\npods = \"app=a\"\nport = 8000\n{template}"
    );
    let discovery = Config::parse(&text).unwrap().discovery;
    assert_eq!((discovery.empty_for.as_secs(), discovery.drain_max.as_secs()), (7, 8));
    let names: Vec<String> = discovery.sources.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["file /a.json", "dns _http._tcp.a", "kubernetes (own namespace) pods app=a port 8000"]);
    let Source::Dns(dns) = &discovery.sources[1] else { panic!("{discovery:?}") };
    assert_eq!((dns.port, dns.interval_min.as_secs(), dns.interval_max.as_secs()), (None, 2, 60));
    let [found] = &dns.template.instances("pod", "fd00::1", 8000).unwrap()[..] else { panic!("there is one") };
    assert_eq!((found.name.as_str(), found.url.as_str()), ("pod", "grpc://[fd00::1]:8000"));
    let events = found.kv_events.as_ref().unwrap();
    assert_eq!((events.endpoint.to_string().as_str(), events.topic.as_str()), ("tcp://[fd00::1]:5557", "kv"));

    let wrong = "[[discovery.file]]\n[[discovery.dns]]\nname = \"a b\"\nport = 0\ninstance = { model = \"\" }\n\
                 [[discovery.dns]]\nname = \"_a\"\nport = 1\ninterval_min_seconds = 9\ninterval_max_seconds = 8\nserver = \"x\"\n\
                 [[discovery.kubernetes]]\nservice = \"a\"\npods = \"b\"\ninstance = { model = \"m\", protocol = \"ftp\", kv_events_topic = \"t\" }\n\
                 [tracing]\nendpoint = \"collector\"\nsample_ratio = 2\nqueue_spans_max = 0\n[logs]\nformat = \"xml\"\n";
    let found = problems(wrong);
    let paths: Vec<&str> = found.iter().map(|problem| problem.split(": ").next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "discovery.file[0].path",
            "discovery.dns[0].name",
            "discovery.dns[0].port",
            "discovery.dns[0].port",
            "discovery.dns[0].instance.model",
            "discovery.dns[1].port",
            "discovery.dns[1].server",
            "discovery.dns[1].interval_max_seconds",
            "discovery.dns[1].instance",
            "discovery.kubernetes[0]",
            "discovery.kubernetes[0].port",
            "discovery.kubernetes[0].instance.protocol",
            "discovery.kubernetes[0].instance.kv_events_port",
            "logs.format",
            "tracing.endpoint",
            "tracing.sample_ratio",
            "tracing.queue_spans_max",
        ],
        "{found:?}"
    );
}
