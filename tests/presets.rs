//! Cost models against measurements that others published: Llama-3-8B on an A10 under vLLM 0.9.0, alone.

use warmpath::routing::Time;
use warmpath::routing::block::BlockSize;
use warmpath::sim::{Eviction, Instance, InstanceConfig, KavierModel, Measurement, Preset, Work, fit};

/// Prompt tokens, output tokens, and seconds: Kavier's prefill, the measured one, Kavier's decode, the measured one.
struct Point {
    prompt_tokens: u32,
    output_tokens: u32,
    kavier: [f64; 2],
    measured: [f64; 2],
}

fn points() -> Vec<Point> {
    let figures = include_str!("data/kavier/prefill_decode_accuracy.csv");
    let inputs = include_str!("data/kavier/input_decode_accuracy.csv");
    let rows = |text: &'static str| text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    let outputs: Vec<(u32, u32)> = rows(inputs).map(|row| (row[0].parse().unwrap(), row[4].parse().unwrap())).collect();
    let point = |row: Vec<&str>| {
        let number = |column: usize| row[column].trim().parse::<f64>().unwrap();
        let prompt_tokens = row[0].parse().unwrap();
        let (_, output_tokens) = *outputs.iter().find(|(size, _)| *size == prompt_tokens).unwrap();
        Point { prompt_tokens, output_tokens, kavier: [number(1), number(3)], measured: [number(2), number(4)] }
    };
    rows(figures).map(point).collect()
}

fn mean_error(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let errors: Vec<f64> = pairs.map(|(model, measured)| (model / measured - 1.0).abs()).collect();
    errors.iter().sum::<f64>() / errors.len() as f64
}

#[test]
fn kaviers_model_gives_its_published_values_and_accuracy() {
    let model = KavierModel::LLAMA3_8B_A10;
    let points = points();
    assert_eq!(points.len(), 9);
    for point in &points {
        let ours =
            [model.prefill(point.prompt_tokens), model.decode(point.output_tokens)].map(|time| time.as_secs_f64());
        for (ours, published) in ours.into_iter().zip(point.kavier) {
            assert!((ours / published - 1.0).abs() < 0.012, "{} tokens: {ours} for {published}", point.prompt_tokens);
        }
    }
    let error = |kind: usize| mean_error(points.iter().map(|point| (point.kavier[kind], point.measured[kind])));
    assert_eq!(format!("{:.3} {:.3}", error(0), error(1)), "0.074 0.040");
}

/// (To the first token, from there to the last) of one request on an idle instance, in seconds.
fn alone(preset: Preset, prompt_tokens: u32, output_tokens: u32) -> (f64, f64) {
    let (block_size, sequences_max) = (BlockSize::DEFAULT, preset.sequences_max());
    let config =
        InstanceConfig { block_size, blocks: 4096, sequences_max, eviction: Eviction::Lru, model: preset.step_model() };
    let mut instance = Instance::new(config);
    instance.submit(Work { prompt_tokens, output_tokens, ..Work::default() }).unwrap();
    let (mut progress, mut events, mut now, mut first) = (Vec::new(), Vec::new(), Time::ZERO, None);
    while let Some(end) = instance.begin_step(now) {
        now = end;
        instance.end_step(&mut progress, &mut events);
        if first.is_none() && !progress.is_empty() {
            first = Some(now);
        }
    }
    let first = first.unwrap();
    (first.as_secs_f64(), now.since(first).as_secs_f64())
}

#[test]
fn the_a10_preset_is_nearer_to_the_measurements_than_kaviers_model() {
    let preset = Preset::Llama3_8bA10;
    let points = points();
    let prefill = mean_error(points.iter().map(|point| (alone(preset, point.prompt_tokens, 1).0, point.measured[0])));
    let decode = mean_error(points.iter().map(|point| (alone(preset, 7, point.output_tokens).1, point.measured[1])));
    assert!(prefill < 0.074 && decode < 0.045, "prefill {prefill:.3}, decode {decode:.3}");
}

#[test]
fn kaviers_model_as_a_preset_gives_what_it_published() {
    let preset = Preset::KavierLlama3_8bA10;
    for point in points() {
        let (prefill, _) = alone(preset, point.prompt_tokens, 1);
        assert!((prefill / point.kavier[0] - 1.0).abs() < 0.012, "{} tokens: {prefill}", point.prompt_tokens);
        // Of the output's tokens the first comes with the prefill.
        let (_, decode) = alone(preset, 7, point.output_tokens + 1);
        assert!((decode / point.kavier[1] - 1.0).abs() < 0.012, "{} outputs: {decode}", point.output_tokens);
    }
}

/// Each point is two measurements: a prefill, and a decode after a prompt of 7 tokens.
#[test]
fn step_times_fitted_to_the_measurements_are_nearer_than_kaviers_model() {
    let points = points();
    let measurements = points.iter().flat_map(|point| {
        let [prefill, decode] = point.measured;
        let steps = f64::from(point.output_tokens);
        let decode_context = steps * (7.0 + steps / 2.0);
        let decode =
            Measurement { steps, tokens: steps, pairs: 0.0, decode_context, sequences: steps, seconds: decode };
        [Measurement::prefill(f64::from(point.prompt_tokens), 0.0, 2048.0, prefill), decode]
    });
    let fitted = fit(&measurements.collect::<Vec<_>>(), 2048).unwrap();
    let kavier =
        mean_error(points.iter().flat_map(|point| (0..2).map(|kind| (point.kavier[kind], point.measured[kind]))));
    assert!(fitted.mean_error < 0.8 * kavier, "{kavier:.4}; {}", fitted.to_text());
}

#[test]
fn bigger_models_and_older_gpus_are_slower_and_hold_less() {
    let prefill = |preset: Preset| alone(preset, 8000, 1).0;
    assert!(prefill(Preset::Llama3_8bA10) > 2.0 * prefill(Preset::Llama3_8bA100));
    assert!(prefill(Preset::Llama3_8bA100) > 2.0 * prefill(Preset::Llama3_8bH100));
    assert!(prefill(Preset::Qwen3_32bH100Tp2) > prefill(Preset::Qwen2_5_7bH100));
    assert!(Preset::Llama3_8bA10.kv_tokens() < Preset::Llama3_8bA100.kv_tokens() / 5);
}
