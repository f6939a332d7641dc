//! A real Prometheus that scrapes one address with our alerts, and is asked as Grafana asks it.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use url::Url;

use super::{
    eventually::eventually,
    process::PATIENCE,
    servers::{find, free_port},
};

/// Longer than a loaded two-core machine needs.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A client for plain HTTP.
pub(crate) fn http() -> reqwest::Client {
    feedmill::tls::install_provider();
    reqwest::Client::new()
}

/// A Prometheus of one test. Dropping it kills it and removes its data.
pub(crate) struct Prometheus {
    port: u16,
    child: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts the installed prometheus, which scrapes `target` (`host:port`) twice a second.
    pub(crate) async fn scraping(target: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("feedmill-prometheus-").tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let job = format!("{{ job_name: feedmill, static_configs: [{{ targets: ['{target}'] }}] }}");
        let global = "{ scrape_interval: 500ms, evaluation_interval: 500ms }";
        let alerts = concat!(env!("CARGO_MANIFEST_DIR"), "/prometheus/alerts.yml");
        let text = format!("global: {global}\nrule_files: ['{alerts}']\nscrape_configs: [{job}]\n");
        fs::write(&config, text).unwrap();
        let log = folder.path().join("prometheus.log");
        let port = free_port();
        let child = Command::new(find("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let prometheus = Self { port, child, _folder: folder };
        let client = http();
        eventually("prometheus is ready", START_TIMEOUT, async || {
            let answer = client.get(prometheus.url("/-/ready", &[])).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        prometheus
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url: Url = format!("http://127.0.0.1:{}{path}", self.port).parse().unwrap();
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let answer = http().get(self.url(path, query)).send().await.unwrap().bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{query:?}: {answer}");
        answer["data"].clone()
    }

    /// Values that an expression has now, one per series.
    ///
    /// # Panics
    /// When it is no expression.
    pub(crate) async fn query(&self, expression: &str) -> Vec<f64> {
        let data = self.ask("/api/v1/query", &[("query", expression)]).await;
        let series = data["result"].as_array().unwrap();
        series.iter().map(|series| series["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    /// Waits until an expression has a number.
    pub(crate) async fn has_data(&self, expression: &str) {
        eventually(expression, PATIENCE, async || {
            self.query(expression).await.iter().any(|value| !value.is_nan()).then_some(())
        })
        .await;
    }

    /// Waits until every expression of the dashboard has data, but for those about one of these metrics, which only must be
    /// expressions; and until every alert was evaluated, and each series that it asks for is there.
    pub(crate) async fn knows_dashboard_and_alerts(&self, without_data: &[&str]) {
        let expressions = dashboard_expressions();
        assert!(expressions.len() > 50, "{expressions:?}");
        for expression in expressions {
            if without_data.iter().any(|metric| expression.contains(metric)) {
                self.query(&expression).await;
            } else {
                self.has_data(&expression).await;
            }
        }
        let alerts = eventually("the alerts are evaluated", PATIENCE, async || {
            let data = self.ask("/api/v1/rules", &[]).await;
            let groups = data["groups"].as_array().unwrap();
            let rules: Vec<Value> =
                groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
            (!rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")).then_some(rules)
        })
        .await;
        assert!(alerts.len() > 10, "{alerts:?}");
        for alert in alerts {
            assert_eq!(alert["health"], "ok", "{alert}");
            let query = alert["query"].as_str().unwrap();
            let selectors = selectors(query);
            assert!(!selectors.is_empty(), "{query}");
            for selector in selectors {
                self.has_data(&selector).await;
            }
        }
    }
}

/// Every expression of the dashboard, with values for what Grafana fills in itself.
fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(include_str!("../../../grafana/dashboards/feedmill.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter(|panel| panel["type"] != "row").flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| {
            let expression = target["expr"].as_str().unwrap();
            let asked = expression.replace("$__rate_interval", "1m").replace("$queue", ".*");
            assert!(!asked.contains('$'), "{expression}");
            asked
        })
        .collect()
}

/// The series that an expression asks for: `name` or `name{labels}`.
fn selectors(expression: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = expression.match_indices(is_name).map(|(at, _)| at);
    let starts = starts.filter(|at| !expression[..*at].ends_with(is_name));
    let names = starts
        .map(|at| &expression[at..])
        .filter(|rest| ["feedmill_", "bullmq_"].iter().any(|ours| rest.starts_with(ours)));
    names
        .map(|rest| {
            let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
            let labels = rest[name.len()..].strip_prefix('{').and_then(|labels| labels.split_once('}'));
            labels.map_or_else(|| name.to_owned(), |(labels, _)| format!("{name}{{{labels}}}"))
        })
        .collect()
}

#[test]
fn selectors_are_names_with_their_labels() {
    let expression = r#"sum(rate(feedmill_a_total{x!~"2xx|304"}[15m])) / (feedmill_b > 0) and absent(bullmq_c)"#;
    assert_eq!(selectors(expression), [r#"feedmill_a_total{x!~"2xx|304"}"#, "feedmill_b", "bullmq_c"]);
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // One that has ended only gives an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
