//! Keeps every series of one app, and writes them all in Prometheus's text format.
//!
//! A series is one atomic number, and the text that stands before it on its line, so that counting is one addition and a
//! page of sixty thousand lines is little more than a copy. Which series there are is known when they are registered: only
//! the values change, until an instance is forgotten with all its series. The texts of a family lie in one string, in the order
//! in which they are written: with one of its own for each, half of the time went to fetching them.
//!
//! Absent on purpose: series made up while serving, expiry, other formats.

use super::declaration::{Kind, Metric};
use super::labels::Label;
use parking_lot::RwLock;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds to it.
    pub fn increment(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets what is counted elsewhere; never back.
    pub fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

/// A number that comes and goes.
#[derive(Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// What it is now.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// How often a time fell between which bounds.
#[derive(Clone)]
pub(crate) struct Histogram(Arc<Distribution>);

struct Distribution {
    /// Upper bounds in seconds, ascending.
    bounds: &'static [f64],
    /// One for each bound, and one for what is above them all; not cumulative.
    counts: Box<[AtomicU64]>,
    sum_nanoseconds: AtomicU64,
}

impl Histogram {
    /// A time, in seconds.
    pub fn record(&self, seconds: f64) {
        let Distribution { bounds, counts, sum_nanoseconds } = &*self.0;
        let at = bounds.partition_point(|&bound| bound < seconds);
        counts[at].fetch_add(1, Ordering::Relaxed);
        sum_nanoseconds.fetch_add((seconds * 1e9) as u64, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Counts {
        let Distribution { bounds, counts, .. } = &*self.0;
        Counts { bounds, counts: counts.iter().map(|count| count.load(Ordering::Relaxed)).collect() }
    }
}

/// A histogram as it was at some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    bounds: &'static [f64],
    /// One more than there are bounds; none at all before anything was read.
    counts: Vec<u64>,
}

impl Counts {
    /// What was added since `earlier`, a reading of the same histogram.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(before).map(|(now, before)| now - before).collect();
        Counts { bounds: self.bounds, counts }
    }

    /// The value below which this share lies, in seconds: between two bounds as far as the count, above them all the last
    /// one. `None` when nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.counts.iter().sum();
        if total == 0 {
            return None;
        }
        let (rank, mut below, mut from) = (share * total as f64, 0.0, 0.0);
        for (&count, &to) in self.counts.iter().zip(self.bounds) {
            let count = count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(from + (to - from) * ((rank - below) / count).max(0.0));
            }
            (below, from) = (below + count, to);
        }
        Some(from)
    }
}

/// One metric for each value of a label.
#[derive(Debug)]
pub(crate) struct PerLabel<L, M> {
    metrics: Vec<M>,
    label: std::marker::PhantomData<L>,
}

impl<L: Label, M> PerLabel<L, M> {
    fn new(metric: impl Fn(L) -> M) -> Self {
        PerLabel { metrics: L::ALL.iter().map(|&value| metric(value)).collect(), label: std::marker::PhantomData }
    }

    /// The one for this value.
    pub fn of(&self, value: L) -> &M {
        &self.metrics[value.position()]
    }
}

impl<L: Label> PerLabel<L, Gauge> {
    /// 1 for this value, 0 for the others.
    pub fn only(&self, value: L) {
        for (position, gauge) in self.metrics.iter().enumerate() {
            gauge.set(if position == value.position() { 1.0 } else { 0.0 });
        }
    }
}

/// A label and its value.
type Pair<'a> = (&'static str, &'a str);

/// The series of one app.
pub(crate) struct Registry {
    /// By position in [`Metric::ALL`].
    families: RwLock<Vec<Family>>,
}

/// The series of one metric.
#[derive(Default)]
struct Family {
    /// Everything before each value: `name{label="value"} `. For a histogram only the labels, without braces.
    heads: String,
    series: Vec<Series>,
}

struct Series {
    /// Where its head ends in its family's, and the next one's begins.
    head_end: usize,
    value: Value,
}

enum Value {
    Whole(Arc<AtomicU64>),
    Real(Arc<AtomicU64>),
    Distribution(Arc<Distribution>),
}

impl Registry {
    /// No series.
    pub fn new() -> Self {
        Registry { families: RwLock::new(Metric::ALL.iter().map(|_| Family::default()).collect()) }
    }

    pub fn counter(&self, metric: Metric, instance: Option<&str>, value: Option<Pair<'_>>) -> Counter {
        debug_assert!(matches!(metric.declaration().1, Kind::Counter));
        let counter = Counter::default();
        self.add(metric, &pairs(instance, value), Value::Whole(Arc::clone(&counter.0)));
        counter
    }

    pub fn gauge(&self, metric: Metric, instance: Option<&str>, value: Option<Pair<'_>>) -> Gauge {
        debug_assert!(matches!(metric.declaration().1, Kind::Gauge));
        self.real(metric, &pairs(instance, value))
    }

