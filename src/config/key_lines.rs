//! Clients' keys as they are kept: a line for each, with its name, the SHA-256 of the key, and what it may.
//!
//! ```text
//! team-a sha256:9f86d0… requests_per_second=20 burst=40 tokens_per_minute=1000000 concurrent_max=64 priority=low
//! ```
//!
//! A key has 256 bits of chance, so that its plain hash cannot be turned round; a password would need a slow hash, and is no key.

use super::security::Quota;
use crate::routing::admission::Priority;
use std::collections::HashSet;
use std::fmt;

/// What is known of a key: not the key.
#[derive(Clone, PartialEq)]
pub struct KeyLine {
    /// What its holder is called in logs.
    pub name: String,
    /// The SHA-256 of the key.
    pub digest: [u8; 32],
    /// What it may, where its line says.
    pub quota: Quota,
    /// How urgent its requests are that do not say so themselves.
    pub priority: Option<Priority>,
}

impl fmt::Debug for KeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLine")
            .field("name", &self.name)
            .field("quota", &self.quota)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// Keys that one router knows: each request's is compared with every one of them.
pub const KEYS_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 64;
const DIGEST: &str = "sha256:";
/// What a caller without a key is called.
const RESERVED: &str = "anonymous";

/// Reads the lines of a file, or of a setting, where `;` stands for the end of a line too. The error says which line is wrong
/// and how, never what it holds but names.
pub fn key_lines(text: &str) -> Result<Vec<KeyLine>, String> {
    let (mut keys, mut names, mut digests) = (Vec::new(), HashSet::new(), HashSet::new());
    for (at, line) in text.split(['\n', ';']).enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line_of(line).map_err(|what| format!("line {}: {what}", at + 1))?;
        if !names.insert(key.name.clone()) {
            return Err(format!("line {}: the name {:?} is there twice", at + 1, key.name));
        }
        if !digests.insert(key.digest) {
            return Err(format!("line {}: the key of {:?} has another name already", at + 1, key.name));
        }
        keys.push(key);
        if keys.len() > KEYS_MAX {
            return Err(format!("there are more than {KEYS_MAX} keys"));
        }
    }
    Ok(keys)
}

/// Whether a key may be called this.
pub fn is_key_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) && name != RESERVED
}

fn line_of(line: &str) -> Result<KeyLine, String> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next().filter(|name| is_key_name(name));
    let name = name.ok_or("it does not begin with a name of up to 64 letters, digits, dots, dashes and underscores")?;
    let digest = words.next().and_then(|word| word.strip_prefix(DIGEST)).and_then(digest);
    let digest = digest.ok_or_else(|| format!("the name {name:?} is not followed by {DIGEST} and 64 hex digits"))?;
    let mut line = KeyLine { name: name.to_owned(), digest, quota: Quota::default(), priority: None };
    for word in words {
        set(&mut line, word).ok_or_else(|| {
            format!(
                "a setting of {name:?} is none of requests_per_second=, burst=, tokens_per_minute=, concurrent_max= \
                 with a number above 0, or priority= with high, normal or low"
            )
        })?;
    }
    Ok(line)
}

fn set(KeyLine { quota, priority, .. }: &mut KeyLine, word: &str) -> Option<()> {
    let (setting, value) = word.split_once('=')?;
    match setting {
        "requests_per_second" => {
            quota.requests_per_second = Some(value.parse().ok().filter(|rate| *rate > 0.0 && *rate <= 1e9)?);
        }
        "burst" => quota.burst = Some(value.parse().ok().filter(|burst| *burst > 0)?),
        "tokens_per_minute" => quota.tokens_per_minute = Some(value.parse().ok().filter(|tokens| *tokens > 0)?),
        "concurrent_max" => quota.concurrent_max = Some(value.parse().ok().filter(|most| *most > 0)?),
        "priority" => *priority = Some(Priority::named(value)?),
        _ => return None,
    }
    Some(())
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let hex: &[u8; 64] = hex.as_bytes().try_into().ok()?;
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        let [high, low] = [char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?];
        *byte = (high * 16 + low) as u8;
    }
    Some(digest)
}

/// The line of a key, given its digest.
pub fn key_line(name: &str, digest: &[u8; 32]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name} {DIGEST}{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let digest = std::array::from_fn(|at| at as u8 * 7);
        let line = key_line("team-a", &digest);
        let text = format!(
            "# ours\n\n{line} burst=3 requests_per_second=0.5 priority=high\r\n b sha256:{} ; ",
            "AB".repeat(32)
        );
        let keys = key_lines(&text).unwrap();
        let quota = Quota { requests_per_second: Some(0.5), burst: Some(3), ..Quota::default() };
        assert_eq!(keys[0], KeyLine { name: "team-a".to_owned(), digest, quota, priority: Some(Priority::High) });
        assert_eq!((keys[1].name.as_str(), keys[1].digest, keys.len()), ("b", [0xab; 32], 2));
        assert_eq!(keys[1].priority, None);
    }

    #[test]
    fn what_is_wrong_is_told_without_what_it_holds() {
        let hex = "0".repeat(64);
        for (line, expected) in [
            ("sk-secret!", "does not begin with a name"),
            ("anonymous sha256:0", "does not begin with a name"),
            ("a sk-secret", "not followed by sha256:"),
            (&format!("a sha256:{}", &hex[1..]), "not followed by sha256:"),
            (&format!("a sha256:{hex} burst=0"), "above 0"),
            (&format!("a sha256:{hex} requests_per_second=nan"), "above 0"),
            (&format!("a sha256:{hex} secret"), "above 0"),
            (&format!("a sha256:{hex} priority=secret"), "high, normal or low"),
            (&format!("a sha256:{hex};a sha256:{}", "1".repeat(64)), "line 2: the name \"a\" is there twice"),
            (&format!("a sha256:{hex};b sha256:{hex}"), "line 2: the key of \"b\" has another name already"),
        ] {
            let told = key_lines(line).unwrap_err();
            assert!(told.contains(expected) && !told.contains("secret"), "{line}: {told}");
        }
    }
}
