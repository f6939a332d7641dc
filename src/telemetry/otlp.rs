//! Sends spans as OTLP over HTTP, with the client that fetches feeds too.
//!
//! What the variables of OpenTelemetry say holds: `OTEL_EXPORTER_OTLP_ENDPOINT` and its like, `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, and the limits of batches (`OTEL_BSP_…`). A collector that does not
//! answer costs spans, never jobs: they are kept in a queue with an end, and sent by a thread of their own.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, filter};

use crate::error::chain;

use super::{LogFormat, is_asked_for as is_endpoint_set, spans};

/// How long a collector may take for one batch of spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the program waits for the last spans.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What sends them, once it does.
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Whether the environment says where spans go, and nothing forbids it.
pub(super) fn is_asked_for() -> bool {
    is_endpoint_set() && std::env::var("OTEL_SDK_DISABLED").as_deref() != Ok("true")
}

/// Starts logs and traces. Where traces cannot be sent, that is said, and logs are all there is.
pub(super) fn start(filter: EnvFilter, format: LogFormat) {
    let provider = provider();
    let traces = provider.as_ref().ok().map(|provider| {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("feedmill"))
            // Where in our source a span was made tells nobody anything, and doubles its size.
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false);
        layer.with_filter(filter::filter_fn(|metadata| metadata.target() == "feedmill::trace"))
    });
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        // As in `start` of the parent.
        .log_internal_errors(false);
    let logs = match format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => logs.json().boxed(),
    };
    tracing_subscriber::registry().with(traces).with(logs.with_filter(filter)).init();
    match provider {
        Ok(provider) => {
            PROVIDER.get_or_init(|| provider);
            spans::begin_exporting();
        }
        Err(error) => tracing::error!(
            %error, "traces cannot be sent: {error}; set {} to an address such as http://127.0.0.1:4318", super::ENDPOINT
        ),
    }
}

fn provider() -> Result<SdkTracerProvider, ExporterBuildError> {
    crate::tls::install_provider();
    let client = Client { http: reqwest::Client::new(), runtime: Handle::current(), fails: AtomicBool::new(false) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpJson)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("feedmill");
    }
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

pub(super) fn end() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown_with_timeout(END_TIMEOUT)
    {
        tracing::warn!(%error, "the last spans were not sent: {error}");
    }
}

/// The client of the fetcher, for the thread of OpenTelemetry, which is none of tokio's.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    /// Whether the last request did, so that an outage is said once.
    fails: AtomicBool,
}

impl Client {
    /// Says that spans are not sent, or are again, when that changes.
    fn say(&self, address: &reqwest::Url, failure: Option<&str>) {
        match (failure, self.fails.swap(failure.is_some(), Ordering::Relaxed)) {
            (Some(error), false) => tracing::warn!(
                %address, error, "traces cannot be sent to {address}: {error}; jobs go on, and spans are lost meanwhile"
            ),
            (None, true) => tracing::info!(%address, "traces are sent to {address} again"),
            (Some(_), true) | (None, false) => {}
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let address = request.url().clone();
        let client = self.http.clone();
        let sending = async move {
            let answer = client.execute(request).await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        };
        let in_time = async { tokio::time::timeout(EXPORT_TIMEOUT, sending).await };
        let (status, body) = match self.runtime.spawn(in_time).await? {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                // It names the address by itself, which ours does too.
                self.say(&address, Some(&chain(&error.without_url())));
                return Err("the collector cannot be reached".into());
            }
            Err(_) => {
                self.say(&address, Some(&format!("no answer within {EXPORT_TIMEOUT:?}")));
                return Err("the collector does not answer".into());
            }
        };
        let refusal = (!status.is_success()).then(|| format!("it answered {status}"));
        self.say(&address, refusal.as_deref());
        Ok(Response::builder().status(status).body(body)?)
    }
}

/// The span that a header `traceparent` names, as a parent for others; of what cannot be understood, none.
fn parent_of(traceparent: &str) -> Context {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    TraceContextPropagator::new().extract(&carrier)
}

/// Whether a header `traceparent` names a span.
pub(super) fn names_a_span(traceparent: &str) -> bool {
    parent_of(traceparent).span().span_context().is_valid()
}

/// Begins a span below the one that `traceparent` names, if it names one, and notes the id of its trace.
pub(super) fn begin(span: &Span, traceparent: Option<&str>) {
    if let Some(traceparent) = traceparent {
        // A span that has begun already keeps its place; this one is new.
        let _ = span.set_parent(parent_of(traceparent));
    }
    let context = span.context();
    span.record("trace_id", tracing::field::display(context.span().span_context().trace_id()));
}

/// Says that a span belongs to the traces of these, too.
pub(super) fn link(span: &Span, others: &[Span]) {
    for other in others {
        span.add_link(other.context().span().span_context().clone());
    }
}

/// Version 00 of the header: trace, span, flags.
pub(super) fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let (of_span, version) = (context.span().span_context().clone(), "00");
    of_span.is_valid().then(|| {
        format!("{version}-{}-{}-{:02x}", of_span.trace_id(), of_span.span_id(), of_span.trace_flags().to_u8())
    })
}
