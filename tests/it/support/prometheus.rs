//! A real Prometheus that scrapes one address, and is asked as Grafana asks it.

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
        fs::write(&config, format!("global: {{ scrape_interval: 500ms }}\nscrape_configs: [{job}]\n")).unwrap();
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

    /// Values that an expression has now, one per series.
    ///
    /// # Panics
    /// When it is no expression.
    pub(crate) async fn query(&self, expression: &str) -> Vec<f64> {
        let url = self.url("/api/v1/query", &[("query", expression)]);
        let answer: Value =
            serde_json::from_slice(&http().get(url).send().await.unwrap().bytes().await.unwrap()).unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap();
        series.iter().map(|series| series["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // One that has ended only gives an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
