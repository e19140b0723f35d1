//! One key, as a header that no log shows.

use super::ApiKeyError;
use axum::http::HeaderValue;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// More is no key.
const BYTES_MAX: u64 = 8192;

/// The key in a file's first line.
pub(crate) fn read(path: &Path) -> Result<HeaderValue, ApiKeyError> {
    let failed = |source| ApiKeyError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)).map_err(failed)?;
    let key = text.lines().next().unwrap_or_default().trim();
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    is_key.then(|| bearer(key)).flatten().ok_or_else(|| ApiKeyError::NoKey { path: path.to_owned() })
}

/// A key as `Authorization` has it; `None` where it has characters that no header has.
pub(crate) fn bearer(key: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(format!("Bearer {key}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}
