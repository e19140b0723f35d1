//! Lines of comma-separated values, with columns found by name.
//!
//! A quoted cell may hold commas, as Kavier's token lists do, but no line feed: no trace has one.

use super::super::error::LineError;

/// The names of the columns.
#[derive(Debug)]
pub(super) struct Header(Vec<String>);

/// The cells of one line; memory is kept for the next.
#[derive(Debug, Default)]
pub(super) struct Row {
    cells: Vec<(usize, usize)>,
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

    /// Where a column is that told the format.
    pub(super) fn require(&self, name: &str) -> Result<usize, LineError> {
        self.index(name).ok_or_else(|| LineError::Malformed { reason: format!("there is no column {name}") })
    }
}

impl Row {
    /// Takes the cells of `line` apart.
    pub(super) fn split(&mut self, line: &str) -> Result<(), LineError> {
        self.cells.clear();
        let bytes = line.as_bytes();
        let mut at = 0;
        loop {
            if bytes.get(at) == Some(&b'"') {
                let Some(end) = closing_quote(bytes, at + 1) else { return Err(LineError::Truncated) };
                self.cells.push((at + 1, end));
                at = end + 1;
                if bytes.get(at).is_some_and(|&byte| byte != b',') {
                    return Err(LineError::Malformed { reason: "text follows a quoted cell".to_owned() });
                }
            } else {
                let end = bytes[at..].iter().position(|&byte| byte == b',').map_or(bytes.len(), |length| at + length);
                self.cells.push((at, end));
                at = end;
            }
            if at >= bytes.len() {
                return Ok(());
            }
            at += 1;
        }
    }

    /// A cell; an error when the line is too short.
    pub(super) fn cell<'a>(&self, line: &'a str, index: usize) -> Result<&'a str, LineError> {
        match self.cells.get(index) {
            Some(&(start, end)) => Ok(line[start..end].trim()),
            None => Err(LineError::Malformed {
                reason: format!("the line has {} cells, column {} is missing", self.cells.len(), index + 1),
            }),
        }
    }

    /// A count of tokens. Some tools write whole numbers as 12.0.
    pub(super) fn tokens(&self, line: &str, index: usize) -> Result<i64, LineError> {
        let cell = self.cell(line, index)?;
        if let Ok(tokens) = cell.parse() {
            return Ok(tokens);
        }
        match cell.parse::<f64>() {
            Ok(tokens) if tokens.fract() == 0.0 && tokens.abs() < 9e15 => Ok(tokens as i64),
            _ => Err(LineError::Malformed { reason: format!("{cell:?} is not a number of tokens") }),
        }
    }
}

/// The quote that ends a cell; two together are a quote inside it.
fn closing_quote(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == b'"')?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}
