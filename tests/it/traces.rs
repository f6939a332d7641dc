//! Traces: the spans of a job from its fetch to MongoDB, as a collector gets them over HTTP, and log lines with their ids.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, routing::post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    feed_server::{FeedServer, Page},
    jobs::id,
    process::{Mill, PATIENCE},
};

const IMPORT: &str = "job_import_queue";

/// A collector of traces: what it was sent, and where it listens.
struct Collector {
    endpoint: String,
    sent: Arc<Mutex<Vec<Value>>>,
    _task: AbortOnDropHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let sent = Arc::<Mutex<Vec<Value>>>::default();
        let take = async |State(sent): State<Arc<Mutex<Vec<Value>>>>, body: Bytes| {
            sent.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            "{}"
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(sent.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, sent, _task: AbortOnDropHandle::new(task) }
    }
}

/// A mill with a feed of three items of which one is refused by MongoDB.
async fn mill(server: &FeedServer) -> Mill {
    let mut mill = Mill::new();
    server.put("/a", Page::rss(&[("1", "good"), ("2", "bad"), ("3", "good")]));
    mill.feed("a", &server.url("/a"), Some("a"));
    mill.retry(IMPORT, 2, "10ms");
    mill.refuse_bad_titles().await;
    mill
}

#[tokio::test]
async fn without_a_collector_jobs_carry_no_context_and_logs_name_no_trace() {
    let server = FeedServer::start();
    let mill = mill(&server).await;
    let mut worker = mill.start(&["worker", "--log-format", "json"]);
    mill.fetch(&["a"]).await;
    let queues = mill.queues().await;
    mill.through(&queues).await;
    let dead = queues.import.find(&id("a#2")).await.unwrap().expect("it is a dead letter");
    assert_eq!(dead.job.traceparent, None);
    worker.term();
    worker.wait(PATIENCE).await;
    let log = worker.stderr();
    let failures: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["fields"]["job.id"] == "a#2")
        .collect();
    assert_eq!(failures.len(), 2, "{log}");
    assert!(!log.contains("trace_id"), "{log}");
}

