//! Whatever stands in a file, it is read or refused.

use crate::support::{data, file, read_trace, with_tokenizer};
use proptest::prelude::*;
use warmpath::trace::{Format, Trace};

fn try_to_read(content: impl AsRef<[u8]>) {
    let file = file(content);
    let _ = Trace::open_as(file.path(), with_tokenizer()).and_then(|trace| read_trace(&trace));
}

/// Real files, and made ones to a published schema: what is almost a trace comes from them.
const FIXTURES: [&str; 16] = [
    "azure/AzureLLMInferenceTrace_code_1week.head5_tail5.csv",
    "azure/AzureLMMInferenceTrace_multimodal.head5_tail5.csv",
    "burstgpt/BurstGPT_1.head30.csv",
    "burstgpt/BurstGPT_3.head4.csv",
    "formats/dynamo_agentic.jsonl",
    "formats/dynamo_request.jsonl",
    "formats/gmi.jsonl",
    "formats/marconi.jsonl",
    "formats/ragpulse.jsonl",
    "formats/sharegpt.json",
    "formats/weka.json",
    "kavier/kavier-0.5.3_input_example.csv",
    "llmservingsim/example_trace.jsonl",
    "mooncake/toolagent_arxiv_slice_93rows.jsonl",
    "qwen_bailian/thinking_first_row.jsonl",
    "parquet/lmsys_chat.parquet",
];

/// The beginning of a file of each format.
const BEGINNINGS: [&str; 16] = [
    "{\"warmpath_trace\":1,\"block_tokens\":32,\"prefix\":\"real\"}\n",
    "{\"chat_id\":1,\"parent_chat_id\":-1,\"timestamp\":0,\"input_length\":1,\"output_length\":1,\"hash_ids\":[0]}\n",
    "{\"schema\":\"dynamo.request.trace.v1\",\"event\":{}}\n",
    "{\"session_id\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[0],\"delay\":0}\n",
    "{\"timestamp\":\"0\",\"input_length\":1,\"output_length\":1,\"hash_ids\":[0]}\n",
    "{\"timestamp\":\"0\",\"input_length\":1,\"output_length\":1,\"hash_ids\":{}}\n",
    "{\"timestamp\":0,\"input_length\":1,\"output_length\":1,\"hash_ids\":[0]}\n",
    "{\"session_id\":1,\"ts\":0,\"input_tokens\":[1],\"num_output_tokens\":1}\n",
    "{\"arrival_time_ns\":1,\"input_toks\":1}\n",
    "{\"id\":1,\"block_size\":64,\"requests\":[]}\n",
    "{\"conversation_id\":\"1\",\"conversation\":[]}\n",
    "[{\"id\":1,\"conversations\":[]}\n",
    "ts,num_input_tokens,num_output_tokens,input_tokens\n",
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    "arrived_at,num_prefill_tokens,num_decode_tokens\n",
];

#[test]
fn beginnings_are_those_of_all_formats() {
    for (beginning, format) in BEGINNINGS.iter().zip([
        Format::Native,
        Format::QwenBailian,
        Format::DynamoRequest,
        Format::Dynamo,
        Format::Gmi,
        Format::RagPulse,
        Format::Mooncake,
        Format::Marconi,
        Format::LlmServingSim,
        Format::Weka,
        Format::LmSys,
        Format::ShareGpt,
        Format::Kavier,
        Format::BurstGpt,
        Format::Azure,
        Format::Vidur,
    ]) {
        let trace = Trace::open_as(file(beginning).path(), with_tokenizer()).unwrap();
        assert_eq!(trace.format(), format);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), beginning in 0..BEGINNINGS.len()) {
        try_to_read([BEGINNINGS[beginning].as_bytes(), &bytes].concat());
        try_to_read([&[0x28, 0xb5, 0x2f, 0xfd], bytes.as_slice()].concat());
        try_to_read([b"{".as_slice(), &bytes].concat());
    }

    #[test]
    fn almost_any_record_is_read_or_refused(
        line in r#"[-"0-9.:eEZT, +x]{0,60}"#,
        numbers in prop::collection::vec(any::<i64>(), 4),
        beginning in 0..BEGINNINGS.len(),
    ) {
        let [a, b, c, d] = numbers[..] else { unreachable!("there are four") };
        let json = BEGINNINGS[beginning].replace(":0", &format!(":{a}")).replace(":1", &format!(":{b}"));
        let csv = format!("{a},{b},{c},{d}\n{line}\n0,\"{line}\",{b},{c}");
        try_to_read(format!("{}{json}{csv}", BEGINNINGS[beginning]));
    }
}

/// What happens to files: bytes change, are lost, come twice, or the rest is missing.
#[derive(Clone, Debug)]
enum Damage {
    Change(u8),
    Lose(usize),
    Repeat(usize),
    Cut,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => any::<u8>().prop_map(Damage::Change),
        // What JSON and CSV are made of.
        4 => prop::sample::select(b"{}[]\",:-.eE0919\n\r\\ ".to_vec()).prop_map(Damage::Change),
        2 => (1..40_usize).prop_map(Damage::Lose),
        2 => (1..40_usize).prop_map(Damage::Repeat),
        1 => Just(Damage::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_read_or_refused(
        damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..8),
    ) {
        for fixture in FIXTURES {
            let mut bytes = std::fs::read(data(fixture)).unwrap();
            bytes.truncate(10_000);
            for (place, damage) in &damages {
                if bytes.is_empty() {
                    break;
                }
                let at = place.index(bytes.len());
                let to = |length: usize| (at + length).min(bytes.len());
                match *damage {
                    Damage::Change(byte) => bytes[at] = byte,
                    Damage::Lose(length) => drop(bytes.drain(at..to(length))),
                    Damage::Repeat(length) => {
                        let again = bytes[at..to(length)].to_vec();
                        bytes.splice(at..at, again);
                    }
                    Damage::Cut => bytes.truncate(at),
                }
            }
            try_to_read(&bytes);
        }
    }

    #[test]
    fn damaged_parquet_is_read_or_refused(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        fixture in prop::sample::select(vec!["lmsys_chat", "kavier", "marconi_kavier", "kavier_zstd"]),
    ) {
        let mut bytes = std::fs::read(data(&format!("parquet/{fixture}.parquet"))).unwrap();
        for (place, byte) in damages {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        try_to_read(&bytes);
    }
}
