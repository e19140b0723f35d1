//! Every format: its oddest lines, and what it makes of them.

use proptest::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use warmpath::routing::block::{BlockSize, ContentHash};
use warmpath::trace::{Format, How, InfiniteCache, Overlay, Provenance, Record, Tally, Trace, TraceError};

struct Read {
    format: Format,
    block_tokens: u32,
    provenance: Provenance,
    records: Vec<Record>,
    tally: Tally,
}

fn read_trace(trace: &Trace) -> Result<Read, TraceError> {
    let mut records = trace.records()?;
    let read = records.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok(Read {
        format: trace.format(),
        block_tokens: trace.block_size().tokens(),
        provenance: trace.provenance().clone(),
        records: read,
        tally: records.tally(),
    })
}

fn file(content: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_ref()).unwrap();
    file
}

fn read(content: impl AsRef<[u8]>) -> Result<Read, TraceError> {
    read_trace(&Trace::open(file(content).path())?)
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// What is expected of some lines.
struct Expected {
    format: Format,
    block_tokens: u32,
    provenance: Provenance,
    /// Milliseconds, prompt, output, blocks, turn (0 where none is said).
    records: &'static [(u64, u32, u32, usize, u32)],
    tally: Tally,
}

#[track_caller]
fn check(read: Result<Read, TraceError>, expected: Expected) -> Vec<Record> {
    let read = read.unwrap();
    assert_eq!(read.format, expected.format);
    assert_eq!(read.block_tokens, expected.block_tokens);
    assert_eq!(read.provenance, expected.provenance);
    let seen: Vec<_> = read
        .records
        .iter()
        .map(|record| {
            let Record { prompt_tokens, output_tokens, ref blocks, turn, .. } = *record;
            (record.at.as_millis() as u64, prompt_tokens, output_tokens, blocks.len(), turn.unwrap_or(0))
        })
        .collect();
    assert_eq!(seen, expected.records);
    assert_eq!(read.tally, Tally { records: seen.len() as u64, ..expected.tally });
    read.records
}

#[test]
fn kavier() {
    let records = check(
        read_trace(&Trace::open(data("kavier/kavier-0.5.3_input_example.csv")).unwrap()),
        Expected {
            format: Format::Kavier,
            block_tokens: 16,
            provenance: Provenance::Real,
            // Put in order: the file goes back in time at each session.
            records: &[
                (0, 8, 6, 1, 1),
                (0, 6, 9, 1, 1),
                (0, 5, 7, 1, 1),
                (0, 9, 3, 1, 1),
                (1000, 12, 5, 1, 2),
                (2000, 10, 4, 1, 2),
            ],
            tally: Tally::default(),
        },
    );
    assert_eq!(records[0].blocks[0], ContentHash::of_tokens(&[1, 100, 101, 102, 103, 104, 105, 2]));
    assert_eq!((records[0].session, records[4].session, records[5].session), (Some(0), Some(0), Some(1)));
}

#[test]
fn kavier_with_a_trailing_comma_in_the_heading_or_without_output() {
    let decode = read_trace(&Trace::open(data("kavier/experiment1_input_input_decode_accuracy.csv")).unwrap()).unwrap();
    assert_eq!((decode.format, decode.records.len(), decode.provenance), (Format::Kavier, 11, Provenance::none()));
    let prefill = read_trace(&Trace::open(data("kavier/experiment1_input_input_prefill_accuracy.csv")).unwrap());
    assert_eq!(prefill.unwrap().tally, Tally { dropped_no_output: 9, ..Tally::default() });
}

#[test]
fn marconi() {
    let tokens = |range: std::ops::Range<u32>| format!("{:?}", range.collect::<Vec<u32>>());
    let (long, short) = (tokens(0..40), tokens(0..20));
    let lines = format!(
        r#"{{"session_id": 0, "turn_id": 0, "ts": 0.0, "num_input_tokens": 20, "num_output_tokens": 3, "input_tokens": {short}, "output_tokens": [7, 8, 9]}}
{{"session_id": 0, "turn_id": 1, "ts": 1.5, "num_input_tokens": 40, "num_output_tokens": 1, "input_tokens": {long}, "output_tokens": [7]}}
{{"session_id": 1, "turn_id": 0, "ts": 1.25, "num_input_tokens": 0, "num_output_tokens": 1, "input_tokens": [], "output_tokens": [7]}}
{{"session_id": 1, "turn_id": 1, "ts": -3, "num_input_tokens": 20, "num_output_tokens": 1, "input_tokens": {short}, "output_tokens": [7]}}"#
    );
    let records = check(
        read(lines),
        Expected {
            format: Format::Marconi,
            block_tokens: 16,
            provenance: Provenance::Real,
            records: &[(0, 20, 3, 2, 1), (1500, 40, 1, 3, 2)],
            tally: Tally { dropped_no_prompt: 1, dropped_bad_time: 1, ..Tally::default() },
        },
    );
    assert_eq!(records[0].blocks[0], records[1].blocks[0], "the full block is shared");
    assert_ne!(records[0].blocks[1], records[1].blocks[1], "the partial one is not");
}

#[test]
fn burstgpt_of_both_editions_has_its_columns_by_name() {
    let first = read_trace(&Trace::open(data("burstgpt/BurstGPT_1.head30.csv")).unwrap()).unwrap();
    assert_eq!((first.format, first.records.len()), (Format::BurstGpt, 29));
    assert_eq!(first.tally.dropped_no_prompt, 1, "a failed request");
    assert_eq!((first.records[1].at.as_secs(), first.records[1].prompt_tokens), (40, 1087), "counted from the first");
    assert_eq!(first.records[0].session, None);
    let third = read_trace(&Trace::open(data("burstgpt/BurstGPT_3.head4.csv")).unwrap()).unwrap();
    assert_eq!((third.records.len(), third.records[3].at.as_secs(), third.records[3].output_tokens), (4, 144, 178));
    assert!(third.records.iter().all(|record| record.session.is_some()));
    assert_eq!(third.records[0].kind.as_ref().unwrap().name(), "Conversation log");
    let api = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n\
               19440110.0,,43,GPT-4,906,446,1352,API log\r\n19440111.5,,1,GPT-4,9,0,9,API log\r\n";
    check(
        read(api),
        Expected {
            format: Format::BurstGpt,
            block_tokens: 16,
            provenance: Provenance::none(),
            records: &[(0, 906, 446, 57, 0)],
            tally: Tally { dropped_no_output: 1, ..Tally::default() },
        },
    );
}

#[track_caller]
fn check_azure(name: &str, rows: usize, seconds: &str, prompt_mean: &str) {
    let read = read_trace(&Trace::open(data("azure").join(name)).unwrap()).unwrap();
    assert_eq!((read.format, read.records.len()), (Format::Azure, rows));
    assert_eq!(format!("{:.3}", read.records[rows - 1].at.as_secs_f64()), seconds);
    let sum: f64 = read.records.iter().map(|record| f64::from(record.prompt_tokens)).sum();
    assert_eq!(format!("{:.3}", sum / rows as f64), prompt_mean);
}

#[test]
fn azure_in_every_edition() {
    check_azure("AzureLLMInferenceTrace_code.csv.gz", 8819, "3435.948", "2047.848");
    check_azure("AzureLLMInferenceTrace_conv.csv.gz", 19_366, "3501.722", "1154.697");
    // A week less a few microseconds.
    check_azure("AzureLLMInferenceTrace_code_1week.head5_tail5.csv", 10, "604799.920", "2401.600");
    check_azure("AzureLLMInferenceTrace_conv_1week.head5_tail5.csv", 10, "604799.994", "1276.700");
    check_azure("AzureLMMInferenceTrace_multimodal.head5_tail5.csv", 10, "604799.695", "1285.900");
    let odd = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2024-05-10 00:00:00.5+00:00,9,1\r\n\
               2024-05-10 00:00:01+00:00,8,1\r\nyesterday,7,1\r\n2024-05-09 00:00:00+00:00,6,1\r\n2024-05-10 00:00:02,0,1";
    check(
        read(odd),
        Expected {
            format: Format::Azure,
            block_tokens: 16,
            provenance: Provenance::none(),
            records: &[(0, 9, 1, 1, 0), (500, 8, 1, 1, 0)],
            tally: Tally { dropped_bad_time: 2, dropped_no_prompt: 1, ..Tally::default() },
        },
    );
}

#[test]
fn llmservingsim_requests_and_sessions() {
    let example = read_trace(&Trace::open(data("llmservingsim/example_trace.jsonl")).unwrap()).unwrap();
    assert_eq!((example.format, example.records.len()), (Format::LlmServingSim, 10));
    assert_eq!((example.provenance, example.tally.miscounted_ids), (Provenance::Real, 0));
    let real = read_trace(&Trace::open(data("llmservingsim/sharegpt-qwen3-32b-first3.jsonl")).unwrap()).unwrap();
    assert_eq!((real.records[0].prompt_tokens, real.records[0].blocks.len()), (2361, 148));
    let mixed = r#"{"session_id": "s", "arrival_time_ns": 1000000, "sub_requests": [{"input_toks": 9, "output_toks": 2, "tool_duration_ns": 5000000}, {"input_toks": 20, "output_toks": 2, "tool_duration_ns": 0}]}
{"input_toks": 17, "output_toks": 2, "arrival_time_ns": 2000000}"#;
    check(
        read(mixed),
        Expected {
            format: Format::LlmServingSim,
            block_tokens: 16,
            provenance: Provenance::none(),
            records: &[(1, 9, 2, 1, 1), (2, 17, 2, 2, 0), (6, 20, 2, 2, 2)],
            tally: Tally::default(),
        },
    );
}

#[test]
fn dynamo_rows() {
    let rows = r#"{"request_id": "a", "session_id": "s", "input_tokens": 600, "output_tokens": 5, "hash_ids": ["1", 2], "created_time": 10.5}
{"session_id": "s", "input_length": 1100, "output_length": 5, "hash_ids": [1, 2, 3], "delay": 250}
{"session_id": "t", "input_length": 100, "output_length": 5, "hash_ids": [9], "delay": 250}"#;
    check(
        read(rows),
        Expected {
            format: Format::Dynamo,
            block_tokens: 512,
            provenance: Provenance::Real,
            records: &[(10, 600, 5, 2, 0), (260, 1100, 5, 3, 0)],
            tally: Tally { dropped_bad_time: 1, ..Tally::default() },
        },
    );
    let agentic = r#"{"schema":"dynamo.agentic_mooncake","version":2,"block_size":4,"hash_id_scope":"local","source":{}}
{"request_id":"a","play_id":"p","session_id":"s","model":"m","input_length":6,"output_length":2,"hash_ids":[1,2],"not_before_ms":0,"dependencies":[]}
{"request_id":"b","play_id":"q","session_id":"s","model":"m","input_length":6,"output_length":2,"hash_ids":[1,2],"not_before_ms":7,"dependencies":[]}"#;
    let records = check(
        read(agentic),
        Expected {
            format: Format::Dynamo,
            block_tokens: 4,
            provenance: Provenance::Real,
            records: &[(0, 6, 2, 2, 0), (7, 6, 2, 2, 0)],
            tally: Tally::default(),
        },
    );
    assert_ne!(records[0].blocks, records[1].blocks, "ids are known inside a play only");
    let text = r#"{"text_input": "hello", "output_length": 5, "timestamp": 0}"#;
    assert!(read(text).err().unwrap().to_string().contains("need a tokenizer"));
}

#[test]
fn dynamo_request_traces() {
    let events = r#"{"schema":"dynamo.request.trace.v1","event":{"event_type":"request_end","event_time_unix_ms":1700000000000,"request":{"session_id":"s","output_length":3,"replay":{"trace_block_size":16,"input_length":20,"input_sequence_hashes":[11,12]}}}}
{"schema":"dynamo.request.trace.v1","event":{"event_type":"tool_end","event_time_unix_ms":1700000000500}}
{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1700000001000,"request":{"output_length":3,"replay":{"trace_block_size":16,"input_length":16,"input_sequence_hashes":[11]}}}"#;
    check(
        read(events),
        Expected {
            format: Format::DynamoRequest,
            block_tokens: 16,
            provenance: Provenance::Real,
            records: &[(0, 20, 3, 2, 0), (1000, 16, 3, 1, 0)],
            tally: Tally::default(),
        },
    );
}

#[test]
fn vidur() {
    check(
        read("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,4808,10\n0.5,3180.0,8\n1.5,0,8\n"),
        Expected {
            format: Format::Vidur,
            block_tokens: 16,
            provenance: Provenance::none(),
            records: &[(0, 4808, 10, 301, 0), (500, 3180, 8, 199, 0)],
            tally: Tally { dropped_no_prompt: 1, ..Tally::default() },
        },
    );
}

#[test]
fn ragpulse_has_texts_for_times_and_an_object_for_ids() {
    let lines = r#"{"timestamp":"82","input_length":3112,"output_length":192,"hash_ids":{"sys_prompt":[8302,14332],"passages_ids":[5],"history":[],"web_search":[],"user_input":[26923]},"session_id":"1757476916095-afhw"}
{"timestamp":"80","input_length":3112,"output_length":192,"hash_ids":{"sys_prompt":[8302,14332],"passages_ids":[],"history":[7],"web_search":[],"user_input":[1]},"session_id":"1757476916095-x"}

"#;
    let records = check(
        read(lines),
        Expected {
            format: Format::RagPulse,
            block_tokens: 256,
            provenance: Provenance::Real,
            records: &[(80_000, 3112, 192, 4, 0), (82_000, 3112, 192, 4, 0)],
            tally: Tally::default(),
        },
    );
    assert_eq!(records[1].blocks, [8302, 14332, 5, 26923].map(ContentHash), "in the order of the prompt");
}

#[test]
fn gmi_counts_nanoseconds_in_a_text() {
    let lines = r#"{"timestamp":"1753694362340138614","input_length":2288,"output_length":9,"hash_ids":[2843241808,5]}
{"timestamp":"1753694363340138614","input_length":2288,"output_length":9,"hash_ids":[2843241808,6,7]}"#;
    check(
        read(lines),
        Expected {
            format: Format::Gmi,
            block_tokens: 32,
            provenance: Provenance::Real,
            records: &[(0, 2288, 9, 2, 0), (1000, 2288, 9, 3, 0)],
            tally: Tally::default(),
        },
    );
}

const WEKA: &str = r#"{
  "id": "session-1", "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 1, "system_tokens": 2,
  "requests": [
    {"t": 0.0, "type": "n", "model": "m", "in": 130, "out": 4, "hash_ids": [1, 2]},
    {"t": 9.5, "type": "s", "model": "m", "in": 200, "out": 4, "hash_ids": [1, 2, 3]},
    {"t": 3.0, "type": "subagent", "requests": [{"t": 4.0, "type": "n", "in": 70, "out": 1, "hash_ids": [9]}]}
  ]
}"#;

