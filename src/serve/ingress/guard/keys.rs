//! Keys that open, and what each of them has left.

use super::bucket::Bucket;
use super::refused::Refused;
use crate::config::{KeyLine, Quota};
use crate::routing::admission::Priority;
use crate::serve::telemetry::labels::Refusal;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// All keys, by their digests.
#[derive(Clone)]
pub(super) struct KeyRing {
    keys: Vec<Key>,
}

/// One that opens.
#[derive(Clone)]
pub(super) struct Key {
    digest: [u8; 32],
    /// Its holder's.
    pub account: Arc<Account>,
    /// Of requests that do not say how urgent they are.
    pub priority: Option<Priority>,
}

/// What the holder of one key has used and may still use.
pub(super) struct Account {
    name: Arc<str>,
    spent: Mutex<Spent>,
}

struct Spent {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    concurrent_max: Option<u32>,
    under_way: u32,
}

/// A request under way.
pub(super) struct Permit(Arc<Account>);

impl KeyRing {
    /// These keys; those of `before` that stay keep what they have left.
    pub fn new(lines: &[KeyLine], default: Quota, before: Option<&KeyRing>) -> Self {
        let known = |line: &KeyLine| {
            let before = before?.keys.iter().find(|key| {
                // Neither is a secret here: both are lines of the operator's file.
                key.digest == line.digest && *key.account.name == *line.name
            });
            before.map(|key| Arc::clone(&key.account))
        };
        let account = |line: &KeyLine| {
            let quota = line.quota.or(default);
            match known(line) {
                Some(account) => {
                    account.spent.lock().allow(quota);
                    account
                }
                None => Arc::new(Account::new(&line.name, quota)),
            }
        };
        let key = |line: &KeyLine| Key { digest: line.digest, account: account(line), priority: line.priority };
        KeyRing { keys: lines.iter().map(key).collect() }
    }

    /// Which key it is. It is compared with all of them in full, so that time tells neither which one it is nor how much of it
    /// is right.
    pub fn find(&self, key: &[u8]) -> Option<&Key> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let (mut found, mut at) = (Choice::from(0), 0u32);
        for (position, known) in (0..).zip(&self.keys) {
            let is_it = known.digest.ct_eq(&digest);
            at.conditional_assign(&position, is_it);
            found |= is_it;
        }
        bool::from(found).then(|| &self.keys[at as usize])
    }
}

impl Quota {
    fn or(self, default: Quota) -> Quota {
        Quota {
            requests_per_second: self.requests_per_second.or(default.requests_per_second),
            // A burst belongs to its rate: what is set for all need not fit one that has its own.
            burst: self.burst.or(if self.requests_per_second.is_some() { None } else { default.burst }),
            tokens_per_minute: self.tokens_per_minute.or(default.tokens_per_minute),
            concurrent_max: self.concurrent_max.or(default.concurrent_max),
        }
    }
}

impl Account {
    fn new(name: &str, quota: Quota) -> Self {
        let mut spent = Spent { requests: None, tokens: None, concurrent_max: None, under_way: 0 };
        spent.allow(quota);
        Account { name: name.into(), spent: Mutex::new(spent) }
    }

    /// What its holder is called.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Begins a request, if another one may begin.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Option<Permit>, Refused> {
        let mut spent = self.spent.lock();
        if spent.concurrent_max.is_some_and(|most| spent.under_way >= most) {
            return Err(Refused::now(Refusal::Concurrency));
        }
        if let Some(tokens) = &mut spent.tokens {
            // Of a request it is not known yet how many tokens it has: the one that goes beyond what is left is the last.
            tokens.has(1.0).map_err(|after| Refused::until(Refusal::TokenRate, after))?;
        }
        if let Some(requests) = &mut spent.requests {
            requests.has(1.0).map_err(|after| Refused::until(Refusal::RequestRate, after))?;
            requests.take(1.0);
        }
        if spent.concurrent_max.is_none() {
            return Ok(None);
        }
        spent.under_way += 1;
        Ok(Some(Permit(Arc::clone(self))))
    }

    /// Counts tokens, of a prompt or of an answer.
    pub fn spend(&self, tokens: u32) {
        if let Some(bucket) = &mut self.spent.lock().tokens {
            bucket.take(tokens.into());
        }
    }
}

impl Spent {
    fn allow(&mut self, quota: Quota) {
        let requests = quota.requests_per_second.map(|rate| {
            let burst = quota.burst.map_or(rate.ceil(), f64::from);
            (rate, burst.max(1.0))
        });
        let tokens = quota.tokens_per_minute.map(|tokens| (tokens as f64 / 60.0, tokens as f64));
        for (bucket, allowed) in [(&mut self.requests, requests), (&mut self.tokens, tokens)] {
            match (bucket.as_mut(), allowed) {
                (Some(bucket), Some((rate, size))) => bucket.resize(rate, size),
                (_, allowed) => *bucket = allowed.map(|(rate, size)| Bucket::new(rate, size)),
            }
        }
        self.concurrent_max = quota.concurrent_max;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.spent.lock().under_way -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, key: &str, quota: Quota) -> KeyLine {
        KeyLine { name: name.to_owned(), digest: Sha256::digest(key).into(), quota, priority: None }
    }

    #[tokio::test]
    async fn each_key_opens_its_own_account_and_no_other_text_does() {
        let lines: Vec<KeyLine> =
            (0..9).map(|at| line(&at.to_string(), &format!("key-{at}"), Quota::default())).collect();
        let ring = KeyRing::new(&lines, Quota::default(), None);
        for at in 0..9 {
            assert_eq!(&**ring.find(format!("key-{at}").as_bytes()).unwrap().account.name(), at.to_string());
        }
        for other in ["", "key-", "key-9", "KEY-1", "key-1 "] {
            assert!(ring.find(other.as_bytes()).is_none(), "{other:?}");
        }
        assert!(KeyRing::new(&[], Quota::default(), None).find(b"").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_stays_keeps_its_account() {
        let one = Quota { requests_per_second: Some(1.0), ..Quota::default() };
        let lines = [line("a", "a", Quota::default()), line("b", "b", Quota::default())];
        let ring = KeyRing::new(&lines, one, None);
        assert!(ring.find(b"a").unwrap().account.enter().is_ok());
        let replaced = [line("a", "a", Quota::default()), line("b", "other", Quota::default())];
        let ring = KeyRing::new(&replaced, one, Some(&ring));
        assert!(ring.find(b"a").unwrap().account.enter().is_err(), "what it spent before counts");
        assert!(ring.find(b"b").is_none() && ring.find(b"other").unwrap().account.enter().is_ok());
        let ring = KeyRing::new(&replaced, Quota::default(), Some(&ring));
        assert!(ring.find(b"a").unwrap().account.enter().is_ok(), "there is no limit any more");
    }
}
