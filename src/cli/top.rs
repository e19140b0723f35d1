//! `warmpath top`.

mod screen;

use super::reach::{Http, Reach};
use crate::serve::Status;
use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, HeaderValue};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Watch a running router: what its page at /ui shows, in a terminal.
///
/// How much is served from caches and why not more, time to first token, the
/// fleet, and the last decisions. Ctrl-C ends it. Where the output is no terminal
/// it is printed once.
///
/// Example:
///
///   warmpath top --admin http://127.0.0.1:9090
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Top {
    /// The router's admin address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    admin: String,
    /// Seconds from one look to the next.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Look once, and end.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Longer than any answer takes that is worth waiting for.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// What a thousand instances and an hour take, many times over.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a terminal's width is not told.
const WIDTH: usize = 120;

const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
/// To the end of a line, and of the screen.
const REST: [&str; 2] = ["\x1b[K", "\x1b[J"];

/// Whom is asked, and what is shown.
struct Asking {
    http: Http,
    key: Option<HeaderValue>,
}

impl Top {
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
        runtime.block_on(self.watch())
    }

    async fn watch(self) -> Result<()> {
        let client = Asking { http: self.reach.http()?, key: self.reach.key()? };
        if self.once || !std::io::stdout().is_terminal() {
            let screen = screen::draw(&self.read(&client).await?, WIDTH);
            return Ok(std::io::stdout().lock().write_all(screen.as_bytes())?);
        }
        // A router that is not there is told before the screen is taken.
        let mut status = self.read(&client).await;
        status.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let _screen = Screen::take()?;
        loop {
            let text = match &status {
                Ok(status) => screen::draw(status, width()),
                Err(error) => format!("no answer: {error:#}\n"),
            };
            let mut out = std::io::stdout().lock();
            let lines = text.replace('\n', &format!("{}\n", REST[0]));
            write!(out, "{HOME}{lines}{}", REST[1])?;
            out.flush()?;
            drop(out);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(self.interval)) => {}
                interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
            }
            status = self.read(&client).await;
        }
    }

    async fn read(&self, Asking { http, key }: &Asking) -> Result<Status> {
        let url = format!("{}/status", self.admin.trim_end_matches('/'));
        let request = hyper::Request::get(&url).body(Full::default());
        let mut request = request.with_context(|| format!("{url:?} is no URL"))?;
        if let Some(key) = key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        let answer = async {
            let answer = http.request(request).await?;
            ensure!(answer.status().is_success(), "{url} answered {}", answer.status());
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            serde_json::from_slice(&body)
                .with_context(|| format!("{url} is not the status of this version of Warmpath"))
        };
        let answer = tokio::time::timeout(ANSWER_MAX, answer).await.context("it took too long")?;
        answer.with_context(|| format!("cannot read the router at {}; is `warmpath serve` running?", self.admin))
    }
}

/// Columns, where the shell tells.
fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDTH).clamp(80, 240)
}

/// The terminal's other screen, given back when dropped.
struct Screen;

impl Screen {
    fn take() -> Result<Screen> {
        let mut out = std::io::stdout().lock();
        out.write_all(OPEN.as_bytes())?;
        out.flush()?;
        Ok(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stdout().lock();
        // A terminal that is gone needs nothing back.
        let _ = out.write_all(CLOSE.as_bytes()).and_then(|()| out.flush());
    }
}
