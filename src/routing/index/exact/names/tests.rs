use super::*;
use crate::routing::block::EngineHash;
use crate::routing::fact::Tier;
use crate::routing::index::exact::run::RunId;
use proptest::prelude::*;
use std::collections::HashMap;

fn insert(names: &mut Names, name: Name, place: Place, budget: &Budget) {
    assert!(names.reserve(1, budget));
    let vacancy = names.locate(name).expect_err("it is not there yet");
    names.insert(vacancy, place, Copies::one(Tier::Cpu), budget);
}

fn place(number: u64) -> Place {
    Place::new(RunId(number as u32 % 1000 + 1), number as usize % 2048)
}

/// What is not there must be found not to be there, also when every bucket was passed over.
#[test]
fn an_absent_name_is_absent_from_a_small_table_after_any_churn() {
    let budget = Budget::new(usize::MAX);
    for kept in (1..400_u64).step_by(7) {
        let mut names = Names::default();
        for name in 0..kept + 400 {
            insert(&mut names, Name::of(EngineHash(name)), place(name), &budget);
            if let Some(old) = name.checked_sub(kept) {
                let slot = names.find(Name::of(EngineHash(old))).expect("it was put there");
                assert_eq!(names.get(slot), (place(old), Copies::one(Tier::Cpu)));
                names.remove(slot);
            }
            assert!(names.find(Name::of(EngineHash(name + 1))).is_none());
        }
        assert_eq!(names.len(), kept as usize);
    }
}

/// Growing keeps every name, gives back what it does not use, and takes no more than it says.
#[test]
fn a_table_grows_where_it_is() {
    let budget = Budget::new(usize::MAX);
    let mut names = Names::default();
    for number in 0..60_000_u64 {
        insert(&mut names, Name::of(EngineHash(number)), place(number), &budget);
    }
    assert_eq!((names.len(), names.bytes()), (60_000, budget.used()));
    assert!(names.bytes() < 60_000 * 26, "{} bytes", names.bytes());
    assert!(names.strays.iter().count() < 60, "{} found no bucket", names.strays.iter().count());
    let found: HashMap<u64, Place> = names.iter().map(|(name, place, _)| (name.mixed(), place)).collect();
    assert_eq!(found.len(), 60_000);
    for number in 0..60_000 {
        let name = Name::of(EngineHash(number));
        assert_eq!(names.get(names.find(name).expect("it is there")).0, place(number));
        assert_eq!(found[&name.mixed()], place(number));
    }
    // Filled to the brim, turned over, and emptied.
    let full = names.homes * SLOTS * FULL_PERCENT / 100;
    for number in 60_000..full as u64 + 200_000 {
        if number >= full as u64 {
            let slot = names.find(Name::of(EngineHash(number - full as u64))).expect("it is there");
            names.remove(slot);
        }
        insert(&mut names, Name::of(EngineHash(number)), place(number), &budget);
        assert_eq!(names.get(names.find(Name::of(EngineHash(number))).expect("it is there")).0, place(number));
    }
    for number in 200_000..full as u64 + 200_000 {
        names.remove(names.find(Name::of(EngineHash(number))).expect("it is there"));
    }
    assert_eq!((names.len(), names.iter().count(), names.strays.iter().count()), (0, 0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Remove(u64),
    Set(u64, u64),
}

/// Names that meet in a few homes: near the start, near the end, in the middle, so that buckets pass names on, run out of
/// reach, and names move past each other when the table grows.
fn crowded() -> impl Strategy<Value = u64> {
    let corner = prop::sample::select(&[0_u64, 1 << 58, 1 << 63, u64::MAX << 8][..]);
    (corner, 0..300_u64, prop::sample::select(&[4, 20, 50][..]))
        .prop_map(|(corner, number, shift)| corner.wrapping_add(number << shift))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => crowded().prop_map(Step::Insert),
        4 => crowded().prop_map(Step::Remove),
        1 => (crowded(), 0..5000_u64).prop_map(|(name, number)| Step::Set(name, number)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn crowded_names_are_kept_as_a_map_keeps_them(steps in prop::collection::vec(step(), 1..1500)) {
        let budget = Budget::new(usize::MAX);
        let (mut names, mut map) = (Names::default(), HashMap::new());
        for step in steps {
            match step {
                Step::Insert(mixed) => {
                    let name = Name::from_mixed(mixed);
                    if let std::collections::hash_map::Entry::Vacant(entry) = map.entry(name) {
                        insert(&mut names, name, *entry.insert(place(mixed >> 4)), &budget);
                    }
                }
                Step::Remove(mixed) => {
                    let name = Name::from_mixed(mixed);
                    let slot = names.find(name);
                    prop_assert_eq!(slot.map(|slot| names.get(slot).0), map.remove(&name));
                    slot.into_iter().for_each(|slot| names.remove(slot));
                }
                Step::Set(mixed, number) => {
                    let name = Name::from_mixed(mixed);
                    let slot = names.find(name);
                    prop_assert_eq!(slot.is_some(), map.contains_key(&name));
                    slot.into_iter().for_each(|slot| {
                        names.set(slot, place(number), Copies::MANY);
                        map.insert(name, place(number));
                    });
                }
            }
            prop_assert_eq!(names.len(), map.len());
        }
        let found: HashMap<Name, Place> = names.iter().map(|(name, place, _)| (name, place)).collect();
        prop_assert_eq!(found, map);
        prop_assert_eq!(names.bytes(), budget.used());
    }
}
