//! A span for each sampled request, sent to a collector by OTLP over gRPC.
//!
//! Spans that ended wait in a bounded queue, are sent some at a time by one task, and are counted: sent, dropped because the queue
//! was full, or refused. No request waits for any of it. Where nothing is configured nothing of this exists.
//!
//! The context is W3C's: a client's `traceparent` says what a request belongs to and whether it is sampled; the instance is told
//! of our span in its place. `tracestate` passes through.

use super::labels::SpanFate;
use super::registry::{Counter, PerLabel};
use crate::config::Tracing;
use crate::routing::Decision;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SpanExporter as _;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Spans sent at once.
const BATCH_MAX: usize = 512;
/// How long a span waits for others to be sent with.
const GATHER: Duration = Duration::from_millis(500);
/// What a collector may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// What is left at the end gets so long.
const FINISH_MAX: Duration = Duration::from_secs(3);

/// Begins spans, and has them sent.
pub(in crate::serve) struct Spans {
    tracer: SdkTracer,
    // The tracer is its handle only.
    provider: SdkTracerProvider,
    propagator: TraceContextPropagator,
    over: CancellationToken,
    sending: Mutex<Option<JoinHandle<()>>>,
}

/// What became of spans, counted.
type Fates = Arc<PerLabel<SpanFate, Counter>>;

/// One request's span. Whoever holds a copy may add to it; it ends with the last copy.
#[derive(Clone)]
pub(in crate::serve) struct RequestSpan(Arc<Mutex<Span>>);

impl Spans {
    /// Has spans sent to the configured collector, which need not be there.
    pub fn start(config: &Tracing, fates: Fates) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(config.endpoint.as_str());
        let mut exporter = exporter.with_timeout(ANSWER_MAX).build()?;
        let resource = Resource::builder_empty()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        exporter.set_resource(&resource);
        let (queue, queued) = mpsc::channel(config.queue_spans_max);
        let over = CancellationToken::new();
        let sending = tokio::spawn(send(exporter, queued, Arc::clone(&fates), over.clone()));
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
            .with_span_processor(Queue { queue, fates })
            .with_resource(resource)
            .build();
        let (tracer, propagator) = (provider.tracer("warmpath"), TraceContextPropagator::new());
        Ok(Spans { tracer, provider, propagator, over, sending: Mutex::new(Some(sending)) })
    }

    /// The span of a request that came with these headers.
    pub fn begin(&self, name: &'static str, headers: &HeaderMap, attributes: Vec<KeyValue>) -> RequestSpan {
        let parent = self.propagator.extract_with_context(&Context::new(), &Received(headers));
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        RequestSpan(Arc::new(Mutex::new(self.tracer.build_with_context(builder, &parent))))
    }

    /// Tells whoever gets these headers that what it does belongs to the span.
    pub fn inject(&self, span: &RequestSpan, headers: &mut HeaderMap) {
        let context = Context::new().with_remote_span_context(span.context());
        self.propagator.inject_context(&context, &mut Sent(headers));
    }

    /// Sends what is left, for a while.
    pub async fn finish(&self) {
        self.over.cancel();
        let Some(mut sending) = self.sending.lock().take() else { return };
        if tokio::time::timeout(FINISH_MAX, &mut sending).await.is_err() {
            tracing::warn!("the collector of traces did not take the last spans in time");
            sending.abort();
        }
        // There is nothing to wait for any more: the queue is closed.
        let _ = self.provider.shutdown();
    }
}

impl RequestSpan {
    /// Whether it is sampled: where it is not, nothing need be told.
    pub fn is_sampled(&self) -> bool {
        self.context().is_sampled()
    }

    /// Something that is known of the request.
    pub fn tell(&self, key: &'static str, value: impl Into<Value>) {
        self.0.lock().set_attribute(KeyValue::new(key, value));
    }

    /// Where it goes, and what was known then. Of an attempt that is not the first, instead of what was told before.
    pub fn placed(&self, instance: &str, policy: &'static str, decision: Option<&Decision>, attempt: usize) {
        let mut span = self.0.lock();
        span.set_attribute(KeyValue::new("warmpath.instance", instance.to_owned()));
        span.set_attribute(KeyValue::new("warmpath.policy", policy));
        span.set_attribute(KeyValue::new("warmpath.attempts", attempt as i64));
        if let Some(decision) = decision {
            for (key, tokens) in [
                ("warmpath.prompt_tokens", decision.prompt_tokens),
                ("warmpath.overlap_tokens", decision.overlap_tokens),
                ("warmpath.best_overlap_tokens", decision.best_overlap_tokens),
            ] {
                span.set_attribute(KeyValue::new(key, i64::from(tokens)));
            }
            let expected = decision.expected_ttft.as_secs_f64();
            span.set_attribute(KeyValue::new("warmpath.expected_ttft_seconds", expected));
        }
    }

    /// The answer began.
    pub fn answered(&self, status: u16) {
        let mut span = self.0.lock();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
    }

    fn context(&self) -> SpanContext {
        self.0.lock().span_context().clone()
    }
}

/// Takes spans as they end.
#[derive(Debug)]
struct Queue {
    queue: mpsc::Sender<SpanData>,
    fates: Fates,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.queue.try_send(span).is_err() {
            self.fates.of(SpanFate::Dropped).increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends what is queued, until it is `over` and nothing is left.
async fn send(exporter: SpanExporter, mut queue: mpsc::Receiver<SpanData>, fates: Fates, over: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut is_failing = false;
    loop {
        if over.is_cancelled() {
            queue.close();
        }
        tokio::select! {
            taken = queue.recv_many(&mut batch, BATCH_MAX) => {
                if taken == 0 {
                    return;
                }
            }
            () = over.cancelled(), if !over.is_cancelled() => continue,
        }
        if batch.len() < BATCH_MAX && !over.is_cancelled() {
            // Others come soon, and one message serves all.
            let _ = tokio::time::timeout(GATHER, over.cancelled()).await;
            while batch.len() < BATCH_MAX
                && let Ok(span) = queue.try_recv()
            {
                batch.push(span);
            }
        }
        let spans = batch.len() as u64;
        let sent = exporter.export(std::mem::replace(&mut batch, Vec::with_capacity(BATCH_MAX))).await;
        match sent {
            Ok(()) => {
                fates.of(SpanFate::Sent).increment(spans);
                if std::mem::take(&mut is_failing) {
                    tracing::info!("the collector of traces takes spans again");
                }
            }
            Err(error) => {
                fates.of(SpanFate::Failed).increment(spans);
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "the collector of traces does not take spans");
                }
            }
        }
    }
}

struct Received<'a>(&'a HeaderMap);

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        let pair = (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_str(&value));
        // An empty tracestate says nothing.
        if let (Ok(name), Ok(value)) = pair
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}
