//! What anonymous traces keep, and what they do not.

use proptest::prelude::*;
use std::collections::HashSet;
use std::time::Duration;
use warmpath::routing::block::{BlockSize, ContentHash};
use warmpath::trace::{Anonymizer, Provenance, Record, Salt, Target, Writer};

fn shared(one: &Record, other: &Record) -> usize {
    one.blocks.iter().zip(&other.blocks).take_while(|(a, b)| a == b).count()
}

/// Requests that share prefixes, with ids, names and times that are easy to recognise.
fn records(prompts: &[Vec<u64>]) -> Vec<Record> {
    const RECOGNISABLE: u64 = 7_777_000_000;
    let record = |(index, prompt): (u64, &Vec<u64>)| Record {
        at: Duration::from_secs(RECOGNISABLE + index),
        prompt_tokens: prompt.len() as u32 * 16,
        output_tokens: 9,
        blocks: prompt.iter().map(|id| ContentHash(RECOGNISABLE + id)).collect(),
        chat: Some(RECOGNISABLE + index),
        parent: (index % 3 != 0).then(|| RECOGNISABLE + index - 1),
        ..Record::default()
    };
    (0..).zip(prompts).map(record).collect()
}

/// All numbers in a text.
fn numbers(text: &str) -> HashSet<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

proptest! {
    #[test]
    fn sharing_is_kept_and_nothing_else(
        prompts in prop::collection::vec(prop::collection::vec(0..4_u64, 1..8), 1..20),
        salt in any::<[u8; 16]>(),
    ) {
        let before = records(&prompts);
        let mut anonymizer = Anonymizer::new(Salt::new(salt));
        let after: Vec<Record> = before.iter().map(|record| anonymizer.anonymize(record)).collect();
        for (index, (one, one_before)) in after.iter().zip(&before).enumerate() {
            prop_assert_eq!(one.chat, Some(index as u64));
            prop_assert_eq!(one.parent, (index % 3 != 0).then(|| index as u64 - 1));
            prop_assert_eq!(one.at, Duration::from_secs(index as u64));
            for (other, other_before) in after.iter().zip(&before) {
                prop_assert_eq!(shared(one, other), shared(one_before, other_before));
            }
        }
        // Numbered by first appearance: the salt leaves no trace.
        let mut highest = None;
        for block in after.iter().flat_map(|record| &record.blocks) {
            prop_assert!(Some(block.0) <= highest.map_or(Some(0), |highest: u64| Some(highest + 1)));
            highest = highest.max(Some(block.0));
        }
        for target in Target::ALL {
            let mut writer = Writer::new(Vec::new(), target, BlockSize::DEFAULT, &Provenance::Real).unwrap();
            after.iter().for_each(|record| writer.write(record).unwrap());
            let text = String::from_utf8(writer.finish().unwrap()).unwrap();
            let found = numbers(&text);
            for record in &before {
                let originals = record.blocks.iter().map(|block| block.0).chain(record.chat);
                for original in originals {
                    prop_assert!(!found.contains(&original), "{original} is in the output");
                }
            }
        }
    }
}
