//! What one scrape of `/metrics` costs the router, by fleet size. The ratio is to the same page from
//! `metrics-exporter-prometheus`, which is what a Rust service usually serves its metrics with.
//!
//! `cargo bench --bench scrape`; `-- --quick` does little and shows that it runs.
//!
//! The whole answer over HTTP, by the CPU time of the release binary (2 cores of an AMD EPYC, 2026-11-26): 0.31 ms at 100 instances (7,006
//! lines, 0.4 MB), which is 0.002 % of a core each 15 s; 2.1 ms at 1,000 (63,706 lines, 4.1 MB).

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warmpath::config::{Config, Endpoint, Instance, InstanceAccess, KvEvents};
use warmpath::serve::{App, Core};

/// How often Prometheus scrapes when nobody says.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(15);

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { 1 } else { 21 };
    println!(
        "{:>10} {:>8} {:>8} {:>12} {:>14} {:>8} {:>20}",
        "instances", "series", "KiB", "ms/scrape", "exporter's ms", "ratio", "of a core, each 15 s"
    );
    for instances in [10, 100, 1000] {
        let core = core(instances);
        let page = core.render_metrics();
        let exporter = exporter(&page);
        let handle = exporter.handle();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // Interleaved, so that a slow moment of the machine falls on both.
        for _ in 0..rounds {
            ours.push(time(|| core.render_metrics()));
            theirs.push(time(|| handle.render()));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "{instances:>10} {:>8} {:>8} {:>12.2} {:>14.2} {:>8.3} {:>18.3} %",
            page.lines().filter(|line| !line.starts_with('#')).count(),
            page.len() / 1024,
            ours.as_secs_f64() * 1e3,
            theirs.as_secs_f64() * 1e3,
            ours.as_secs_f64() / theirs.as_secs_f64(),
            ours.as_secs_f64() / SCRAPE_INTERVAL.as_secs_f64() * 100.0,
        );
    }
}

fn time(render: impl Fn() -> String) -> Duration {
    let began = Instant::now();
    black_box(render());
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A router of so many instances, none of which is there.
fn core(instances: u16) -> Arc<Core> {
    let events = Endpoint { host: "127.0.0.1".to_owned(), port: 1 };
    let instance = |number| Instance {
        name: format!("vllm-{number}.vllm.inference.svc.cluster.local"),
        url: format!("http://10.0.0.1:{}", 1000 + number),
        inference_url: None,
        data_parallel_rank: None,
        model: "m".to_owned(),
        kv_events: Some(KvEvents { endpoint: events.clone(), listens: false, replay: None, topic: String::new() }),
        access: InstanceAccess::default(),
    };
    let config = Config::own((0..instances).map(instance).collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(App::bind(config)).expect("the app binds").core()
}

/// The same series, but for the few histograms, in the exporter's keeping.
fn exporter(page: &str) -> PrometheusRecorder {
    const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);
    let recorder = PrometheusBuilder::new().build_recorder();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.contains("le=\"")) {
        let (series, value) = line.rsplit_once(' ').expect("a value stands last");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty());
        let label = |pair: &str| {
            let (name, value) = pair.split_once('=').expect("a label has a value");
            Label::new(name.to_owned(), value.trim_matches('"').to_owned())
        };
        let key = Key::from_parts(name.to_owned(), labels.map(label).collect::<Vec<_>>());
        if name.ends_with("_total") {
            recorder.register_counter(&key, &METADATA).increment(1);
        } else {
            recorder.register_gauge(&key, &METADATA).set(value.parse::<f64>().expect("a value is a number"));
        }
    }
    recorder
}
