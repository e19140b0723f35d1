//! Reading traces: formats, oddities, and what is said of bad files.

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tempfile::NamedTempFile;
use warmpath::routing::block::{BlockSize, ContentHash};
use warmpath::trace::{Format, InfiniteCache, Kind, Record, Tally, TimeUnit, Trace, TraceError};

fn file(content: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_ref()).unwrap();
    file
}

fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn read(content: impl AsRef<[u8]>) -> Result<(Format, Vec<Record>, Tally), TraceError> {
    let file = file(content);
    let trace = Trace::open(file.path())?;
    let mut records = trace.records()?;
    let read = records.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((trace.format(), read, records.tally()))
}

fn qwen(at: &str, tokens: i64, output: i64, ids: &[u64]) -> String {
    format!(
        r#"{{"chat_id":1,"parent_chat_id":-1,"timestamp":{at},"input_length":{tokens},"output_length":{output},"type":"text","turn":1,"hash_ids":{ids:?}}}"#
    )
}

fn mooncake(at: &str, tokens: i64, ids: &[u64]) -> String {
    format!(r#"{{"timestamp": {at}, "input_length": {tokens}, "output_length": 5, "hash_ids": {ids:?}}}"#)
}

/// What is said of a bad file, without its path.
#[track_caller]
fn check_error(content: impl AsRef<[u8]>, expected: &str) {
    let file = file(content);
    let outcome = Trace::open(file.path()).and_then(|trace| trace.records()?.collect::<Result<Vec<_>, _>>());
    let message = outcome.expect_err("the file is bad").to_string();
    let message = message.replace(file.path().to_str().unwrap(), "FILE");
    assert!(!message.contains('\n'), "one line: {message}");
    assert_eq!(message, expected);
}

#[test]
fn a_real_qwen_bailian_record() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/qwen_bailian/thinking_first_row.jsonl");
    let trace = Trace::open(path).unwrap();
    assert_eq!(trace.format(), Format::QwenBailian);
    let records: Vec<Record> = trace.records().unwrap().map(Result::unwrap).collect();
    let blocks = (0..32).map(ContentHash).collect();
    let expected = Record {
        at: Duration::ZERO,
        prompt_tokens: 502,
        output_tokens: 1494,
        blocks,
        chat: Some(0),
        turn: Some(1),
        kind: Some(Kind::new("thinking")),
        ..Record::default()
    };
    assert_eq!(records, [expected]);
    assert_eq!(records[0].full_blocks(trace.block_size()).len(), 31, "the last block is partial");
}

#[test]
fn seconds_and_milliseconds_are_kept_apart() {
    let (format, records, _) = read([qwen("0.0", 1, 1, &[0]), qwen("61.114", 1, 1, &[0])].join("\n")).unwrap();
    assert_eq!((format, records[1].at), (Format::QwenBailian, Duration::from_millis(61_114)));
    let (format, records, _) = read([mooncake("0", 1, &[0]), mooncake("27482", 1, &[0])].join("\n")).unwrap();
    assert_eq!((format, records[1].at), (Format::Mooncake, Duration::from_millis(27_482)));
}

#[test]
fn gzip_crlf_blank_lines_and_a_missing_last_newline_do_not_matter() {
    let lines = [mooncake("0", 513, &[0, 1]), String::new(), mooncake("3000", 512, &[0])];
    let (_, plain, tally) = read(lines.join("\n")).unwrap();
    assert_eq!((plain.len(), tally.records), (2, 2));
    for same in [
        lines.join("\r\n").into_bytes(),
        gzip(lines.join("\n")),
        [gzip(lines[..2].join("\n")), gzip(format!("\n{}", lines[2]))].concat(),
    ] {
        assert_eq!(read(same).unwrap().1, plain);
    }
}

#[test]
fn a_block_is_its_id_after_its_parent() {
    // In Qwen-Bailian A and B the same content has the same id wherever it stands.
    let lines = [qwen("0", 48, 1, &[1, 2, 3]), qwen("1", 48, 1, &[9, 2, 3]), qwen("2", 48, 1, &[1, 2, 4])];
    let (_, records, _) = read(lines.join("\n")).unwrap();
    let mut cache = InfiniteCache::new(BlockSize::DEFAULT);
    let hits = records.iter().map(|record| {
        let before = cache.reuse().hit_blocks;
        cache.visit(record);
        cache.reuse().hit_blocks - before
    });
    assert_eq!(hits.collect::<Vec<_>>(), [0, 0, 2], "2 and 3 after 9 are other blocks than 2 and 3 after 1");
    assert_eq!(cache.distinct_blocks(), 7);
}

#[test]
fn what_is_left_out_is_counted() {
    let lines = [
        qwen("0", 20, 3, &[1, 2]),
        qwen("1", 0, 3, &[]),
        qwen("2", 20, 0, &[1, 2]),
        qwen("3", -1, 3, &[]),
        qwen("4", 20, 3, &[1, 2, 3]),
        qwen("5", 99_999_999_999, 3, &[1]),
    ];
    let (_, records, tally) = read(lines.join("\n")).unwrap();
    assert_eq!(
        tally,
        Tally {
            records: 2,
            dropped_no_prompt: 2,
            dropped_no_output: 1,
            dropped_too_long: 1,
            miscounted_ids: 1,
            ..Tally::default()
        }
    );
    assert_eq!(records[1].blocks.len(), 2, "ids beyond the prompt are no blocks of it");
}

#[test]
fn time_unit_can_be_overridden() {
    let file = file([mooncake("0.5", 1, &[0]), mooncake("1.5", 1, &[0])].join("\n"));
    let trace = Trace::open(file.path()).unwrap().with_time_unit(TimeUnit::Seconds);
    let times: Vec<Duration> = trace.records().unwrap().map(|record| record.unwrap().at).collect();
    assert_eq!(times, [Duration::from_millis(500), Duration::from_millis(1500)]);
}

