//! Who sent a request.

use std::sync::{Arc, LazyLock};

/// Who a request came from, as far as its key says, or else the certificate of its connection. Every request behind the guard has
/// one among its extensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::serve) struct Caller {
    /// The name of its key, never the key, or of its certificate; [`Caller::ANONYMOUS`] where neither is asked for.
    pub name: Arc<str>,
}

impl Caller {
    /// What callers are called where nobody asks who they are; no key is.
    pub const ANONYMOUS: &str = "anonymous";
}

impl Default for Caller {
    fn default() -> Self {
        static ANONYMOUS: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(Caller::ANONYMOUS));
        Caller { name: Arc::clone(&ANONYMOUS) }
    }
}
