//! One scenario: a workload, every contender, one table.

use crate::contenders::{Chain, Contender, Crtc, Positional, Radix, Warmpath};
use crate::measure::{THIS_THREAD, counting, cpu, live_bytes, quantile, tick_ns, ticks};
use crate::table::Row;
use crate::workload::Workload;
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
        let done = AtomicBool::new(false);
        let (written, read) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (start, mut count) = (cpu(THIS_THREAD), 0);
                while !done.load(Ordering::Relaxed) {
                    queries.iter().take_while(|_| !done.load(Ordering::Relaxed)).for_each(|query| {
                        reader(query);
                        count += 1;
                    });
                }
                per(cpu(THIS_THREAD) - start, count)
            });
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
pub fn run(name: &str, workload: &Workload, rounds: usize) {
    let tick = tick_ns();
    let all: [fn(&Workload, f64) -> Box<dyn Runner>; 5] =
        [start::<Warmpath>, start::<Chain>, start::<Crtc>, start::<Radix>, start::<Positional>];
    let mut runners: Vec<Box<dyn Runner>> = all.iter().map(|start| start(workload, tick)).collect();
    for round in 0..rounds {
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
pub fn tokens() {
    println!("\nfrom 32,768 tokens to the longest prefix, 64 instances (microseconds: held / held by nobody)");
    let ours = tokens_of::<Warmpath>();
    for (name, [held, unknown]) in
        [ours, tokens_of::<Chain>(), tokens_of::<Crtc>(), tokens_of::<Radix>(), tokens_of::<Positional>()]
    {
        let (held_ratio, unknown_ratio) = (held / ours.1[0], unknown / ours.1[1]);
        println!("{name:22} {held:>8.1} {unknown:>8.1}   x{held_ratio:.1} x{unknown_ratio:.0}");
    }
}

fn tokens_of<C: Contender>() -> (&'static str, [f64; 2]) {
    use crate::workload::{Random, Stored, chain};
    let mut random = Random(1);
    let mut prompt = || (0..32_768).map(|_| random.below(150_000) as u32).collect::<Vec<u32>>();
    let (tokens, unknown) = (prompt(), prompt());
    let blocks = chain(tokens.chunks(16).map(C::content_of).collect());
    let mut contender = C::new(64);
    let events = (0..64)
        .map(|instance| {
            let blocks = if instance % 8 == 0 { blocks.clone() } else { blocks[..blocks.len() / 4].to_vec() };
            contender.stored(&Stored { instance, parent: None, blocks })
        })
        .collect();
    contender.apply(events);
    let tick = tick_ns();
    let median = [&tokens, &unknown].map(|tokens| {
        let mut times: Vec<f64> = (0..300)
            .map(|_| {
                let start = ticks();
                contender.find_tokens(tokens);
                std::hint::black_box(contender.best());
                (ticks() - start) as f64 * tick / 1000.0
            })
            .collect();
        quantile(&mut times, 0.5)
    });
    (C::name(), median)
}

/// Memory over 20 million blocks of churn at a residency of a million, 64 instances: prompts of 256 blocks, a shared eighth.
pub fn churn(blocks: usize) {
    println!("\nchurn: bytes per resident (block, instance) pair as blocks come and go, residency 1,000,000");
    for line in
        [churn_of::<Warmpath>(blocks), churn_of::<Chain>(blocks), churn_of::<Crtc>(blocks), churn_of::<Radix>(blocks)]
    {
        println!("{line}");
    }
}

fn churn_of<C: Contender>(blocks: usize) -> String {
    use crate::workload::{Block, Random, Removed, Stored, chain};
    use std::collections::VecDeque;
    const RESIDENT: usize = 1_000_000;
    // What this function itself remembers does not count.
    let report = |resident: &VecDeque<(u16, Vec<Block>)>, held: usize| {
        let own: usize = resident.iter().map(|(_, blocks)| blocks.capacity() * size_of::<Block>()).sum();
        let queue = resident.capacity() * size_of::<(u16, Vec<Block>)>();
        format!(" {:>7.1}", (live_bytes() - (own + queue) as isize) as f64 / held as f64)
    };
    let (mut random, mut total) = (Random(9), 0);
    let shared: Vec<u64> = (0..32).map(|_| random.next()).collect();
    counting(true);
    let mut contender = C::new(64);
    let mut resident: VecDeque<(u16, Vec<Block>)> = VecDeque::new();
    let (mut held, mut next_report) = (0, RESIDENT);
    let mut line = format!("{:22}", C::name());
    while total < blocks {
        let mut events = Vec::new();
        for _ in 0..64 {
            // Lengths vary, as prompts do, and instances keep the shared part for good.
            let (instance, own) = (random.below(64) as u16, 64 + random.below(320));
            let contents = shared.iter().copied().chain((0..own).map(|_| random.next())).collect();
            let all = chain(contents);
            events.push(contender.stored(&Stored { instance, parent: None, blocks: all.clone() }));
            resident.push_back((instance, all[32..].to_vec()));
            held += own;
            total += own;
            while held > RESIDENT {
                let (instance, blocks) = resident.pop_front().expect("something is resident");
                held -= blocks.len();
                let removed = blocks.iter().rev().map(|block| Removed { instance, name: block.name });
                events.extend(removed.map(|removed| contender.removed(&removed)));
            }
        }
        contender.apply(events);
        if total >= next_report {
            line += &report(&resident, held);
            next_report = (next_report * 2).max(total / RESIDENT * RESIDENT + RESIDENT);
        }
    }
    line += &report(&resident, held);
    drop((contender, resident));
    counting(false);
    line
}
