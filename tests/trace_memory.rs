//! A reader holds a few megabytes at most, however large the file is: each format, plain, and compressed in every way.
#![allow(unsafe_code, reason = "an allocator is unsafe to write; this one only counts")]

use flate2::{Compression, write::GzEncoder};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use warmpath::trace::{Format, How, Message, Overlay, Tokenize, Tokenizer, Trace};

struct Counting;

thread_local! {
    /// Bytes held by this thread, and the most that it ever held since asked.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    HELD.with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A token a byte, for texts.
struct Bytes;

impl Tokenize for Bytes {
    fn chat(&self, messages: &[Message]) -> Option<Vec<u32>> {
        Some(messages.iter().flat_map(|message| message.content.bytes()).map(u32::from).collect())
    }

    fn text(&self, text: &str) -> Option<Vec<u32>> {
        Some(text.bytes().map(u32::from).collect())
    }
}

/// Of each file, uncompressed.
const FILE_BYTES: usize = 12 << 20;
/// What a reader may hold: the records held back to put them in order, the conversations and chats that it must know, and a
/// piece of the file.
const READER_BYTES: isize = 6 << 20;
/// The same where the file is Parquet: a page of every column besides, packed and unpacked. Files are written in pages of
/// about one megabyte, whatever the size of their row groups.
const PARQUET_BYTES: isize = 10 << 20;

/// Reads all of a file; how many records there were, and the most that was held meanwhile.
fn read(path: &Path, format: Format, overlay: Overlay) -> (u64, isize) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let tokenizer = Some(Tokenizer(Arc::new(Bytes)));
    let trace = Trace::open_as(path, How { overlay, tokenizer, ..How::default() }).unwrap();
    assert_eq!(trace.format(), format);
    let mut records = trace.records().unwrap();
    let read = records.by_ref().map(Result::unwrap).count() as u64;
    (read, HELD.with(Cell::get).1 - before)
}

/// Lines of `line(row)` until the file is large; how many.
fn lines(out: impl Write, heading: &str, line: impl Fn(u64) -> String) -> u64 {
    let mut out = BufWriter::new(out);
    let mut bytes = out.write(heading.as_bytes()).unwrap();
    let mut rows = 0;
    while bytes < FILE_BYTES {
        let line = line(rows);
        writeln!(out, "{line}").unwrap();
        (bytes, rows) = (bytes + line.len() + 1, rows + 1);
    }
    out.flush().unwrap();
    rows
}

fn check(format: Format, heading: &str, line: impl Fn(u64) -> String) {
    check_with(format, Overlay::None, heading, line);
}

#[track_caller]
fn check_with(format: Format, overlay: Overlay, heading: &str, line: impl Fn(u64) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let rows = lines(File::create(&path).unwrap(), heading, line);
    let (records, held) = read(&path, format, overlay);
    assert_eq!(records, rows, "{format}");
    assert!(held < READER_BYTES, "{format} held {held} bytes");
}

/// Block ids of a prompt: a shared head, and a tail of its own.
fn ids(row: u64, count: u64) -> String {
    let ids: Vec<String> =
        (0..count).map(|place| (if place < count / 2 { place } else { row * 100 + place }).to_string()).collect();
    ids.join(",")
}

fn qwen(row: u64) -> String {
    let parent = if row.is_multiple_of(3) { -1 } else { row as i64 - 1 };
    format!(
        r#"{{"chat_id":{row},"parent_chat_id":{parent},"timestamp":{}.{:03},"input_length":640,"output_length":9,"type":"text","turn":1,"hash_ids":[{}]}}"#,
        row / 50,
        row % 50,
        ids(row, 40)
    )
}

