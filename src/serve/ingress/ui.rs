//! The operator's page at `/ui`: three files, compiled in, that ask for nothing but `/status` beside them.
//!
//! Its content security policy allows just that, and the page writes what it is told as text only, so that a model's or an
//! instance's name cannot become markup.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page and its files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async || Redirect::temporary("/ui")))
        .route("/ui", get(async || file("text/html; charset=utf-8", include_str!("ui/page.html"))))
        .route("/ui/page.css", get(async || file("text/css; charset=utf-8", include_str!("ui/page.css"))))
        .route("/ui/page.js", get(async || file("text/javascript; charset=utf-8", include_str!("ui/page.js"))))
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}
