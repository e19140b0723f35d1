//! The codec against captured batches, the mock's encoder, and any bytes at all.

use proptest::prelude::*;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use warmpath::mock::wire::{self, WireEvent};
use warmpath::routing::block::EngineHash;
use warmpath::serve::kv_events::codec::{Batch, Event, ExtraKey, Place, Removed, Stored, decode};

fn data(file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm").join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every captured message: its file and what msgspec made of it.
fn captures() -> Vec<(String, Value)> {
    let manifest: Value = serde_json::from_slice(&data("manifest.json")).unwrap();
    let messages = manifest.as_array().unwrap().iter().flat_map(|scenario| scenario["messages"].as_array().unwrap());
    messages.map(|message| (message["file"].as_str().unwrap().to_owned(), message["decoded"].clone())).collect()
}

/// The payloads that are there, by folder.
fn payload_files() -> Vec<String> {
    let files = ["kv", "kv_bytes_cbor", "kv_dp", "kv_dup", "kv_lora"].into_iter().flat_map(|folder| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/vllm").join(folder);
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(move |name| format!("{folder}/{name}")).collect::<Vec<_>>()
    });
    files.collect()
}

#[test]
fn captured_batches_say_what_msgspec_says() {
    let captures = captures();
    let files: Vec<String> = captures.iter().map(|(file, _)| file.clone()).collect();
    let unnamed: Vec<String> = payload_files().into_iter().filter(|file| !files.contains(file)).collect();
    assert_eq!((files.len(), unnamed.as_slice()), (44, [].as_slice()), "{files:?}");
    for (file, decoded) in captures {
        let payload = data(&file);
        let batch = decode(&payload).unwrap_or_else(|error| panic!("{file}: {error}: {}", error.source));
        assert_eq!(batch.seconds, decoded[0].as_f64().unwrap(), "{file}");
        assert_eq!(batch.rank.map(u64::from), decoded[2].as_u64(), "{file}");
        let expected = decoded[1].as_array().unwrap();
        assert_eq!(batch.events.len(), expected.len(), "{file}");
        for (event, expected) in batch.events.iter().zip(expected) {
            check(event, expected, &file);
        }
    }
}

fn check(event: &Event<'_>, expected: &Value, file: &str) {
    match event {
        Event::Stored(stored) => {
            assert_eq!(expected["type"], "BlockStored", "{file}");
            assert_eq!(stored.blocks, hashes(&expected["block_hashes"]), "{file}");
            assert_eq!(stored.parent, hash(&expected["parent_block_hash"]), "{file}");
            let tokens: Vec<u64> = stored.tokens.iter().map(|&token| token.into()).collect();
            assert_eq!(serde_json::json!(tokens), expected["token_ids"], "{file}");
            assert_eq!(u64::from(stored.block_size), expected["block_size"].as_u64().unwrap(), "{file}");
            assert_eq!(stored.lora_name, expected["lora_name"].as_str(), "{file}");
            let keys = expected["extra_keys"].as_array().unwrap();
            assert_eq!(stored.extra_keys.len(), keys.len(), "{file}");
            for (keys, expected) in stored.extra_keys.iter().zip(keys) {
                let expected = expected.as_array().cloned().unwrap_or_default();
                let expected: Vec<_> = expected.iter().map(|key| ExtraKey::Text(key.as_str().unwrap())).collect();
                assert_eq!(*keys, expected, "{file}");
            }
            check_place(&stored.place, expected, file);
        }
        Event::Removed(removed) => {
            assert_eq!(expected["type"], "BlockRemoved", "{file}");
            assert_eq!(removed.blocks, hashes(&expected["block_hashes"]), "{file}");
            check_place(&removed.place, expected, file);
        }
        Event::Cleared => assert_eq!(expected["type"], "AllBlocksCleared", "{file}"),
        Event::Unknown => panic!("{file}: {expected} was not understood"),
    }
}

fn check_place(place: &Place<'_>, expected: &Value, file: &str) {
    assert_eq!(place.medium, expected["medium"].as_str(), "{file}");
    assert_eq!(place.group.map(u64::from), expected["group_idx"].as_u64(), "{file}");
    assert_eq!(place.attention, expected["kv_cache_spec_kind"].as_str(), "{file}");
    assert_eq!(place.window.map(u64::from), expected["kv_cache_spec_sliding_window"].as_u64(), "{file}");
}

