//! Cache events beyond blocks of tokens on one GPU: other media, other cache groups, content besides tokens, orphans. The
//! events are written as vLLM's connectors and hybrid models write them, and come through a real socket.

use crate::kv_events::{Publisher, subscribed_with};
use crate::support::{RunningApp, config, eventually, instance, prompt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use warmpath::routing::block::{BlockSize, Namespace};
use warmpath::routing::{Fact, Knowledge, Prompt, Request};

/// A batch of events, numbered.
async fn send(publisher: &mut Publisher, sequence: u64, events: Value) {
    publisher.send(sequence, rmp_serde::to_vec_named(&(1.0, events, 0)).unwrap()).await;
}

/// One block of 16 tokens under a name, after another, with what else is to be said.
fn stored(name: u64, parent: Option<u64>, tokens: &[u32], more: Value) -> Value {
    let mut event = json!({
        "type": "BlockStored", "block_hashes": [name], "parent_block_hash": parent, "token_ids": tokens, "block_size": 16,
        "lora_id": null, "medium": "GPU", "lora_name": null, "group_idx": 0, "kv_cache_spec_kind": "full_attention",
    });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

fn removed(names: &[u64], medium: &str, group: u32) -> Value {
    json!({"type": "BlockRemoved", "block_hashes": names, "medium": medium, "group_idx": group})
}

/// Tokens of a prompt that are believed to be cached; nothing stays booked.
fn overlap(app: &RunningApp, namespace: Namespace<'_>, tokens: &[u32]) -> u32 {
    let placed = app.core.route(&Request { namespace, prompt: Prompt::Tokens(tokens), session: None }).unwrap();
    app.core.learn(Fact::Abandoned { request: placed.request }).unwrap();
    placed.overlap_tokens
}

const PLAIN: Namespace<'static> = Namespace::of_model("m");

fn series(app: &RunningApp, name: &str, label: &str) -> f64 {
    app.metric(&format!("warmpath_kv_{name}{{instance=\"only\"{label}}}"))
}

#[tokio::test]
async fn media_are_tiers_with_weights() {
    let (mut publisher, app) = subscribed_with(|config| config.routing.tier_weights.cpu = 0.5).await;
    let tokens = prompt(1, 33);
    let gpu = [stored(1, None, &tokens[..16], json!({})), stored(2, Some(1), &tokens[16..32], json!({}))];
    send(&mut publisher, 0, json!(gpu)).await;
    eventually("two blocks", || app.cached_blocks(0) == 2).await;
    assert_eq!(overlap(&app, PLAIN, &tokens), 32);

    // The offloading connector names its blocks and says no more; another one tells all.
    let placeholder = json!({"type": "BlockStored", "block_hashes": [1], "parent_block_hash": null, "token_ids": [],
        "block_size": 0, "lora_id": null, "medium": "CPU", "lora_name": null, "group_idx": 0});
    let told = stored(2, Some(1), &tokens[16..32], json!({"medium": "cpu"}));
    send(&mut publisher, 1, json!([placeholder, told, removed(&[1, 2], "GPU", 0)])).await;
    eventually("the removal", || series(&app, "events_total", ",kind=\"removed\"") == 1.0).await;
    assert_eq!((app.cached_blocks(0), overlap(&app, PLAIN, &tokens)), (2, 16));

    // A medium that nobody knows, and a removal there of what never was: nothing is worse known for it.
    send(
        &mut publisher,
        2,
        json!([stored(3, Some(2), &tokens[..16], json!({"medium": "TAPE"})), removed(&[9], "CPU", 0)]),
    )
    .await;
    eventually("the unknown medium", || series(&app, "events_skipped_total", ",reason=\"medium\"") == 1.0).await;
    send(&mut publisher, 3, json!([removed(&[2], "CPU", 0)])).await;
    eventually("one block", || app.cached_blocks(0) == 1).await;
    assert_eq!((overlap(&app, PLAIN, &tokens), app.knowledge(0)), (8, Knowledge::Exact));
    app.running.stop().await;
}

#[tokio::test]
async fn groups_of_a_hybrid_model_all_have_to_have_a_hit() {
    let (mut publisher, app) = subscribed_with(|_| {}).await;
    let tokens = prompt(1, 49);
    let window = json!({"group_idx": 0, "kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": 17});
    let full = json!({"group_idx": 1});
    let block = |at: u32, group: &Value| {
        let tokens = &tokens[at as usize * 16..(at as usize + 1) * 16];
        stored(u64::from(at) + 1, (at > 0).then_some(u64::from(at)), tokens, group.clone())
    };
    // As in a model whose first layer has a window: its group comes first, by number and in the batch.
    let events: Vec<Value> = [&window, &full]
        .into_iter()
        .flat_map(|group| (0..3).map(move |at| (at, group)))
        .map(|(at, group)| block(at, group))
        .collect();
    send(&mut publisher, 0, json!(events)).await;
    eventually("three blocks", || app.cached_blocks(0) == 3 && app.knowledge(0) == Knowledge::Exact).await;
    assert_eq!(overlap(&app, PLAIN, &tokens), 48);
    send(&mut publisher, 1, json!([removed(&[1], "GPU", 0)])).await;
    eventually("the first removal", || series(&app, "events_total", ",kind=\"removed\"") == 1.0).await;
    assert_eq!(overlap(&app, PLAIN, &tokens), 48, "the window does not reach that far");
    send(&mut publisher, 2, json!([removed(&[3], "GPU", 0)])).await;
    eventually("the second removal", || series(&app, "events_total", ",kind=\"removed\"") == 2.0).await;
    assert_eq!(overlap(&app, PLAIN, &tokens), 32);
    send(&mut publisher, 3, json!([removed(&[2], "GPU", 1)])).await;
    eventually("the third removal", || app.cached_blocks(0) == 2).await;
    assert_eq!((overlap(&app, PLAIN, &tokens), app.knowledge(0)), (0, Knowledge::Exact));
    app.running.stop().await;
}

#[tokio::test]
async fn an_image_is_part_of_its_blocks() {
    let (mut publisher, app) = subscribed_with(|_| {}).await;
    let tokens = prompt(1, 49);
    let image = json!({"extra_keys": [[["digest-of-an-image", -3]]]});
    let events = [
        stored(1, None, &tokens[..16], json!({"extra_keys": [null]})),
        stored(2, Some(1), &tokens[16..32], image),
        stored(3, Some(2), &tokens[32..48], json!({"extra_keys": [null]})),
    ];
    send(&mut publisher, 0, json!(events)).await;
    eventually("three blocks", || app.cached_blocks(0) == 3).await;
    // The same tokens without the image are another prompt.
    assert_eq!((overlap(&app, PLAIN, &tokens), app.knowledge(0)), (16, Knowledge::Exact));
    app.running.stop().await;
}

#[tokio::test]
async fn orphans_wait_for_their_parent() {
    let (mut publisher, app) = subscribed_with(|_| {}).await;
    let tokens = prompt(1, 65);
    let block = |at: usize| stored(at as u64 + 1, (at > 0).then_some(at as u64), &tokens[at * 16..][..16], json!({}));
    let fate = |fate: &str| series(&app, "event_orphans_total", &format!(",fate=\"{fate}\""));
    send(&mut publisher, 0, json!([])).await;
    send(&mut publisher, 1, json!([block(1), block(2), block(3)])).await;
    eventually("orphans", || fate("kept") == 3.0 && app.knowledge(0) == Knowledge::Degraded).await;
    assert_eq!((app.cached_blocks(0), series(&app, "event_orphan_blocks", "")), (0, 3.0));
    // One is evicted before its parent comes.
    send(&mut publisher, 2, json!([removed(&[4], "GPU", 0), block(0)])).await;
    eventually("their place", || app.cached_blocks(0) == 3 && app.knowledge(0) == Knowledge::Exact).await;
    assert_eq!((fate("attached"), fate("dropped"), series(&app, "event_orphan_blocks", "")), (2.0, 1.0, 0.0));
    assert_eq!(overlap(&app, PLAIN, &tokens), 48);
    // What is cleared waits for nobody.
    send(&mut publisher, 3, json!([stored(9, Some(8), &tokens[..16], json!({})), {"type": "AllBlocksCleared"}])).await;
    eventually("the clearing", || fate("dropped") == 2.0 && app.cached_blocks(0) == 0).await;
    assert_eq!(app.knowledge(0), Knowledge::Exact);
    app.running.stop().await;
}

/// What vLLM itself published for adapters and salts is found under them, and under nothing else.
#[tokio::test]
async fn captured_adapters_and_salts_are_namespaces() {
    let (mut publisher, app) = subscribed_with(|config| config.routing.block_size = BlockSize::new(32).unwrap()).await;
    let tokens: Vec<u32> = (100..170).collect();
    let namespace = |lora, cache_salt| Namespace { lora, cache_salt, ..PLAIN };
    let all = [(None, None), (Some("ad1"), None), (Some("ad2"), None), (Some("ad1"), Some("s1")), (None, Some("s1"))];
    let found = |app: &RunningApp| all.map(|(lora, salt)| overlap(app, namespace(lora, salt), &tokens));
    let mut expected = [0; 5];
    for (sequence, file) in ["lora_base", "lora_ad1", "lora_ad2", "lora_ad1_salt"].into_iter().enumerate() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/vllm/kv_lora/{file}.m0.f2.bin"));
        publisher.send(sequence as u64, std::fs::read(path).unwrap()).await;
        eventually(file, || series(&app, "event_batches_total", "") == sequence as f64 + 1.0).await;
        expected[sequence] = 64;
        eventually(file, || found(&app) == expected).await;
    }
    app.running.stop().await;
}

#[tokio::test]
async fn a_publisher_may_connect_to_the_router() {
    // A port that is free now; nobody else on this machine is likely to take it meanwhile.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut only = instance("only", SocketAddr::from(([127, 0, 0, 1], 1)), Some(free));
    only.kv_events.as_mut().unwrap().listens = true;
    let app = crate::support::start_app(config(vec![only])).await;
    for (publishers, seed) in [1, 2].into_iter().enumerate() {
        // The second one comes while the first one's connection stands, as after a restart that nobody announced.
        let mut publisher = Publisher::connect(free).await;
        publisher.subscribed().await;
        publisher.store(0, u64::from(seed), None, &prompt(seed, 16)).await;
        eventually("its block", || overlap(&app, PLAIN, &prompt(seed, 17)) == 16).await;
        assert_eq!((app.cached_blocks(0), app.knowledge(0)), (1, Knowledge::Exact));
        assert_eq!(series(&app, "event_restarts_total", ""), publishers as f64);
        std::mem::forget(publisher);
    }
    app.running.stop().await;
}
