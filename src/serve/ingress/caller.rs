//! Who sent a request.

use std::sync::{Arc, LazyLock};

/// Who a request came from, as far as its key says. Every request of the OpenAI and gRPC listeners has one among its extensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::serve) struct Caller {
    /// The name of its key, never the key; [`Caller::ANONYMOUS`] where no keys are configured.
    pub name: Arc<str>,
}

impl Caller {
    /// What callers are called where nobody asks for keys; no key is.
    pub const ANONYMOUS: &str = "anonymous";
}

impl Default for Caller {
    fn default() -> Self {
        static ANONYMOUS: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(Caller::ANONYMOUS));
        Caller { name: Arc::clone(&ANONYMOUS) }
    }
}
