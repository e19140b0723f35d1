//! A fast reader of the flat JSON objects of Qwen-Bailian and Mooncake.
//!
//! It takes objects whose fields are numbers, texts without escapes and one list of whole numbers, which is all that these
//! formats write; anything else it leaves to serde_json, which then says what is wrong or reads what is merely unusual.
//! Nine tenths of a line are digits and commas of `hash_ids`, and those cost one loop here.

use crate::routing::block::ContentHash;

/// The fields of a line. Absent ones are `None`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Flat<'a> {
    pub(super) chat_id: Option<i64>,
    pub(super) parent_chat_id: Option<i64>,
    /// As written.
    pub(super) timestamp: Option<&'a str>,
    pub(super) input_length: Option<i64>,
    pub(super) output_length: Option<i64>,
    pub(super) kind: Option<&'a str>,
    pub(super) turn: Option<i64>,
    pub(super) hash_ids: Option<Vec<ContentHash>>,
}

/// The fields of `line`; `None` when it is not as simple as that.
pub(super) fn flat(line: &str) -> Option<Flat<'_>> {
    let mut scanner = Scanner { text: line, at: 0 };
    let mut flat = Flat::default();
    scanner.skip(b'{')?;
    loop {
        let name = scanner.text()?;
        scanner.skip(b':')?;
        match name {
            "chat_id" => flat.chat_id = Some(scanner.integer()?),
            "parent_chat_id" => flat.parent_chat_id = Some(scanner.integer()?),
            "timestamp" => flat.timestamp = Some(scanner.number()?),
            "input_length" => flat.input_length = Some(scanner.integer()?),
            "output_length" => flat.output_length = Some(scanner.integer()?),
            "type" => flat.kind = Some(scanner.text()?),
            "turn" => flat.turn = Some(scanner.integer()?),
            "hash_ids" => flat.hash_ids = Some(scanner.ids(flat.input_length.unwrap_or(0))?),
            _ => return None,
        }
        match scanner.byte()? {
            b',' => {}
            b'}' => return (scanner.at == line.len()).then_some(flat),
            _ => return None,
        }
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// The next byte that is not blank.
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            self.at += 1;
            if byte != b' ' {
                return Some(byte);
            }
        }
    }

    #[inline]
    fn skip(&mut self, expected: u8) -> Option<()> {
        (self.byte()? == expected).then_some(())
    }

    fn text(&mut self) -> Option<&'a str> {
        self.skip(b'"')?;
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
        self.at += length;
        self.skip(b'"')?;
        Some(&rest[..length])
    }

    /// A number as it is written, without an exponent.
    fn number(&mut self) -> Option<&'a str> {
        while self.text.as_bytes().get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        let rest = &self.text[self.at..];
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        // JSON has no number that begins with a point or with a needless zero.
        let begins = digits.as_bytes().first()?.is_ascii_digit()
            && !(digits.starts_with('0') && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit));
        let length = digits.bytes().position(|byte| !(byte.is_ascii_digit() || byte == b'.'))?;
        let number = &rest[..rest.len() - digits.len() + length];
        self.at += number.len();
        (begins && !number.ends_with('.') && number.bytes().filter(|&byte| byte == b'.').count() < 2).then_some(number)
    }

    fn integer(&mut self) -> Option<i64> {
        self.number()?.parse().ok()
    }

    fn ids(&mut self, tokens: i64) -> Option<Vec<ContentHash>> {
        self.skip(b'[')?;
        let bytes = self.text.as_bytes();
        // As many as a prompt of 16-token blocks has, and no more than the line has room for.
        let expected = usize::try_from(tokens / 16 + 1).unwrap_or(0).min((bytes.len() - self.at) / 2 + 1);
        let mut ids = Vec::with_capacity(expected);
        let mut at = self.at;
        while *bytes.get(at)? == b' ' {
            at += 1;
        }
        if bytes[at] == b']' {
            self.at = at + 1;
            return Some(ids);
        }
        loop {
            while *bytes.get(at)? == b' ' {
                at += 1;
            }
            let start = at;
            let mut id = 0_u64;
            loop {
                let digit = bytes.get(at)?.wrapping_sub(b'0');
                if digit > 9 {
                    break;
                }
                id = id.wrapping_mul(10).wrapping_add(u64::from(digit));
                at += 1;
            }
            // Nineteen digits fit; a twentieth is rare enough for serde_json.
            let digits = at - start;
            if digits == 0 || digits > 19 || (bytes[start] == b'0' && digits > 1) {
                return None;
            }
            ids.push(ContentHash(id));
            match *bytes.get(at)? {
                b',' => at += 1,
                b']' => break,
                _ => return None,
            }
        }
        self.at = at + 1;
        Some(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_unusual_is_left_to_serde() {
        let usual = r#"{"timestamp": 1.5, "input_length": 3, "hash_ids": [1, 22,333]}"#;
        let read = flat(usual).unwrap();
        assert_eq!((read.timestamp, read.input_length), (Some("1.5"), Some(3)));
        assert_eq!(read.hash_ids, Some(vec![ContentHash(1), ContentHash(22), ContentHash(333)]));
        assert_eq!(flat(r#"{"hash_ids":[ ]}"#).unwrap().hash_ids, Some(Vec::new()));
        for unusual in [
            "",
            "{",
            "{}",
            r#"{"timestamp":1.5e3}"#,
            r#"{"timestamp":01}"#,
            r#"{"timestamp":1.}"#,
            r#"{"type":"a\"b"}"#,
            r#"{"turn":1} x"#,
            r#"{"hash_ids":[1,]}"#,
            r#"{"hash_ids":[-1]}"#,
            r#"{"hash_ids":[1 2]}"#,
            r#"{"hash_ids":[01]}"#,
            r#"{"hash_ids":[12345678901234567890]}"#,
            r#"{"other":1}"#,
        ] {
            assert_eq!(flat(unusual), None, "{unusual}");
        }
    }

    proptest! {
        #[test]
        fn what_it_reads_is_json(text in r#"\{("(turn|type|hash_ids|timestamp)": ?(-?[0-9]{1,3}(\.[0-9])?|"[a-z\\]{0,3}"|\[[0-9, ]{0,6}\]),?){0,3}\}"#) {
            if flat(&text).is_some() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
            }
        }
    }
}
