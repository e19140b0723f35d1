//! Lines of comma-separated values, with columns found by name.
//!
//! A quoted cell may hold commas, as Kavier's token lists do, but no line feed: no trace has one. Of a line, no more is looked at
//! than up to its last cell that is wanted.

use super::super::error::LineError;
use super::super::record::Record;
use super::super::tally::DropReason;
use super::Batch;
use super::fields::lengths;
use memchr::memchr;
use std::time::Duration;

/// The names of the columns.
#[derive(Debug)]
pub(super) struct Header(Vec<String>);

/// A column that a format wants.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    /// Without it, it is not that format.
    Required(&'static str),
    /// Not all versions have it.
    Optional(&'static str),
}

/// Where in a line the cells of `N` wanted columns are.
#[derive(Debug)]
pub(super) struct Columns<const N: usize> {
    /// Of each column of the file up to the last wanted one: which of the wanted it is.
    wanted: Vec<Option<usize>>,
}

impl Header {
    pub(super) fn new(line: &str) -> Self {
        let name = |name: &str| name.trim().trim_matches('"').to_ascii_lowercase();
        Header(line.split(',').map(name).collect())
    }

    /// Where the column is, whatever the case of its name.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|column| column.eq_ignore_ascii_case(name))
    }
}

impl<const N: usize> Columns<N> {
    /// Finds `columns` in a heading.
    pub(super) fn find(heading: &str, columns: [Column; N]) -> Result<Self, LineError> {
        let header = Header::new(heading);
        let mut wanted = Vec::new();
        for (which, column) in columns.into_iter().enumerate() {
            match (column, column.index(&header)) {
                (_, Some(index)) => {
                    wanted.resize(wanted.len().max(index + 1), None);
                    wanted[index] = Some(which);
                }
                (Column::Required(name), None) => {
                    return Err(LineError::Malformed { reason: format!("there is no column {name}") });
                }
                (Column::Optional(_), None) => {}
            }
        }
        Ok(Columns { wanted })
    }

    /// Whether the file has the column, counted in the order in which they were asked for.
    pub(super) fn have(&self, which: usize) -> bool {
        self.wanted.contains(&Some(which))
    }

    /// The cells of a line, in that order, without blanks around them; an absent column's is empty. An error when the line is
    /// too short.
    #[inline]
    pub(super) fn cells<'a>(&self, line: &'a str) -> Result<[&'a str; N], LineError> {
        let mut cells = [""; N];
        let bytes = line.as_bytes();
        // Past the end once there is no other cell.
        let mut at = 0;
        for (column, wanted) in self.wanted.iter().enumerate() {
            if at > bytes.len() {
                return Err(LineError::Malformed {
                    reason: format!("the line has {column} cells, column {} is missing", column + 1),
                });
            }
            let (start, end);
            if bytes.get(at) == Some(&b'"') {
                start = at + 1;
                end = closing_quote(bytes, start).ok_or(LineError::Truncated)?;
                at = end + 1;
                if bytes.get(at).is_some_and(|&byte| byte != b',') {
                    return Err(LineError::Malformed { reason: "text follows a quoted cell".to_owned() });
                }
            } else {
                start = at;
                end = bytes[at..].iter().position(|&byte| byte == b',').map_or(bytes.len(), |length| at + length);
                at = end;
            }
            at += 1;
            if let Some(wanted) = *wanted {
                cells[wanted] = line[start..end].trim_ascii();
            }
        }
        Ok(cells)
    }
}

impl Column {
    fn index(self, header: &Header) -> Option<usize> {
        let (Column::Required(name) | Column::Optional(name)) = self;
        header.index(name)
    }
}

/// A count of tokens. Some tools write whole numbers as 12.0.
#[inline]
pub(super) fn tokens(cell: &str) -> Result<i64, LineError> {
    if let Ok(tokens) = cell.parse() {
        return Ok(tokens);
    }
    match cell.parse::<f64>() {
        Ok(tokens) if tokens.fract() == 0.0 && tokens.abs() < 9e15 => Ok(tokens as i64),
        _ => Err(LineError::Malformed { reason: format!("{cell:?} is not a number of tokens") }),
    }
}

/// A request of which no more is known than its time and its lengths; `None`, counted, when they are no request's.
#[inline]
pub(super) fn request(
    at: Option<Duration>,
    prompt: &str,
    output: &str,
    out: &mut Batch,
) -> Result<Option<Record>, LineError> {
    match (lengths(tokens(prompt)?, tokens(output)?), at) {
        (Ok((prompt_tokens, output_tokens)), Some(at)) => {
            return Ok(Some(Record { at, prompt_tokens, output_tokens, ..Record::default() }));
        }
        (Err(reason), _) => out.drop(reason),
        (Ok(_), None) => out.drop(DropReason::BadTime),
    }
    Ok(None)
}

/// The quote that ends a cell; two together are a quote inside it.
fn closing_quote(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr(b'"', bytes.get(at..)?)?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::Column::{Optional, Required};
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<[&str; 3], &str>) {
        let columns = Columns::find("\"A\", b ,c,D,e", [Required("d"), Optional("x"), Required("B")]).unwrap();
        assert!(columns.have(0) && !columns.have(1));
        assert_eq!(columns.cells(line).map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{line}");
    }

    #[test]
    fn cells_come_by_name() {
        check("1,2,3,4,5", Ok(["4", "", "2"]));
        check("1, 2 ,3,4", Ok(["4", "", "2"]));
        check("1,,,", Ok(["", "", ""]));
        check("1,\"2,\"\"x\"\"\",3,\"4\"", Ok(["4", "", "2,\"\"x\"\""]));
        check("1,2,3", Err("the line has 3 cells, column 4 is missing"));
        check("", Err("the line has 1 cells, column 2 is missing"));
        check("1,\"2,3,4", Err(&LineError::Truncated.to_string()));
        check("1,\"2\"3,3,4", Err("text follows a quoted cell"));
        // What comes after the last wanted cell is not looked at.
        check("1,2,3,4,\"5", Ok(["4", "", "2"]));
    }

    #[test]
    fn a_required_column_is_missed() {
        let error = Columns::find("a,b", [Required("a"), Required("c")]).unwrap_err();
        assert_eq!(error.to_string(), "there is no column c");
    }
}
