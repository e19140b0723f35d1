//! Parquet files, made to the schemas of their sources by `tests/data/parquet/make.py`.

use crate::support::{data, file, read_trace, with_tokenizer};
use warmpath::trace::{Format, How, Provenance, Record, Records, Trace};

fn open(name: &str) -> Result<Trace, warmpath::trace::TraceError> {
    Trace::open_as(data("parquet").join(name), with_tokenizer())
}

/// The same example as CSV, as Parquet with tokens as text, and as Parquet with tokens as lists.
#[test]
fn kavier_and_marconi_kavier_are_what_their_csv_is() {
    let csv = read_trace(&Trace::open(data("kavier/kavier-0.5.3_input_example.csv")).unwrap()).unwrap();
    for (name, format) in [("kavier.parquet", Format::Kavier), ("marconi_kavier.parquet", Format::Marconi)] {
        let read = read_trace(&open(name).unwrap()).unwrap();
        assert_eq!((read.format, read.provenance), (format, Provenance::Real));
        assert_eq!(read.records, csv.records, "{name}");
        assert_eq!(read.tally, csv.tally, "{name}");
    }
}

#[test]
fn lmsys_conversations_become_requests() {
    let read = read_trace(&open("lmsys_chat.parquet").unwrap()).unwrap();
    assert_eq!((read.format, read.provenance), (Format::LmSys, Provenance::Real));
    // Of nine messages that somebody asked, one has no answer and one an empty one.
    assert_eq!((read.tally.records, read.tally.dropped_no_output, read.tally.dropped_missing_parent), (5, 1, 1));
    let of = |session: Option<u64>| -> Vec<&Record> {
        read.records.iter().filter(|record| record.session == session).collect()
    };
    let first = of(read.records[0].session);
    assert_eq!(first.iter().map(|record| record.turn.unwrap()).collect::<Vec<_>>(), [1, 2]);
    let full = first[0].prompt_tokens as usize / 16;
    assert_eq!(first[0].blocks[..full - 1], first[1].blocks[..full - 1], "the second prompt begins as the first");
    let shared = read.records.iter().filter(|record| record.blocks.get(..4) == first[0].blocks.get(..4)).count();
    assert_eq!(shared, 3, "both turns, and the other conversation with that head");
    let kinds: Vec<_> = read.records.iter().map(|record| record.kind.as_ref().unwrap().name()).collect();
    assert!(kinds.contains(&"vicuna-13b") && kinds.contains(&"gpt-4"));
    assert_eq!(read_trace(&open("lmsys_chat.parquet").unwrap()).unwrap().records, read.records, "the same every time");
}

#[test]
fn a_folder_of_shards_is_one_trace() {
    let folder = tempfile::tempdir().unwrap();
    for shard in ["train-00000.parquet", "train-00001.parquet"] {
        std::fs::copy(data("parquet/marconi_kavier.parquet"), folder.path().join(shard)).unwrap();
    }
    let read = read_trace(&Trace::open(folder.path()).unwrap()).unwrap();
    assert_eq!(read.records.len(), 12);
}

#[test]
fn what_cannot_be_read_says_why() {
    let message =
        |trace: Result<Trace, _>| trace.err().map(|error: warmpath::trace::TraceError| error.to_string()).unwrap();
    let zstd = message(open("kavier_zstd.parquet"));
    assert!(zstd.contains("zstd; write it with Snappy, gzip or no compression"), "{zstd}");
    let text = message(Trace::open(data("parquet/lmsys_chat.parquet")));
    assert!(text.contains("LMSys-Chat-1M (times drawn) holds text") && text.contains("--tokenizer"), "{text}");
    let bytes = std::fs::read(data("parquet/kavier.parquet")).unwrap();
    let cut = message(Trace::open(file(&bytes[..1000]).path()));
    assert!(cut.contains("not a Parquet file that can be read"), "{cut}");
    let stream = Records::of_stream("pipe".as_ref(), Box::new(std::io::Cursor::new(bytes)), &How::default());
    let stream = stream.err().unwrap().to_string();
    assert!(stream.contains("read from its end"), "{stream}");
}
