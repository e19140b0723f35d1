//! Log lines on standard error.

use crate::config::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

/// Starts logging for the whole process. What is logged follows `RUST_LOG`, or is `info` and above without it, and `warn` of the
/// mock's ZeroMQ socket, which takes every connection for news.
///
/// An error means that the process has a subscriber already, or that `RUST_LOG` cannot be read.
pub fn start(format: LogFormat) -> Result<(), LogsError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) => EnvFilter::try_new(&directives)
            .map_err(|source| LogsError::Filter { directives, source: Box::new(source) })?,
        Err(_) => EnvFilter::new(DEFAULT),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Told to standard error, with a panic where that is closed: whoever reads the log may go, requests go on.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_target(false);
    match format {
        LogFormat::Text => subscriber.finish().try_init()?,
        LogFormat::Json => subscriber.json().flatten_event(true).with_ansi(false).finish().try_init()?,
    }
    Ok(())
}

/// What is logged when nobody says.
const DEFAULT: &str = "info,zeromq=warn";

/// Logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// `RUST_LOG` cannot be read.
    #[error("RUST_LOG={directives:?} cannot be read")]
    Filter {
        /// What it says.
        directives: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something else takes the log lines already.
    #[error("logging was started already")]
    Started(#[from] TryInitError),
}
