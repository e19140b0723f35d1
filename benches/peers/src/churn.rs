//! Memory as blocks come and go.

use crate::Asked;
use crate::contenders::{Chain, Contender, Crtc, Positional, Radix, Warmpath};
use crate::measure::{counting, live_bytes};
use crate::workload::{Block, Random, Removed, Stored, chain};
use std::collections::VecDeque;

/// Memory over so many blocks of churn at a residency of a million, 64 instances: prompts of 64 to 384 blocks, behind 32
/// that all share.
pub fn run(blocks: usize, asked: &Asked) {
    println!("\nchurn: bytes per resident (block, instance) pair as blocks come and go, residency 1,000,000");
    let all: [(&str, fn(usize) -> String); 5] = [
        (Warmpath::name(), churn_of::<Warmpath>),
        (Chain::name(), churn_of::<Chain>),
        (Crtc::name(), churn_of::<Crtc>),
        (Radix::name(), churn_of::<Radix>),
        (Positional::name(), churn_of::<Positional>),
    ];
    for (name, churn) in all.into_iter().filter(|(name, _)| asked.contender(name)) {
        eprintln!("churn: {name}");
        println!("{}", churn(blocks));
    }
}

fn churn_of<C: Contender>(blocks: usize) -> String {
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