#[test]
fn bad_files_get_one_clear_line() {
    let good = mooncake("0", 600, &[0, 1]);
    check_error(
        "version https://git-lfs.github.com/spec/v1\noid sha256:07ce\nsize 56\n",
        "FILE is a Git LFS pointer, not the data; run `git lfs pull` in the repository that it came from",
    );
    check_error("", "FILE is empty");
    let known = Format::ALL.map(Format::name).join(", ");
    check_error(
        "Name,Age\nAnn,7\n",
        &format!(
            "FILE is in no format that can be read: its first line is neither JSON nor a heading with known columns; \
             known formats are {known}"
        ),
    );
    check_error(
        "{\"a\": 1, \"b\": 2}\n",
        &format!(
            "FILE is in no format that can be read: its first line has the fields a, b; known formats are {known}"
        ),
    );
    check_error(
        b"PAR1\x15\x04\xff\xfe".as_slice(),
        "FILE: not a Parquet file that can be read: Parquet error: Invalid Parquet file. Corrupt footer",
    );
    let cut = "the record is cut off in the middle; the file is incomplete, fetch it again";
    check_error(format!("{good}\n{}", &good[..40]), &format!("FILE: line 2: {cut}"));
    let gzipped = gzip(format!("{good}\n{}", good.repeat(50)));
    check_error(&gzipped[..gzipped.len() - 12], &format!("FILE: line 2: {cut}"));
    check_error(
        format!("{good}\n{}", mooncake("27.482", 600, &[0, 1])),
        "FILE: line 2: timestamp 27.482 is not a whole number of milliseconds; if the file counts seconds, pass --time-unit s",
    );
    check_error(
        [qwen("0", 1, 1, &[0]), qwen("7199000", 1, 1, &[0])].join("\n"),
        "FILE: line 2: timestamp 7199000 is more than a month after the start, in seconds; if the file counts \
         milliseconds, pass --time-unit ms",
    );
    check_error(
        qwen("0", 6758, 1, &[0; 14]),
        "FILE: line 1: 14 block ids for 6758 tokens make blocks of 512 tokens, not of 16 as in Qwen-Bailian; the file \
         mixes formats or was converted wrongly",
    );
    check_error(
        [mooncake("9000", 1, &[0]), mooncake("8000", 1, &[0])].join("\n"),
        "FILE: line 2: timestamp 8 s is earlier than that of the record before (9 s); sort the trace by time",
    );
    check_error(format!("{good}\n\u{fffd}"), "FILE: line 2: not a Mooncake record: expected value at column 1");
    check_error([good.as_bytes(), b"\n\xff\xfe"].concat(), "FILE: line 2: the line is not UTF-8 text");
    check_error(
        format!("{good}\n{}", good.replace("\"hash_ids\": [0, 1]", "\"hash_ids\": 7")),
        "FILE: line 2: not a Mooncake record: invalid type: integer `7`, expected a sequence at column 71",
    );
}

#[test]
fn a_line_may_be_long_but_not_endless() {
    let limit = 8 << 20;
    let line = |bytes: usize| {
        let line = mooncake("0", 600, &[0, 1]);
        format!("{}{}{}", &line[..line.len() - 1], " ".repeat(bytes - line.len()), "}")
    };
    for [before, after] in [["", ""], ["\n\n", "\n"]] {
        let (_, records, _) = read(format!("{before}{}{after}", line(limit - 1))).unwrap();
        assert_eq!(records.len(), 1);
    }
    let good = mooncake("0", 600, &[0, 1]);
    let said = "FILE: line 2: the line is longer than 8 MiB; this is no trace with one record a line";
    check_error(format!("{good}\n{}", line(limit + 1)), said);
    check_error(format!("{good}\n{}\n{good}", line(3 * limit)), said);
    check_error(format!("{good}\n{}", "0".repeat(2 * limit)), said);
    // Blank, and too long all the same.
    check_error(format!("{good}\n{}", " ".repeat(2 * limit)), said);
}

/// However the lines fall on the buffer's ends, they are the same lines.
#[test]
fn lines_may_end_anywhere() {
    let lines: Vec<String> =
        (0..3000).map(|row| format!("{}{}", " ".repeat(row % 97), mooncake("0", 600, &[0, row as u64]))).collect();
    let (_, records, _) = read(lines.join("\n")).unwrap();
    let ids: Vec<u64> = records.iter().map(|record| record.blocks[1].0).collect();
    assert_eq!(ids, (0..3000).collect::<Vec<_>>());
}

#[test]
fn what_is_not_a_file_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let message = Trace::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("is a folder without files in .json or .parquet"), "{message}");
    let absent = Trace::open(folder.path().join("absent.jsonl")).unwrap_err();
    assert!(absent.to_string().starts_with("cannot read "), "{absent}");
    assert!(absent.source().unwrap().to_string().contains("No such file"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), header in 0..3_usize) {
        let header = ["".to_owned(), qwen("0", 20, 1, &[1, 2]), mooncake("0", 600, &[1, 2])][header].clone();
        let _ = read([header.as_bytes(), b"\n", &bytes].concat());
        let _ = read([&[0x1f, 0x8b], bytes.as_slice()].concat());
    }

    #[test]
    fn any_numbers_are_read_or_refused(at in -1e12..1e12_f64, tokens in any::<i64>(), output in any::<i64>(), ids in prop::collection::vec(any::<u64>(), 0..9)) {
        let _ = read(qwen(&at.to_string(), tokens, output, &ids));
        let _ = read(mooncake(&at.to_string(), tokens, &ids));
    }
}