#[cfg(not(feature = "otlp"))]
#[tokio::test]
async fn a_program_without_the_feature_says_that_it_sends_no_traces() {
    let collector = Collector::start().await;
    let mill = Mill::new();
    let mut command = mill.command(&["queue", "counts"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
    let ran = mill.start_command(command).ran().await;
    assert_eq!(ran.status.code(), Some(0));
    assert!(ran.stderr.contains("built without the feature otlp: no traces are sent"), "{}", ran.stderr);
    assert!(collector.sent.lock().unwrap().is_empty());
}

/// Of a feedmill that is built with the feature.
#[cfg(feature = "otlp")]
mod sent {
    use std::time::Duration;

    use mongodb::bson::doc;

    use super::*;
    use crate::support::http::Served;

    const FETCH: &str = "feed_fetch_queue";

    impl Collector {
        /// All spans so far, with the name of the service that sent them.
        fn spans(&self) -> Vec<Span> {
            let mut spans = Vec::new();
            for body in self.sent.lock().unwrap().iter() {
                for resource in list(&body["resourceSpans"]) {
                    let service = attribute(&resource["resource"]["attributes"], "service.name").unwrap();
                    for scope in list(&resource["scopeSpans"]) {
                        spans.extend(
                            list(&scope["spans"])
                                .iter()
                                .map(|span| Span { service: service.clone(), json: span.clone() }),
                        );
                    }
                }
            }
            spans
        }
    }

    fn list(value: &Value) -> Vec<Value> {
        value.as_array().cloned().unwrap_or_default()
    }

    fn attribute(attributes: &Value, name: &str) -> Option<String> {
        let attributes = list(attributes);
        let value = &attributes.iter().find(|attribute| attribute["key"] == name)?["value"];
        let value = value.as_object()?.values().next()?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    struct Span {
        service: String,
        json: Value,
    }

    impl Span {
        fn text(&self, field: &str) -> &str {
            self.json[field].as_str().unwrap_or_default()
        }

        fn attribute(&self, name: &str) -> Option<String> {
            attribute(&self.json["attributes"], name)
        }

        fn is(&self, name: &str, queue: &str) -> bool {
            self.text("name") == name && self.attribute("queue").as_deref() == Some(queue)
        }

        fn failed(&self) -> bool {
            self.json["status"]["code"] == 2
        }
    }

    #[tokio::test]
    async fn a_collector_gets_one_trace_from_the_fetch_to_the_documents_and_logs_name_the_same_ids() {
        let (server, collector) = (FeedServer::start(), Collector::start().await);
        let mill = mill(&server).await;
        let mut command = mill.command(&["worker", "--log-format", "json"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "100");
        let mut worker = mill.start_command(command);
        mill.fetch(&["a"]).await;
        mill.through(&mill.queues().await).await;
        worker.term();
        assert_eq!(worker.wait(PATIENCE).await.0.code(), Some(0));

        // The end of the worker has sent the last ones.
        let spans = collector.spans();
        let all = spans.iter().map(|span| span.json.to_string()).collect::<Vec<_>>().join("\n");
        let of = |name: &str, queue: &str| -> Vec<&Span> { spans.iter().filter(|span| span.is(name, queue)).collect() };
        let [fetch] = of("job", FETCH)[..] else { panic!("{all}") };
        assert_eq!(fetch.text("parentSpanId"), "", "it begins the trace");
        assert_eq!((fetch.service.as_str(), fetch.attribute("job.id").as_deref()), ("feedmill", Some("a")));
        let below = |parent: &Span| -> Vec<&Span> {
            spans.iter().filter(|span| span.text("parentSpanId") == parent.text("spanId")).collect()
        };
        let [get, enqueue] = below(fetch)[..] else { panic!("{all}") };
        assert_eq!((get.text("name"), enqueue.text("name")), ("GET", "enqueue"));
        assert_eq!(get.attribute("http.response.status_code").as_deref(), Some("200"));
        let import = enqueue.attribute("import").unwrap();

        // Three jobs; the one that is refused is tried twice.
        let jobs = below(enqueue);
        assert_eq!((jobs.len(), of("job", IMPORT).len()), (4, 4), "{all}");
        let mut outcomes: Vec<_> =
            jobs.iter().map(|job| (job.attribute("job.id").unwrap(), job.attribute("outcome").unwrap())).collect();
        outcomes.sort();
        let wanted = [("a#1", "done"), ("a#2", "buried"), ("a#2", "retried"), ("a#3", "done")];
        assert_eq!(outcomes, wanted.map(|(id, outcome)| (id.to_owned(), outcome.to_owned())), "{all}");
        for job in &jobs {
            assert_eq!(job.attribute("import").as_ref(), Some(&import));
            assert_eq!(job.failed(), job.attribute("outcome").unwrap() != "done");
        }
        let writes: Vec<&Span> = spans.iter().filter(|span| span.text("name") == "write").collect();
        let documents: usize =
            writes.iter().map(|write| write.attribute("documents").unwrap().parse::<usize>().unwrap()).sum();
        assert_eq!(documents, 4, "{all}");
        let batch = of("batch", IMPORT);
        assert!(batch.iter().all(|batch| !list(&batch.json["links"]).is_empty()), "{all}");
        for span in &spans {
            assert_eq!(span.text("traceId"), fetch.text("traceId"), "one trace: {all}");
        }

        let log = worker.stderr();
        let failures: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .filter(|line: &Value| line["fields"]["job.id"] == "a#2")
            .collect();
        let levels: Vec<_> = failures.iter().map(|line| line["level"].as_str().unwrap()).collect();
        assert_eq!(levels, ["WARN", "ERROR"], "one line a failure: {log}");
        for (line, next) in failures.iter().zip(["trying again in 10ms", "feedmill queue redrive"]) {
            let message = line["fields"]["message"].as_str().unwrap();
            assert!(message.contains("job a#2 failed") && message.contains(next), "{message}");
            assert_eq!(
                (&line["fields"]["queue"], &line["span"]["trace_id"]),
                (&IMPORT.into(), &fetch.text("traceId").into())
            );
        }
    }

    #[tokio::test]
    async fn an_import_that_is_started_over_http_continues_the_trace_of_a_valid_header_and_no_other() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        const CALLER: &str = "b7ad6b7169203331";
        let (server, collector) = (FeedServer::start(), Collector::start().await);
        let mill = mill(&server).await;
        let command = |args: &[&str]| {
            let mut command = mill.command(args);
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "100");
            command
        };
        let mut served = Served::by(mill.start_command(command(&["serve"]))).await;
        let mut worker = mill.start_command(command(&["worker"]));
        let queues = mill.queues().await;
        let valid = format!("00-{TRACE}-{CALLER}-01");
        let none = "0".repeat(32);
        let ignored = [
            vec![],
            vec![("traceparent", "nonsense".to_owned())],
            vec![("traceparent", format!("00-{none}-{CALLER}-01"))],
            vec![("traceparent", format!("00-{TRACE}-{}-01", &none[..16]))],
            vec![("traceparent", format!("ff-{TRACE}-{CALLER}-01"))],
            vec![("traceparent", valid.clone()), ("traceparent", valid.clone())],
        ];
        for headers in std::iter::once(vec![("TraceParent", valid)]).chain(ignored.clone()) {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = served.ask("POST", "/imports/start", &headers, "").await;
            assert_eq!(answer.status, 202, "{headers:?}: {answer:?}");
            mill.through(&queues).await;
        }
        worker.term();
        served.process.term();
        assert_eq!(worker.wait(PATIENCE).await.0.code(), Some(0));
        assert_eq!(served.process.wait(PATIENCE).await.0.code(), Some(0));

        let spans = collector.spans();
        let all = spans.iter().map(|span| span.json.to_string()).collect::<Vec<_>>().join("\n");
        let requests: Vec<&Span> = spans.iter().filter(|span| span.text("name") == "POST /imports/start").collect();
        let [request] = requests[..] else { panic!("one request has a caller with a trace: {all}") };
        assert_eq!((request.text("traceId"), request.text("parentSpanId")), (TRACE, CALLER), "{all}");
        let (in_trace, own): (Vec<&Span>, Vec<&Span>) =
            spans.iter().filter(|span| span.is("job", FETCH)).partition(|span| span.text("traceId") == TRACE);
        let [fetch] = in_trace[..] else { panic!("one fetch is in that trace: {all}") };
        assert_eq!(fetch.text("parentSpanId"), request.text("spanId"), "{all}");
        assert_eq!(own.len(), ignored.len(), "{all}");
        assert!(own.iter().all(|fetch| fetch.text("parentSpanId").is_empty()), "they begin traces of their own: {all}");
        let writes = spans.iter().filter(|span| span.text("name") == "write" && span.text("traceId") == TRACE);
        assert!(writes.count() > 0, "it goes as far as MongoDB: {all}");
    }

    #[tokio::test]
    async fn a_collector_that_is_away_holds_up_nothing_and_is_said_to_be() {
        let server = FeedServer::start();
        let mill = mill(&server).await;
        let mut command = mill.command(&["worker"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").env("OTEL_BSP_SCHEDULE_DELAY", "100");
        let mut worker = mill.start_command(command);
        mill.fetch(&["a"]).await;
        mill.through(&mill.queues().await).await;
        worker.term();
        let (status, took) = worker.wait(PATIENCE).await;
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_secs(8), "{took:?}");
        let log = worker.stderr();
        assert_eq!(
            log.matches("traces cannot be sent to http://127.0.0.1:1/v1/traces: ").count(),
            1,
            "said once: {log}"
        );
        assert_eq!(mill.documents().await.count_documents(doc! {}).await.unwrap(), 2);
    }
}
