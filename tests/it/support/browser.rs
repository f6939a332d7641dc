//! A headless Chromium, driven by chromedriver in the protocol of WebDriver: a dozen requests, so no crate is needed.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::eventually::eventually;

/// Longest that a page, or a look for barriers on it, takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// The name under which WebDriver hands out an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one tab; it ends with the test.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
}

/// The path of axe-core, which scripts/setup.sh installs.
const AXE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/node_modules/axe-core/axe.min.js");

impl Browser {
    pub(crate) async fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("no chromedriver; scripts/setup.sh test installs it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                port.trim_end_matches('.').parse::<u16>().ok()
            })
            .expect("chromedriver says its port");
        let http = feedmill_http();
        let mut browser = Self { driver, session: format!("http://127.0.0.1:{port}/session"), http };
        let args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "timeouts": { "script": PATIENCE.as_millis() as u64 },
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.post("", &wanted).await;
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().unwrap());
        browser
    }

    async fn try_post(&self, path: &str, body: &Value) -> Result<Value, Value> {
        let request = self.http.post(format!("{}{path}", self.session)).body(body.to_string());
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        let is_success = answer.status().is_success();
        let mut body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        if is_success { Ok(body["value"].take()) } else { Err(body["value"].take()) }
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).await.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    /// Runs a script in the page, and returns what it returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).await;
    }

    /// The cookies that the page would send.
    pub(crate) async fn cookies(&self) -> Vec<Value> {
        self.get("/cookie").await.as_array().unwrap().clone()
    }

    /// Goes to a new tab; returns the one it was in.
    pub(crate) async fn open_tab(&self) -> String {
        let before = self.get("/window").await.as_str().unwrap().to_owned();
        let tab = self.post("/window/new", &json!({ "type": "tab" })).await;
        self.post("/window", &json!({ "handle": tab["handle"] })).await;
        before
    }

    /// Closes this tab and goes back to another.
    pub(crate) async fn close_tab(&self, to: &str) {
        self.http.delete(format!("{}/window", self.session)).send().await.unwrap();
        self.post("/window", &json!({ "handle": to })).await;
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.session)).send().await.unwrap();
        serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap()["value"].take()
    }

    pub(crate) async fn url(&self) -> String {
        self.get("/url").await.as_str().unwrap().to_owned()
    }

    /// All text of the page.
    pub(crate) async fn text(&self) -> String {
        self.run("return document.body?.innerText ?? ''").await.as_str().unwrap().to_owned()
    }

    /// Waits until the page says this.
    pub(crate) async fn says(&self, text: &str) {
        eventually(&format!("the page says {text:?}"), PATIENCE, async || {
            self.text().await.contains(text).then_some(())
        })
        .await;
    }

    /// Waits until an expression of JavaScript is true.
    pub(crate) async fn until(&self, expression: &str) {
        eventually(expression, PATIENCE, async || {
            let script = json!({ "script": format!("return Boolean({expression})"), "args": [] });
            (self.try_post("/execute/sync", &script).await == Ok(Value::Bool(true))).then_some(())
        })
        .await;
    }

    /// The element at this XPath, once it is there.
    async fn element(&self, xpath: &str) -> String {
        eventually(&format!("the element {xpath}"), PATIENCE, async || {
            let found = self.try_post("/element", &json!({ "using": "xpath", "value": xpath })).await.ok()?;
            Some(found[ELEMENT].as_str()?.to_owned())
        })
        .await
    }

    pub(crate) async fn click(&self, xpath: &str) {
        eventually(&format!("a click on {xpath}"), PATIENCE, async || {
            // It may be replaced between the look and the click.
            let element = self.element(xpath).await;
            self.try_post(&format!("/element/{element}/click"), &json!({})).await.ok()
        })
        .await;
    }

    /// Clicks what is named so.
    pub(crate) async fn press(&self, name: &str) {
        self.click(&format!("//*[self::a or self::button][normalize-space()={name:?}]")).await;
    }

    /// Clicks what asks whether one is sure, and is.
    pub(crate) async fn press_and_confirm(&self, xpath: &str) {
        self.click(xpath).await;
        self.post("/alert/accept", &json!({})).await;
    }

    pub(crate) async fn fill(&self, xpath: &str, text: &str) {
        let element = self.element(xpath).await;
        self.post(&format!("/element/{element}/clear"), &json!({})).await;
        self.post(&format!("/element/{element}/value"), &json!({ "text": text })).await;
    }

    async fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params })).await
    }

    /// Shows pages so wide, and light or dark.
    pub(crate) async fn look_as(&self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// The whole page as a PNG, in base64.
    pub(crate) async fn picture(&self) -> String {
        let taken = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        taken["data"].as_str().unwrap().to_owned()
    }

    /// What the console was told since the last time, without what is only said for information.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" })).await;
        let lines = log.as_array().unwrap().iter().filter(|line| line["level"] != "INFO" && line["level"] != "DEBUG");
        lines.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What axe-core finds on the page that is serious or worse.
    pub(crate) async fn barriers(&self) -> Vec<String> {
        let axe = std::fs::read_to_string(AXE).expect("no axe-core; scripts/setup.sh test installs it");
        self.devtools("Runtime.evaluate", json!({ "expression": axe })).await;
        let script = "const done = arguments[arguments.length - 1]; axe.run({ resultTypes: ['violations'], preload: false }).then((found) => done(found.violations
            .filter((one) => ['serious', 'critical'].includes(one.impact))
            .map((one) => `${one.id}: ${one.nodes.map((node) => node.html).slice(0, 3).join(' | ')}`)))";
        let found = self.post("/execute/async", &json!({ "script": script, "args": [] })).await;
        found.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    }
}

fn feedmill_http() -> reqwest::Client {
    // All feedmill binaries and tests speak TLS by the same provider; nobody here does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without its driver the browser ends too, but not at once: so it is asked to, on another thread.
        let session = self.session.clone();
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // A client of its own: connections of the other belong to a runtime that waits for this.
            runtime.block_on(async { feedmill_http().delete(session).send().await.map_err(std::io::Error::other) })
        });
        let _ = ending.join();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