fn hashes(values: &Value) -> Vec<EngineHash> {
    values.as_array().unwrap().iter().map(|value| hash(value).unwrap()).collect()
}

/// An integer, or the last 16 hex digits of a digest.
fn hash(value: &Value) -> Option<EngineHash> {
    match value {
        Value::Null => None,
        Value::Number(number) => number.as_u64().map(EngineHash),
        digest => {
            let hex = digest["bin_hex"].as_str().unwrap();
            Some(EngineHash(u64::from_str_radix(&hex[hex.len() - 16..], 16).unwrap()))
        }
    }
}

#[test]
fn a_digest_is_named_by_its_low_64_bits() {
    // The digests of tokens 100..164 in blocks of 32, recomputed from sha256_cbor's definition, end like this.
    let digests = data("kv_bytes_cbor/bytes_first.m0.f2.bin");
    let batch = decode(&digests).unwrap();
    let Event::Stored(stored) = &batch.events[0] else { panic!("{batch:?}") };
    assert_eq!(stored.blocks, [EngineHash(0x2f4f_3613_eeec_46ae), EngineHash(0xd644_2232_da5a_36b8)]);
}

#[test]
fn the_array_layout_is_read() {
    let payload = data("array_layout_0.23.bin");
    let place = Place { medium: Some("GPU"), group: Some(0), attention: Some("full_attention"), window: None };
    let block = EngineHash(0x09c0_b288_d76b_e092);
    let stored = Stored {
        blocks: vec![block],
        parent: None,
        tokens: vec![1, 2, 3, 4],
        block_size: 4,
        lora_name: None,
        extra_keys: vec![Vec::new()],
        place,
    };
    let removed = Removed { blocks: vec![block], place: Place { attention: None, ..place } };
    let batch = decode(&payload).unwrap();
    assert_eq!(batch.events, [Event::Stored(stored), Event::Removed(removed), Event::Cleared]);
    assert_eq!(batch.rank, Some(0));
}

/// Older arrays end earlier, newer ones go on: neither may change what the rest says.
#[test]
fn arrays_of_other_lengths_are_read() {
    let oldest =
        rmp_serde::to_vec(&(1.0, [("BlockStored", [7u64], None::<u64>, [1u32, 2], 2u32, None::<u32>)])).unwrap();
    let batch = decode(&oldest).unwrap();
    let Event::Stored(stored) = &batch.events[0] else { panic!("{batch:?}") };
    assert_eq!((stored.tokens.as_slice(), stored.place, batch.rank), ([1, 2].as_slice(), Place::default(), None));
    let newer = rmp_serde::to_vec(&(1.0, [("BlockRemoved", [7u64], "GPU", 0u32, "LOCAL", [1, 2])], 0, "more")).unwrap();
    assert!(matches!(&decode(&newer).unwrap().events[..], [Event::Removed(_)]));
}

