//! One scenario: a workload, every contender, one table.

use crate::Asked;
use crate::contenders::{Chain, Contender, Crtc, Positional, Radix, Warmpath};
use crate::measure::{THIS_THREAD, counting, cpu, live_bytes, quantile, tick_ns, ticks};
use crate::table::Row;
use crate::workload::Workload;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Queries a contender answers before the next one has its turn.
const TURN: usize = 4096;

/// A contender that is ready for queries, whatever its type.
trait Runner {
    fn store(&mut self, workload: &Workload);
    fn turn(&mut self, prompts: &[Vec<u64>], full: bool);
    fn mix(&mut self, workload: &Workload);
    fn remove(&mut self, workload: &Workload);
    fn row(self: Box<Self>) -> Row;
}

struct Running<C: Contender> {
    contender: C,
    query: <C::Query as ToOwned>::Owned,
    row: Row,
    tick: f64,
}

impl<C: Contender> Runner for Running<C> {
    fn store(&mut self, workload: &Workload) {
        self.contender = C::new(workload.instances);
        let events: Vec<C::Event> = workload.stored.iter().map(|stored| self.contender.stored(stored)).collect();
        self.row.store_ns.push(per(self.contender.apply(events), workload.entries));
    }

    fn turn(&mut self, prompts: &[Vec<u64>], full: bool) {
        let times = if full { &mut self.row.full_ns } else { &mut self.row.arrival_ns };
        for prompt in prompts {
            C::query(prompt, &mut self.query);
            let start = ticks();
            self.contender.find(&self.query);
            times.push((ticks() - start) as f64 * self.tick);
            self.row.found += u64::from(self.contender.best().1);
        }
    }

    /// A third of the blocks are removed and stored again, while another thread looks up without a pause.
    fn mix(&mut self, workload: &Workload) {
        let Some(mut reader) = self.contender.reader() else { return };
        let part = workload.stored.len() * 2 / 3..workload.stored.len();
        let last = workload.stored[part.clone()].iter().rev().flat_map(|stored| {
            let names = stored.blocks.iter().rev().map(|block| block.name);
            names.map(|name| crate::workload::Removed { instance: stored.instance, name })
        });
        let mut events: Vec<C::Event> = last.map(|removed| self.contender.removed(&removed)).collect();
        let blocks = events.len() * 2;
        events.extend(workload.stored[part].iter().map(|stored| self.contender.stored(stored)));
        let queries: Vec<<C::Query as ToOwned>::Owned> = workload
            .prompts
            .iter()
            .step_by(7)
            .map(|prompt| {
                let mut query = Default::default();
                C::query(prompt, &mut query);
                query
            })
            .collect();
        // Small workloads are written before a thread has started, so both wait for the first lookup.
        let (done, begun) = (AtomicBool::new(false), Barrier::new(2));
        let (written, read) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                reader(&queries[0]);
                begun.wait();
                let (start, mut count) = (cpu(THIS_THREAD), 0);
                while !done.load(Ordering::Relaxed) {
                    queries.iter().take_while(|_| !done.load(Ordering::Relaxed)).for_each(|query| {
                        reader(query);
                        count += 1;
                    });
                }
                per(cpu(THIS_THREAD) - start, count.max(1))
            });
            begun.wait();
            let written = per(self.contender.apply(events), blocks);
            done.store(true, Ordering::Relaxed);
            (written, reader.join().expect("the reader reads to the end"))
        });
        self.row.mix_write_ns.push(written);
        self.row.mix_read_ns.push(read);
    }

    fn remove(&mut self, workload: &Workload) {
        let events: Vec<C::Event> = workload.removed.iter().map(|removed| self.contender.removed(removed)).collect();
        self.row.remove_ns.push(per(self.contender.apply(events), workload.removed.len()));
    }

    fn row(self: Box<Self>) -> Row {
        self.row
    }
}

fn per(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count as f64
}

/// A contender with its memory measured, in a copy that is gone again: counting costs time.
fn start<C: Contender + 'static>(workload: &Workload, tick: f64) -> Box<dyn Runner> {
    let mut row = Row { name: C::name(), ..Row::default() };
    counting(true);
    let mut contender = C::new(workload.instances);
    for stored in workload.stored.chunks(256) {
        let events = stored.iter().map(|stored| contender.stored(stored)).collect();
        contender.apply(events);
    }
    row.bytes = live_bytes() as f64 / workload.entries as f64;
    drop(contender);
    counting(false);
    Box::new(Running { contender: C::new(workload.instances), query: Default::default(), row, tick })
}

