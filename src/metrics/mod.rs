//! Metrics in the text format of Prometheus.
//!
//! ```text
//!   worker/, import/ ──counts, seconds──▶ recorder ──┐
//!                                                    ├──▶ Metrics::render ──▶ /metrics
//!   Redis ──one script a queue, cached──▶ Queues ────┘
//! ```
//!
//! There are two kinds, told apart in [`table`], where every metric stands:
//!
//! - *What this process did itself* ([`work`]): every process has its own numbers, and a sum over processes is right.
//! - *What Redis says about a queue* ([`queues`]): the same whoever asks, so only the one process that people scrape for
//!   it (`serve`, `up`) exports it. With several exporters a sum would count everything several times.
//!
//! The names that begin with `bullmq_` are those that dashboards and alerts for BullMQ ask for.
//!
//! *Crash:* the numbers of a process start again at 0, as Prometheus expects of counters; those in Redis go on.
//! *Not here:* ids, addresses, names of feeds. The values of labels come from closed sets and the names of the queues.

pub mod queues;
pub mod server;
pub mod table;
mod text;
pub mod work;

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use queues::QueueReadings;
use table::{Kind, Whose};

/// Time between two passes that sum up what was recorded: bounds the memory of a process that nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The recorder of this process, once it records.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// What this process exports. Cheap to clone; all clones share the readings from Redis.
#[derive(Clone, Debug)]
pub struct Metrics {
    recorder: PrometheusHandle,
    queues: Option<QueueReadings>,
}

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Something else in this process records already.
    #[error("metrics cannot be recorded: this process has another recorder")]
    Recorder,
}

/// Starts to record what this process does. To be called before workers are made; may be called again.
///
/// Without it nothing is recorded, which costs nothing: commands that end by themselves do not call it.
///
/// # Errors
/// [`MetricsError::Recorder`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn record() -> Result<Metrics, MetricsError> {
    if let Some(recorder) = RECORDER.get() {
        return Ok(Metrics { recorder: recorder.clone(), queues: None });
    }
    let mut builder = PrometheusBuilder::new();
    for family in table::FAMILIES {
        if let Kind::Histogram(buckets) = family.kind {
            let name = Matcher::Full(family.name.to_owned());
            builder = builder.set_buckets_for_metric(name, buckets).expect("no histogram of the table lacks buckets");
        }
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Recorder)?;
    for family in table::FAMILIES.iter().filter(|family| family.whose == Whose::Process) {
        match family.kind {
            Kind::Counter => metrics::describe_counter!(family.name, family.help),
            Kind::Gauge => metrics::describe_gauge!(family.name, family.help),
            Kind::Histogram(_) => metrics::describe_histogram!(family.name, family.help),
        }
    }
    metrics::gauge!(table::BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1);
    let recorder = RECORDER.get_or_init(|| handle).clone();
    let kept_up = recorder.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            kept_up.run_upkeep();
        }
    });
    Ok(Metrics { recorder, queues: None })
}

impl Metrics {
    /// Exports what Redis says about these queues too: in `serve` and `up` only.
    #[must_use]
    pub fn with_queues(self, queues: QueueReadings) -> Self {
        Self { queues: Some(queues), ..self }
    }

    /// Everything that this process exports, ending in a newline: the body of an answer with [`server::CONTENT_TYPE`].
    ///
    /// Never fails: while Redis does not answer, `feedmill_redis_up` is 0 and the other numbers from Redis are missing,
    /// so that nobody takes old ones for new.
    pub async fn render(&self) -> String {
        let mut text = match &self.queues {
            Some(queues) => queues.render().await,
            None => String::new(),
        };
        text.push_str(&self.recorder.render());
        text
    }
}
