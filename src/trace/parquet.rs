//! Parquet files, row by row, each as the JSON object that a reader of JSON lines would be given.
//!
//! Read page by page, so what is held at once is a page of each column that is needed: a megabyte, as files are usually
//! written, whatever the size of a row group. Compressed with Snappy or gzip, or not at all.
//!
//! Absent on purpose: Zstandard and LZ4 inside Parquet (C libraries); streams, as a Parquet file is read from its end.

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) const MAGIC: &[u8] = b"PAR1";

/// Columns that no reader looks at and that are most of a file: LMSys-Chat-1M's scores of moderation.
const PASSED_OVER: &[&str] = &["openai_moderation"];

/// The rows of a file.
pub(super) struct Rows(RowIter<'static>);

impl Rows {
    pub(super) fn open(file: File) -> io::Result<Self> {
        guarded(|| {
            let reader = SerializedFileReader::new(file).map_err(damaged)?;
            let schema = reader.metadata().file_metadata().schema();
            let wanted: Vec<_> =
                schema.get_fields().iter().filter(|field| !PASSED_OVER.contains(&field.name())).cloned().collect();
            let all = wanted.len() == schema.get_fields().len();
            let projection = Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(damaged)?;
            let rows = RowIter::from_file_into(Box::new(reader));
            // Fewer at once than the default: a prompt's tokens are a long list.
            let rows = rows.project((!all).then_some(projection)).map_err(damaged)?.with_batch_size(64);
            Ok(Rows(rows))
        })
    }

    /// Puts the next row into `into`; false at the end.
    pub(super) fn next(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        into.clear();
        let row = guarded(|| self.0.next().transpose().map_err(damaged))?;
        match row {
            Some(row) => write_row(&row, into).map(|()| true),
            None => Ok(false),
        }
    }
}

/// The library answers some damage with a panic.
fn guarded<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(damaged("its pages contradict its schema")))
}

fn damaged(error: impl Display) -> io::Error {
    let mut reason = format!("not a Parquet file that can be read: {error}");
    if reason.contains("Disabled feature") {
        reason += "; write it with Snappy, gzip or no compression";
    }
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn write_row(row: &Row, into: &mut Vec<u8>) -> io::Result<()> {
    into.push(b'{');
    for (index, (name, field)) in row.get_column_iter().enumerate() {
        if index > 0 {
            into.push(b',');
        }
        serde_json::to_writer(&mut *into, name)?;
        into.push(b':');
        write_field(field, into)?;
    }
    into.push(b'}');
    Ok(())
}

fn write_field(field: &Field, into: &mut Vec<u8>) -> io::Result<()> {
    match field {
        Field::Bool(value) => write!(into, "{value}"),
        Field::Byte(value) => write!(into, "{value}"),
        Field::Short(value) => write!(into, "{value}"),
        Field::Int(value) | Field::Date(value) | Field::TimeMillis(value) => write!(into, "{value}"),
        Field::Long(value) | Field::TimeMicros(value) => write!(into, "{value}"),
        Field::TimestampMillis(value) | Field::TimestampMicros(value) => write!(into, "{value}"),
        Field::UByte(value) => write!(into, "{value}"),
        Field::UShort(value) => write!(into, "{value}"),
        Field::UInt(value) => write!(into, "{value}"),
        Field::ULong(value) => write!(into, "{value}"),
        // What is no number is null in JSON.
        Field::Float16(value) => Ok(serde_json::to_writer(into, &f32::from(*value))?),
        Field::Float(value) => Ok(serde_json::to_writer(into, value)?),
        Field::Double(value) => Ok(serde_json::to_writer(into, value)?),
        Field::Str(text) => Ok(serde_json::to_writer(into, text)?),
        Field::Bytes(bytes) => Ok(serde_json::to_writer(into, &String::from_utf8_lossy(bytes.data()))?),
        Field::Group(row) => write_row(row, into),
        Field::ListInternal(list) => {
            into.push(b'[');
            for (index, element) in list.elements().iter().enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                write_field(element, into)?;
            }
            into.push(b']');
            Ok(())
        }
        // No trace has decimals or maps.
        Field::Null | Field::Decimal(_) | Field::MapInternal(_) => into.write_all(b"null"),
    }
}
