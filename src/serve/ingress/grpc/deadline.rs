//! How long a caller waits: no call of ours is worked on for longer.
//!
//! A stream is begun in time, and then goes on for as long as its caller listens.

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// When a call's caller goes, among its extensions.
#[derive(Clone, Copy)]
pub(super) struct Deadline(pub Instant);

/// These routes, each call of them within its deadline, where it has one.
pub(in crate::serve) fn layer(routes: Router) -> Router {
    routes.layer(from_fn(within))
}

async fn within(mut request: Request, next: Next) -> Response {
    let Some(wait) = timeout(request.headers()) else {
        return next.run(request).await;
    };
    let deadline = Instant::now() + wait;
    request.extensions_mut().insert(Deadline(deadline));
    let answer = timeout_at(deadline, next.run(request)).await;
    answer.unwrap_or_else(|_| Status::deadline_exceeded("the call took longer than its caller waits").into_http())
}

/// How long a client waits, by its own word: up to eight digits and a unit.
pub(in crate::serve) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let written = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = written.split_at_checked(written.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::HeaderValue;
    use tonic::codegen::Service;

    fn call(wait: &'static str) -> Request {
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(wait));
        request
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_over_when_its_caller_goes() {
        let mut never = layer(Router::new().fallback(std::future::pending::<()>));
        let began = Instant::now();
        let answer = never.call(call("50m")).await.unwrap();
        assert_eq!((answer.headers()["grpc-status"].to_str().unwrap(), began.elapsed().as_millis()), ("4", 50));
        let mut told = layer(Router::new().fallback(async |request: Request| {
            let Deadline(at) = request.extensions().get().copied().unwrap();
            (at - Instant::now()).as_secs().to_string()
        }));
        let answer = told.call(call("2H")).await.unwrap();
        assert_eq!(axum::body::to_bytes(answer.into_body(), 100).await.unwrap(), "7200");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for odd in ["", "S", "5", "5x", "-5S", "123456789S", "5 S"] {
            assert_eq!(timeout(call(odd).headers()), None, "{odd:?}");
        }
        assert_eq!(timeout(call("12345678u").headers()), Some(Duration::from_micros(12_345_678)));
    }
}