    /// A counter of parts, such as seconds, that is counted elsewhere.
    pub fn total(&self, metric: Metric) -> Gauge {
        debug_assert!(matches!(metric.declaration().1, Kind::Counter));
        self.real(metric, &[])
    }

    /// A fact in labels; its value is always 1.
    pub fn info(&self, metric: Metric, labels: &[Pair<'_>]) {
        debug_assert!(matches!(metric.declaration().1, Kind::Gauge));
        self.real(metric, labels).set(1.0);
    }

    /// The same of a fact that changes: in the place of what was said before.
    pub fn info_in_place(&self, metric: Metric, labels: &[Pair<'_>]) {
        self.families.write()[metric.position()] = Family::default();
        self.info(metric, labels);
    }

    /// What an instance serves, in the place of what was said of it before.
    pub fn instance_info(&self, metric: Metric, instance: &str, model: &str) {
        let said = beginning(metric, instance);
        self.families.write()[metric.position()].forget(&said);
        self.info(metric, &[("instance", instance), ("model", model)]);
    }

    pub fn histogram(&self, metric: Metric, value: Option<Pair<'_>>) -> Histogram {
        let Kind::Histogram(bounds) = metric.declaration().1 else {
            unreachable!("{metric:?} is not declared as a histogram");
        };
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let distribution = Arc::new(Distribution { bounds, counts, sum_nanoseconds: AtomicU64::new(0) });
        self.add(metric, &pairs(None, value), Value::Distribution(Arc::clone(&distribution)));
        Histogram(distribution)
    }

    pub fn counters<L: Label>(&self, metric: Metric, instance: Option<&str>) -> PerLabel<L, Counter> {
        PerLabel::new(|value: L| self.counter(metric, instance, Some(pair(value))))
    }

    /// Counters by a second label beside this one.
    pub fn counters_of<L: Label>(&self, metric: Metric, first: impl Label) -> PerLabel<L, Counter> {
        PerLabel::new(|second: L| {
            let counter = Counter::default();
            let labels = [pair(first), pair(second)];
            self.add(metric, &labels, Value::Whole(Arc::clone(&counter.0)));
            counter
        })
    }

    pub fn gauges<L: Label>(&self, metric: Metric, instance: &str) -> PerLabel<L, Gauge> {
        PerLabel::new(|value: L| self.gauge(metric, Some(instance), Some(pair(value))))
    }

    /// Gauges of the whole app.
    pub fn gauges_of_all<L: Label>(&self, metric: Metric) -> PerLabel<L, Gauge> {
        PerLabel::new(|value: L| self.gauge(metric, None, Some(pair(value))))
    }

    pub fn histograms<L: Label>(&self, metric: Metric) -> PerLabel<L, Histogram> {
        PerLabel::new(|value: L| self.histogram(metric, Some(pair(value))))
    }

    /// An instance is shown no more.
    pub fn forget(&self, instance: &str) {
        for (&metric, family) in Metric::ALL.iter().zip(self.families.write().iter_mut()) {
            family.forget(&beginning(metric, instance));
        }
    }

    /// All of it, in the order of the declaration, in Prometheus's text format 0.0.4.
    pub fn render(&self) -> String {
        let families = self.families.read();
        // A number takes some bytes more than its head, a line of a histogram some more.
        let heads = families.iter().map(|family| family.heads.len() + 8 * family.series.len()).sum::<usize>();
        let mut page = String::with_capacity(heads + families.len() * 1024);
        for (metric, family) in Metric::ALL.iter().zip(families.iter()).filter(|(_, family)| !family.series.is_empty())
        {
            let (name, kind, _, help) = metric.declaration();
            writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", kind.name()).expect(TAKES_ALL);
            family.write(name, &mut page);
        }
        page
    }

    fn real(&self, metric: Metric, labels: &[Pair<'_>]) -> Gauge {
        let gauge = Gauge::default();
        self.add(metric, labels, Value::Real(Arc::clone(&gauge.0)));
        gauge
    }

    fn add(&self, metric: Metric, labels: &[Pair<'_>], value: Value) {
        let written: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = written.join(",");
        let head = match (&value, labels.as_str()) {
            (Value::Distribution(_), labels) => labels.into(),
            (_, "") => format!("{} ", metric.declaration().0),
            (_, labels) => format!("{}{{{labels}}} ", metric.declaration().0),
        };
        let family = &mut self.families.write()[metric.position()];
        family.heads.push_str(&head);
        family.series.push(Series { head_end: family.heads.len(), value });
    }
}

impl Family {
    /// Series whose head begins so are no more.
    fn forget(&mut self, beginning: &str) {
        let (mut heads, mut from) = (String::with_capacity(self.heads.len()), 0);
        self.series.retain_mut(|series| {
            let head = &self.heads[from..series.head_end];
            from = series.head_end;
            let is_kept = !head.starts_with(beginning);
            if is_kept {
                heads.push_str(head);
                series.head_end = heads.len();
            }
            is_kept
        });
        self.heads = heads;
    }

    fn write(&self, name: &str, page: &mut String) {
        let mut from = 0;
        for Series { head_end, value } in &self.series {
            let head = &self.heads[from..*head_end];
            from = *head_end;
            match value {
                Value::Whole(value) => {
                    page.push_str(head);
                    write_whole(value.load(Ordering::Relaxed), page);
                }
                Value::Real(value) => {
                    page.push_str(head);
                    write_real(f64::from_bits(value.load(Ordering::Relaxed)), page);
                }
                Value::Distribution(distribution) => distribution.write(name, head, page),
            }
        }
    }
}

fn write_whole(value: u64, page: &mut String) {
    page.push_str(itoa::Buffer::new().format(value));
    page.push('\n');
}

fn write_real(value: f64, page: &mut String) {
    // Most are whole, and written so take a third less of a page's time.
    if (0.0..1e15).contains(&value) && value.trunc() == value {
        return write_whole(value as u64, page);
    }
    writeln!(page, "{value}").expect(TAKES_ALL);
}

impl Distribution {
    fn write(&self, name: &str, labels: &str, page: &mut String) {
        let Distribution { bounds, counts, sum_nanoseconds } = self;
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (at, count) in counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            match bounds.get(at) {
                Some(bound) => writeln!(page, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"),
                None => writeln!(page, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"),
            }
            .expect(TAKES_ALL);
        }
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let sum = sum_nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        writeln!(page, "{name}_sum{open}{labels}{close} {sum}\n{name}_count{open}{labels}{close} {total}")
            .expect(TAKES_ALL);
    }
}

const TAKES_ALL: &str = "a string takes everything";

fn pair<L: Label>(value: L) -> Pair<'static> {
    (L::NAME, value.name())
}

fn pairs<'a>(instance: Option<&'a str>, value: Option<Pair<'a>>) -> Vec<Pair<'a>> {
    instance.map(|name| ("instance", name)).into_iter().chain(value).collect()
}

/// What the series of an instance begin with, and no other's.
fn beginning(metric: Metric, instance: &str) -> String {
    format!("{}{{instance=\"{}\"", metric.declaration().0, escape(instance))
}

/// A label's value, as the text format wants it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::telemetry::labels::State;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let registry = Registry::new();
        let odd = registry.gauge(Metric::InstanceReady, Some("a\"\\\n"), None);
        odd.set(1.0);
        let histogram = registry.histogram(Metric::DecisionSeconds, None);
        [1e-6, 2e-6, 3e-6, 7.0].iter().for_each(|&seconds| histogram.record(seconds));
        let page = registry.render();
        for line in [
            "# TYPE warmpath_instance_ready gauge",
            r#"warmpath_instance_ready{instance="a\"\\\n"} 1"#,
            "# TYPE warmpath_decision_seconds histogram",
            // A bound belongs to what is below it.
            "warmpath_decision_seconds_bucket{le=\"0.000002\"} 2",
            "warmpath_decision_seconds_bucket{le=\"0.000005\"} 3",
            "warmpath_decision_seconds_bucket{le=\"0.1\"} 3",
            "warmpath_decision_seconds_bucket{le=\"+Inf\"} 4",
            "warmpath_decision_seconds_sum 7.000006",
            "warmpath_decision_seconds_count 4",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
        }
        assert_eq!(page.matches("# HELP").count(), 2, "{page}");
    }

    #[test]
    fn an_instance_is_forgotten_and_no_other_that_is_called_much_alike() {
        let registry = Registry::new();
        for name in ["a", "a-1", "b\"a"] {
            registry.gauge(Metric::InstanceReady, Some(name), None);
            registry.gauges::<State>(Metric::InstanceKnowledge, name);
        }
        registry.counter(Metric::PromptTokens, None, None);
        let before = registry.render();
        registry.forget("a");
        let after = registry.render();
        assert!(before.contains("{instance=\"a\"}") && before.contains("{instance=\"a\","));
        let kept: Vec<&str> = before.lines().filter(|line| !line.contains("{instance=\"a\"")).collect();
        assert_eq!(after.lines().collect::<Vec<_>>(), kept);
    }

    #[test]
    fn quantiles_lie_between_bounds() {
        let registry = Registry::new();
        let histogram = registry.histogram(Metric::RequestTtft, None);
        assert_eq!(histogram.read().quantile(0.5), None);
        (0..90).for_each(|_| histogram.record(0.2));
        let earlier = histogram.read();
        (0..10).for_each(|_| histogram.record(100.0));
        let all = histogram.read();
        let median = all.quantile(0.5).unwrap();
        assert!((0.1..0.25).contains(&median), "{median}");
        // Above the last bound nothing more is known.
        assert_eq!(all.quantile(0.99), Some(60.0));
        assert_eq!(all.since(&earlier).quantile(0.01), Some(60.0));
        assert_eq!(all.since(&all).quantile(0.5), None);
    }

    #[test]
    fn counters_never_go_back() {
        let registry = Registry::new();
        let counter = registry.counter(Metric::PromptTokens, None, None);
        counter.increment(5);
        counter.absolute(3);
        assert!(registry.render().contains("warmpath_prompt_tokens_total 5\n"));
    }
}