#[test]
fn weka_sessions_in_a_file_or_a_folder() {
    let records = check(
        read(WEKA),
        Expected {
            format: Format::Weka,
            block_tokens: 64,
            provenance: Provenance::Real,
            records: &[(0, 130, 4, 2, 1), (4000, 70, 1, 1, 2), (9500, 200, 4, 3, 3)],
            tally: Tally::default(),
        },
    );
    assert_eq!(records[0].blocks, records[2].blocks[..2]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), WEKA).unwrap();
    std::fs::write(folder.path().join("b.json"), WEKA.replace("session-1", "session-2").replace('\n', "")).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "not a session").unwrap();
    let both = read_trace(&Trace::open(folder.path()).unwrap()).unwrap();
    assert_eq!((both.records.len(), both.records[5].at.as_millis()), (6, 19_000), "end to end");
    assert_ne!(both.records[0].blocks[0], both.records[3].blocks[0], "ids are known inside a session only");
}

#[test]
fn sharegpt_is_known_and_refused() {
    let array =
        r#"[{"id":"QWJhYvA_0","conversations":[{"from":"human","value":"a } \" b"},{"from":"gpt","value":"…"}]}]"#;
    let message = read(array).err().unwrap().to_string();
    assert!(message.contains("ShareGPT holds text") && message.contains("tokenizer"), "{message}");
}