/// Measures every contender on `workload`, `rounds` times in turns, and prints the table.
pub fn run(name: &str, workload: &Workload, rounds: usize, asked: &Asked) {
    let tick = tick_ns();
    type Start = fn(&Workload, f64) -> Box<dyn Runner>;
    let all: [(&str, Start); 5] = [
        (Warmpath::name(), start::<Warmpath>),
        (Chain::name(), start::<Chain>),
        (Crtc::name(), start::<Crtc>),
        (Radix::name(), start::<Radix>),
        (Positional::name(), start::<Positional>),
    ];
    eprintln!("{name}: memory");
    let all = all.into_iter().filter(|(contender, _)| asked.contender(contender));
    let mut runners: Vec<Box<dyn Runner>> = all.map(|(_, start)| start(workload, tick)).collect();
    for round in 0..rounds {
        eprintln!("{name}: round {} of {rounds}", round + 1);
        // Who is first changes, so that nobody always has the memory that another has just left.
        runners.rotate_left(1);
        runners.iter_mut().for_each(|runner| runner.store(workload));
        for (prompts, full) in [(&workload.prompts, true), (&workload.arrivals, false)] {
            for prompts in prompts.chunks(TURN) {
                runners.iter_mut().for_each(|runner| runner.turn(prompts, full));
            }
        }
        if round == 0 {
            runners.iter_mut().for_each(|runner| runner.mix(workload));
        }
        runners.iter_mut().for_each(|runner| runner.remove(workload));
    }
    let back = rounds % runners.len();
    runners.rotate_right(back);
    let rows = runners.into_iter().map(|runner| runner.row()).collect();
    println!(
        "\n{name}: {} requests, {} (block, instance) pairs, {} distinct blocks",
        workload.prompts.len(),
        workload.entries,
        workload.distinct
    );
    crate::table::print(rows);
}

/// From 32,768 tokens to the instance with the longest prefix, at 64 instances: held in full by eight of them and by a
/// quarter by the rest, and not held at all.
pub fn tokens(asked: &Asked) {
    println!("\nfrom 32,768 tokens to the longest prefix, 64 instances (microseconds: held / held by nobody)");
    let all: [(&str, fn() -> Lookup); 5] = [
        (Warmpath::name(), Lookup::of::<Warmpath>),
        (Chain::name(), Lookup::of::<Chain>),
        (Crtc::name(), Lookup::of::<Crtc>),
        (Radix::name(), Lookup::of::<Radix>),
        (Positional::name(), Lookup::of::<Positional>),
    ];
    let mut all: Vec<(&str, Lookup, [Vec<f64>; 2])> = all
        .into_iter()
        .filter(|(name, _)| asked.contender(name))
        .map(|(name, lookup)| (name, lookup(), Default::default()))
        .collect();
    for _ in 0..20 {
        for (_, Lookup(lookup), times) in &mut all {
            for _ in 0..15 {
                times.iter_mut().zip(lookup()).for_each(|(times, time)| times.push(time));
            }
        }
    }
    let medians: Vec<(&str, [f64; 2])> =
        all.into_iter().map(|(name, _, times)| (name, times.map(|mut times| quantile(&mut times, 0.5)))).collect();
    let ours = medians[0].1;
    for (name, [held, unknown]) in medians {
        println!("{name:22} {held:>8.2} {unknown:>8.2}   x{:.1} x{:.0}", held / ours[0], unknown / ours[1]);
    }
}

/// How long two prompts take to look up, in microseconds, each time that it is called.
struct Lookup(Box<dyn FnMut() -> [f64; 2]>);

impl Lookup {
    fn of<C: Contender + 'static>() -> Self {
        use crate::workload::{Random, Stored, chain};
        let mut random = Random(1);
        let mut prompt = || (0..32_768).map(|_| random.below(150_000) as u32).collect::<Vec<u32>>();
        let prompts = [prompt(), prompt()];
        let blocks = chain(prompts[0].chunks(16).map(C::content_of).collect());
        let mut contender = C::new(64);
        let events = (0..64)
            .map(|instance| {
                let blocks = if instance % 8 == 0 { blocks.clone() } else { blocks[..blocks.len() / 4].to_vec() };
                contender.stored(&Stored { instance, parent: None, blocks })
            })
            .collect();
        contender.apply(events);
        let tick = tick_ns();
        Lookup(Box::new(move || {
            [0, 1].map(|prompt: usize| {
                let start = ticks();
                contender.find_tokens(&prompts[prompt]);
                std::hint::black_box(contender.best());
                (ticks() - start) as f64 * tick / 1000.0
            })
        }))
    }
}