#[test]
fn what_is_not_known_is_passed_over() {
    #[derive(serde::Serialize)]
    struct Future {
        r#type: &'static str,
        block_hashes: &'static str,
        invented: Vec<Vec<u32>>,
    }
    #[derive(serde::Serialize)]
    struct Newer {
        r#type: &'static str,
        invented: std::collections::BTreeMap<&'static str, f64>,
        medium: Option<&'static str>,
        block_hashes: Vec<i64>,
    }
    let future = Future { r#type: "BlockMoved", block_hashes: "not even a list", invented: vec![vec![1]] };
    let newer = Newer { r#type: "BlockRemoved", invented: [("a", 1.0)].into(), medium: None, block_hashes: vec![-1] };
    let payload = rmp_serde::to_vec_named(&(1.0, (future, newer, ("Moved", 3)), 0)).unwrap();
    let removed = Removed { blocks: vec![EngineHash(u64::MAX)], place: Place::default() };
    assert_eq!(decode(&payload).unwrap().events, [Event::Unknown, Event::Removed(removed), Event::Unknown]);
}

#[test]
fn what_a_sender_announces_is_not_believed() {
    let array = |length: u32| [&[0xdd][..], &length.to_be_bytes()].concat();
    let batch = |events: &[u8]| [&[0x93, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0][..], events].concat();
    assert!(decode(&batch(&array(u32::MAX))).is_err(), "an array that never comes");
    assert!(decode(&batch(&[0x91; 100_000])).is_err(), "nesting without end");
    assert!(decode(&batch(&[0x91, 0xc6, 0xff, 0xff, 0xff, 0xff])).is_err(), "4 GiB of bytes");
    assert!(decode(&[]).is_err());
}

#[test]
fn the_mock_writes_what_vllm_writes() {
    let payload = data("kv/stored_first_prompt.m0.f2.bin");
    let tokens: Vec<u32> = (100..164).collect();
    let stored = WireEvent::Stored {
        block_hashes: vec![702_757_842_669_265_042, 12_727_516_518_541_667_169],
        parent_block_hash: None,
        token_ids: &tokens,
        block_size: 32,
        cache_salt: None,
    };
    assert_eq!(wire::encode(decode(&payload).unwrap().seconds, &[stored]), payload);

    let payload = data("kv/reset_then_request.m0.f2.bin");
    assert_eq!(wire::encode(decode(&payload).unwrap().seconds, &[WireEvent::Cleared]), payload);
}

/// Every captured batch that a mock could have written, written by it, is the same to the byte.
#[test]
fn captured_batches_written_again_are_the_same() {
    let mut written = 0;
    for (file, _) in captures() {
        let payload = data(&file);
        let batch = decode(&payload).unwrap();
        let events: Option<Vec<WireEvent<'_>>> = batch.events.iter().map(mockable).collect();
        // A mock publishes integers, and knows neither sessions nor adapters.
        let writes = (file.starts_with("kv/") || file.starts_with("kv_dup/")) && !file.contains("session_id");
        if let Some(events) = events.filter(|_| writes) {
            assert_eq!(wire::encode(batch.seconds, &events), payload, "{file}");
            written += 1;
        }
    }
    assert!(written > 8, "{written}");
}

fn mockable<'a>(event: &'a Event<'a>) -> Option<WireEvent<'a>> {
    Some(match event {
        Event::Stored(stored) => WireEvent::Stored {
            block_hashes: stored.blocks.iter().map(|hash| hash.0).collect(),
            parent_block_hash: stored.parent.map(|hash| hash.0),
            token_ids: &stored.tokens,
            block_size: stored.block_size,
            cache_salt: match stored.extra_keys.first().map(Vec::as_slice) {
                Some([ExtraKey::Text(salt)]) => Some(*salt),
                _ => None,
            },
        },
        Event::Removed(removed) => WireEvent::Removed { block_hash: removed.blocks.first()?.0 },
        Event::Cleared => WireEvent::Cleared,
        Event::Unknown => return None,
    })
}

#[derive(Clone, Debug)]
struct Blocks {
    hashes: Vec<u64>,
    parent: Option<u64>,
    tokens: Vec<u32>,
    salt: Option<String>,
}

fn blocks() -> impl Strategy<Value = Blocks> {
    let salt = prop::option::of("[a-z]{0,9}");
    (prop::collection::vec(any::<u64>(), 1..5), any::<Option<u64>>(), salt).prop_flat_map(|(hashes, parent, salt)| {
        let tokens = prop::collection::vec(any::<u32>(), hashes.len() * 4);
        tokens.prop_map(move |tokens| Blocks { hashes: hashes.clone(), parent, tokens, salt: salt.clone() })
    })
}

proptest! {
    #[test]
    fn what_the_mock_says_is_understood(seconds in any::<f64>(), stored in prop::collection::vec(blocks(), 0..4), removed in any::<u64>()) {
        let mut events = vec![WireEvent::Removed { block_hash: removed }, WireEvent::Cleared];
        events.extend(stored.iter().map(|blocks| WireEvent::Stored {
            block_hashes: blocks.hashes.clone(),
            parent_block_hash: blocks.parent,
            token_ids: &blocks.tokens,
            block_size: 4,
            cache_salt: blocks.salt.as_deref(),
        }));
        let payload = wire::encode(seconds, &events);
        let batch: Batch<'_> = decode(&payload).unwrap();
        prop_assert_eq!(batch.seconds.to_bits(), seconds.to_bits());
        let understood: Vec<_> = batch.events.iter().map(|event| mockable(event).unwrap()).collect();
        prop_assert_eq!(understood, events);
    }

    #[test]
    fn any_bytes_are_a_batch_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_damaged_batch_is_a_batch_or_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut payload = data("kv/eviction_mixed_batch.m0.f2.bin");
        let position = at.index(payload.len());
        payload[position] = byte;
        payload.truncate(cut.index(payload.len()) + 1);
        let _ = decode(&payload);
    }
}