#[test]
fn warmpaths_own() {
    let lines = r#"{"warmpath_trace":1,"block_tokens":32,"prefix":{"overlay":{"name":"apps","seed":7}}}
{"at_ns":1500000,"prompt_tokens":40,"output_tokens":2,"blocks":[18446744073709551615,8],"chat":3,"parent":1,"turn":2,"kind":"te\"xt"}"#;
    let records = check(
        read(lines),
        Expected {
            format: Format::Native,
            block_tokens: 32,
            provenance: Provenance::Overlay { name: "apps".to_owned(), seed: 7 },
            records: &[(1, 40, 2, 2, 2)],
            tally: Tally::default(),
        },
    );
    assert_eq!((records[0].chat, records[0].parent), (Some(3), Some(1)));
    assert_eq!(records[0].kind.as_ref().unwrap().name(), "te\"xt");
    let newer = lines.replace("\"warmpath_trace\":1", "\"warmpath_trace\":2");
    assert!(read(newer).err().unwrap().to_string().contains("version 2"));
}

/// What the command `zstd` makes of the Mooncake lines below, twice, one frame after the other.
#[test]
fn zstandard_is_read_frame_after_frame() {
    let line = "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 5, \"hash_ids\": [0]}\n";
    let frame = ruzstd::encoding::compress_to_vec(line.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    let both = read([frame.clone(), frame.clone()].concat()).unwrap();
    assert_eq!(both.records.len(), 2);
    let cut = read(&frame[..frame.len() - 5]).err().unwrap().to_string();
    assert!(cut.contains("line 1"), "{cut}");
}

fn hit_ratio(overlay: Overlay) -> (f64, Provenance, Vec<Record>) {
    let how = How { overlay, ..How::default() };
    let read = read_trace(&Trace::open_as(data("azure/AzureLLMInferenceTrace_conv.csv.gz"), how).unwrap()).unwrap();
    let mut cache = InfiniteCache::new(BlockSize::DEFAULT);
    read.records.iter().for_each(|record| cache.visit(record));
    (cache.reuse().block_hit_ratio(), read.provenance, read.records)
}

#[test]
fn overlays_share_what_they_say_and_say_what_they_are() {
    let (none, provenance, plain) = hit_ratio(Overlay::None);
    assert_eq!((none, provenance.to_string().as_str()), (0.0, "overlay(none, 0)"));
    for ratio in [0.2, 0.4, 0.6] {
        let (reached, provenance, _) = hit_ratio(Overlay::Target { ratio, seed: 3 });
        assert!((reached - ratio).abs() < 0.005, "{reached} instead of {ratio}");
        assert_eq!(provenance.to_string(), format!("overlay(target {ratio}, 3)"));
    }
    let (apps, provenance, records) = hit_ratio(Overlay::Apps { seed: 1 });
    assert!((0.1..0.55).contains(&apps), "{apps}");
    assert_eq!(provenance.to_string(), "overlay(apps, 1)");
    assert_eq!(records, hit_ratio(Overlay::Apps { seed: 1 }).2, "the same seed gives the same blocks");
    assert_ne!(records, hit_ratio(Overlay::Apps { seed: 2 }).2);
    let (sessions, _, records) = hit_ratio(Overlay::Sessions { seed: 1 });
    assert!(sessions > 0.05, "{sessions}");
    let later = records.iter().filter(|record| record.turn > Some(1)).count();
    assert!(later > 1000, "{later} requests continue others");
    let lengths =
        |records: &[Record]| records.iter().map(|r| (r.at, r.prompt_tokens, r.output_tokens)).collect::<Vec<_>>();
    assert_eq!(lengths(&plain), lengths(&records), "lengths and times are left as they were");
}

#[test]
fn recorded_conversations_imply_what_they_share() {
    let heading = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n";
    let rows = "0,s,1,GPT-4,100,50,150,Conversation log\n60,s,1,GPT-4,160,50,210,Conversation log\n\
                70,t,1,GPT-4,160,50,210,Conversation log\n90,s,1,GPT-4,30,50,80,Conversation log\n";
    let file = file(format!("{heading}{rows}"));
    let how = How { overlay: Overlay::Inferred, ..How::default() };
    let read = read_trace(&Trace::open_as(file.path(), how).unwrap()).unwrap();
    assert_eq!(read.provenance, Provenance::Inferred);
    let [first, second, other, short] = read.records.as_slice() else { panic!("four records") };
    assert_eq!(second.blocks[..6], first.blocks[..6], "all full blocks of the prompt before");
    assert_ne!(second.blocks[6], first.blocks[6]);
    assert!(other.blocks.iter().chain(&short.blocks).all(|block| !first.blocks.contains(block)));
}

#[test]
fn no_overlay_is_laid_over_a_structure() {
    let how = How { overlay: Overlay::Apps { seed: 0 }, ..How::default() };
    let error = Trace::open_as(data("mooncake/toolagent_arxiv_slice_93rows.jsonl"), how).unwrap_err().to_string();
    assert!(error.contains("has a prefix structure of its own (real)"), "{error}");
}

#[test]
fn mooncake_tool_and_agent_slice() {
    let slice = read_trace(&Trace::open(data("mooncake/toolagent_arxiv_slice_93rows.jsonl")).unwrap()).unwrap();
    assert_eq!((slice.format, slice.records.len(), slice.tally.miscounted_ids), (Format::Mooncake, 93, 0));
    let mut cache = InfiniteCache::new(BlockSize::new(512).unwrap());
    slice.records.iter().for_each(|record| cache.visit(record));
    assert_eq!((cache.reuse().blocks, cache.distinct_blocks()), (1449, 937));
    assert_eq!(format!("{:.3} {:.3}", cache.reuse().block_hit_ratio(), cache.reuse().token_hit_ratio()), "0.353 0.366");
}

/// The beginning of a file of each format.
const BEGINNINGS: [&str; 15] = [
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
        Format::ShareGpt,
        Format::Kavier,
        Format::BurstGpt,
        Format::Azure,
        Format::Vidur,
    ]) {
        match Trace::open(file(beginning).path()) {
            Ok(trace) => assert_eq!(trace.format(), format),
            Err(error) => assert!(format == Format::ShareGpt, "{format}: {error}"),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), beginning in 0..BEGINNINGS.len()) {
        let _ = read([BEGINNINGS[beginning].as_bytes(), &bytes].concat());
        let _ = read([&[0x28, 0xb5, 0x2f, 0xfd], bytes.as_slice()].concat());
        let _ = read([b"{".as_slice(), &bytes].concat());
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
        let _ = read(format!("{}{json}{csv}", BEGINNINGS[beginning]));
    }
}
