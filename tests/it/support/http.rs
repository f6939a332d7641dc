//! A client that sends what a test says, byte for byte, also what no library would send.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    eventually::eventually,
    process::{Mill, PATIENCE, Running},
};

/// `feedmill serve` or `up`, listening on a free port.
pub(crate) struct Served {
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Served {
    /// Waits until a process of this mill listens.
    pub(crate) async fn by(process: Running) -> Self {
        let address = eventually("it listens", PATIENCE, async || listens_on(&process.stderr())).await;
        Self { process, address }
    }

    /// Starts `serve`.
    pub(crate) async fn serve(mill: &Mill) -> Self {
        Self::by(mill.start(&["serve"])).await
    }

    /// Starts `serve` behind a token.
    pub(crate) async fn behind_token(mill: &Mill, token: &str) -> Self {
        let mut command = mill.command(&["serve"]);
        command.env("FEEDMILL_TOKEN", token);
        Self::by(mill.start_command(command)).await
    }

    /// Starts `up`.
    pub(crate) async fn up(mill: &Mill) -> Self {
        Self::by(mill.start(&["up"])).await
    }

    /// Asks for a path.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// Asks for a path that is there, and returns its JSON.
    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Posts JSON; nothing at all when `body` is empty.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("Content-Type", "application/json")] };
        self.ask("POST", path, headers, body).await
    }

    /// Sends a request; `Host` is this server unless `headers` say otherwise.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&self.request(method, path, headers, body)).await.unwrap();
        Answer::read(&mut stream).await
    }

    /// The bytes of a request after which the connection is closed.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
        let mut lines = vec![format!("{method} {path} HTTP/1.1"), "Connection: close".to_owned()];
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            lines.push(format!("Host: {}", self.address));
        }
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        if !body.is_empty() {
            lines.push(format!("Content-Length: {}", body.len()));
        }
        (lines.join("\r\n") + "\r\n\r\n" + body).into_bytes()
    }
}

/// The address in the line that a process logs once it listens.
fn listens_on(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening on http://")?;
    rest.split_once(char::is_whitespace)?.0.parse().ok()
}

impl Answer {
    /// Reads an answer until the connection is closed.
    pub(crate) async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Its body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that it is this error, in JSON, and returns its detail.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> String {
        let body = self.json();
        assert_eq!((self.status, body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert!(self.head.to_ascii_lowercase().contains("content-type: application/json"), "{self:?}");
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
        body["detail"].as_str().unwrap().to_owned()
    }
}
