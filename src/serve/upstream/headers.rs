//! Which headers pass: end to end ones do, those of one connection (RFC 9110, 7.6.1) and our own do not.

use crate::routing::Decision;
use crate::serve::ingress::guard::{API_KEY, Entered};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

const INSTANCE: HeaderName = HeaderName::from_static("x-warmpath-instance");
const PROMPT_TOKENS: HeaderName = HeaderName::from_static("x-warmpath-prompt-tokens");
const OVERLAP_TOKENS: HeaderName = HeaderName::from_static("x-warmpath-overlap-tokens");
const RANK: HeaderName = HeaderName::from_static("x-data-parallel-rank");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const OURS: &str = "x-warmpath-";

/// The headers of a client's request.
#[derive(Clone, Default)]
pub(in crate::serve) struct ClientHeaders {
    headers: HeaderMap,
    /// Whether an instance may see its key.
    forwards_key: bool,
}

impl ClientHeaders {
    /// Those of a request behind the guard.
    pub fn of(head: &Parts) -> Self {
        let forwards_key = Entered::of(&head.extensions).forwards_key();
        ClientHeaders { headers: head.headers.clone(), forwards_key }
    }
}

/// What an instance is sent. Host and length are written anew by the client, from the URL and the body; of which rank it is, and
/// with what key it is asked, is not for clients to say.
pub(super) fn to_instance(received: &ClientHeaders, rank: Option<u32>, key: Option<HeaderValue>) -> HeaderMap {
    let mut headers = end_to_end(&received.headers);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT, RANK] {
        headers.remove(name);
    }
    if !received.forwards_key || key.is_some() {
        headers.remove(header::AUTHORIZATION);
        headers.remove(API_KEY);
    }
    if let Some(key) = key {
        headers.insert(header::AUTHORIZATION, key);
    }
    if let Some(rank) = rank {
        headers.insert(RANK, HeaderValue::from(rank));
    }
    headers
}

/// What a client is sent: who answered, and how much of the prompt was believed to be cached there.
pub(super) fn to_client(received: &HeaderMap, instance: &str, decision: Option<&Decision>) -> HeaderMap {
    let mut headers = end_to_end(received);
    // A name that is no header value is only for logs.
    if let Ok(instance) = HeaderValue::from_str(instance) {
        headers.insert(INSTANCE, instance);
    }
    if let Some(decision) = decision {
        headers.insert(PROMPT_TOKENS, HeaderValue::from(decision.prompt_tokens));
        headers.insert(OVERLAP_TOKENS, HeaderValue::from(decision.overlap_tokens));
    }
    headers
}

fn end_to_end(received: &HeaderMap) -> HeaderMap {
    let named: Vec<&str> = received
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','))
        .collect();
    let of_one_connection = |name: &HeaderName| {
        [
            header::CONNECTION,
            KEEP_ALIVE,
            PROXY_CONNECTION,
            header::PROXY_AUTHENTICATE,
            header::PROXY_AUTHORIZATION,
            header::TE,
            header::TRAILER,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
        ]
        .contains(name)
            || name.as_str().starts_with(OURS)
            || named.iter().any(|named| named.trim().eq_ignore_ascii_case(name.as_str()))
    };
    let mut headers = HeaderMap::with_capacity(received.len() + 3);
    for (name, value) in received {
        if !of_one_connection(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        headers.iter().map(pair).collect()
    }

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        let received = map(&[
            ("host", "router"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("x-warmpath-instance", "forged"),
            ("authorization", "Bearer key"),
            ("x-api-key", "key"),
            ("x-request-id", "a"),
            ("x-twice", "1"),
            ("x-twice", "2"),
            ("x-data-parallel-rank", "9"),
        ]);
        let mut expected = vec![
            ("authorization", "Bearer key"),
            ("x-api-key", "key"),
            ("x-request-id", "a"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ];
        let received = |forwards_key| ClientHeaders { headers: received.clone(), forwards_key };
        assert_eq!(to_instance(&received(true), None, None), map(&expected));
        assert_eq!(to_instance(&received(false), None, None), map(&expected[2..]));
        let theirs = || Some(HeaderValue::from_static("Bearer theirs"));
        expected.remove(1);
        expected[0].1 = "Bearer theirs";
        assert_eq!(to_instance(&received(false), None, theirs()), map(&expected));
        expected.push(("x-data-parallel-rank", "1"));
        assert_eq!(to_instance(&received(true), Some(1), theirs()), map(&expected));
    }
}