#[test]
fn formats_of_lines() {
    check(Format::QwenBailian, "", qwen);
    check(Format::Mooncake, "", |row| {
        format!(r#"{{"timestamp":{row},"input_length":20480,"output_length":9,"hash_ids":[{}]}}"#, ids(row, 40))
    });
    check(Format::Native, "{\"warmpath_trace\":1,\"block_tokens\":16,\"prefix\":\"real\"}\n", |row| {
        format!(r#"{{"at_ns":{row},"prompt_tokens":640,"output_tokens":9,"blocks":[{}]}}"#, ids(row, 40))
    });
    check(Format::Dynamo, "", |row| {
        format!(
            r#"{{"session_id":"s{row}","timestamp":{row},"input_length":20480,"output_length":9,"hash_ids":[{}]}}"#,
            ids(row, 40)
        )
    });
    check(Format::DynamoRequest, "", |row| {
        format!(
            r#"{{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":{},"request":{{"output_tokens":9,"replay":{{"trace_block_size":16,"input_length":640,"input_sequence_hashes":[{}]}}}}}}"#,
            1_777_312_801_000 + row,
            ids(row, 40)
        )
    });
    check(Format::Gmi, "", |row| {
        format!(
            r#"{{"timestamp":"{}","input_length":640,"output_length":9,"hash_ids":[{}]}}"#,
            1_753_694_362_340_138_614 + row,
            ids(row, 20)
        )
    });
    check(Format::RagPulse, "", |row| {
        format!(
            r#"{{"timestamp":"{row}","input_length":640,"output_length":9,"hash_ids":{{"sys_prompt":[{}],"user_input":[{row}]}},"session_id":"s{row}"}}"#,
            ids(row, 20)
        )
    });
    check(Format::Marconi, "", |row| {
        format!(
            r#"{{"session_id":{row},"turn_id":0,"ts":{row}.5,"num_input_tokens":300,"num_output_tokens":2,"input_tokens":[{}],"output_tokens":[1,2]}}"#,
            ids(row % 7, 300)
        )
    });
    check(Format::LlmServingSim, "", |row| {
        format!(
            r#"{{"input_toks":300,"output_toks":9,"arrival_time_ns":{row},"input_tok_ids":[{}]}}"#,
            ids(row % 7, 300)
        )
    });
}

/// A request each, so that records are lines here, too.
#[test]
fn formats_of_sessions() {
    check(Format::Weka, "", |row| {
        format!(
            r#"{{"id":"s{row}","models":["m"],"block_size":64,"hash_id_scope":"local","requests":[{{"t":0.5,"type":"n","model":"m","in":1290,"out":9,"hash_ids":[{}]}}]}}"#,
            ids(row, 20)
        )
    });
    let said = "what was said and what was asked again and again ".repeat(8);
    check(Format::LmSys, "", |row| {
        format!(
            r#"{{"conversation_id":"{row}","model":"m","conversation":[{{"role":"user","content":"{said}"}},{{"role":"assistant","content":"{said}"}}],"turn":1}}"#
        )
    });
    check(Format::ShareGpt, "", |row| {
        format!(
            r#"{{"id":"c{row}_0","conversations":[{{"from":"human","value":"{said}"}},{{"from":"gpt","value":"{said}"}}]}}"#
        )
    });
}

#[test]
fn formats_of_columns() {
    let v3 = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n";
    let burstgpt =
        |row: u64| format!("{row}.0,session-{row},3,GPT-4,{},{},9,Conversation log", 100 + row % 900, 1 + row % 9);
    check(Format::BurstGpt, v3, burstgpt);
    check_with(Format::BurstGpt, Overlay::Inferred, v3, burstgpt);
    check(Format::Azure, "TIMESTAMP,ContextTokens,GeneratedTokens\n", |row| {
        let second = row / 40;
        let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
        format!("2024-05-10 {clock}.{:06}+00:00,500,3", row % 40)
    });
    check(Format::Vidur, "arrived_at,num_prefill_tokens,num_decode_tokens\n", |row| format!("{row}.25,500,3"));
    check(Format::Kavier, "session_id,turn_id,ts,num_input_tokens,num_output_tokens,input_tokens\n", |row| {
        format!("{row},0,{row}.0,300,3,\"[{}]\"", ids(row % 7, 300))
    });
}

#[test]
fn compressed_files() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    let rows = lines(File::create(&plain).unwrap(), "", qwen);
    let bytes = std::fs::read(&plain).unwrap();
    let gz = folder.path().join("gz");
    let mut encoder = GzEncoder::new(File::create(&gz).unwrap(), Compression::fast());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap();
    let zst = folder.path().join("zst");
    std::fs::write(&zst, ruzstd::encoding::compress_to_vec(&bytes[..], ruzstd::encoding::CompressionLevel::Fastest))
        .unwrap();
    drop(bytes);
    for path in [&gz, &zst] {
        assert!(std::fs::metadata(path).unwrap().len() > 1 << 20);
        let (records, held) = read(path, Format::QwenBailian, Overlay::None);
        assert_eq!(records, rows);
        assert!(held < READER_BYTES, "{} held {held} bytes", path.display());
    }
}

/// All rows in one row group, which is larger than what may be held.
#[test]
fn parquet_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("parquet");
    let schema = parse_message_type(
        "message schema { REQUIRED DOUBLE ts; REQUIRED INT64 num_input_tokens; REQUIRED INT64 num_output_tokens; \
         REQUIRED BYTE_ARRAY input_tokens (UTF8); }",
    );
    let mut writer =
        SerializedFileWriter::new(File::create(&path).unwrap(), Arc::new(schema.unwrap()), Arc::default()).unwrap();
    const ROWS: usize = 16_000;
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let times: Vec<f64> = (0..ROWS).map(|row| row as f64).collect();
    column.typed::<DoubleType>().write_batch(&times, None, None).unwrap();
    column.close().unwrap();
    for length in [300_i64, 3] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[length; ROWS], None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    for row in 0..ROWS as u64 {
        let text = format!("[{}]", ids(row, 300));
        column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(text.into_bytes())], None, None).unwrap();
    }
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() > PARQUET_BYTES as u64);
    let (records, held) = read(&path, Format::Kavier, Overlay::None);
    assert_eq!(records, ROWS as u64);
    assert!(held < PARQUET_BYTES, "held {held} bytes");
}
