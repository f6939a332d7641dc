//! The real BullMQ, in a Node process that does one thing at a time: see `tests/bullmq/driver.mjs`.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use super::{redis_prefix, servers::find};

/// Which BullMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V5,
    V6,
}

/// BullMQ under a key prefix of its own. Its processes end with it.
pub(crate) struct BullMq {
    prefix: String,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl BullMq {
    /// Starts it on the Redis of this address.
    ///
    /// # Panics
    /// When Node or the packages are missing; the message says what to do.
    pub(crate) fn start(version: Version, redis_url: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bullmq");
        assert!(folder.join("node_modules").is_dir(), "BullMQ is not installed; run: scripts/setup.sh test");
        let package = match version {
            Version::V5 => "bullmq5",
            Version::V6 => "bullmq",
        };
        let prefix = redis_prefix();
        let mut child = Command::new(find("node"))
            .args(["driver.mjs", package, redis_url, &prefix])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { prefix, child, commands, answers }
    }

    /// What its keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Carries out a command and returns what it answered.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub(crate) fn call(&mut self, command: &Value) -> Value {
        self.try_call(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// As [`Self::call`], of a command that may fail; its error is what BullMQ throws.
    #[track_caller]
    pub(crate) fn try_call(&mut self, command: &Value) -> Result<Value, String> {
        writeln!(self.commands, "{command}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{command}: {line:?}"));
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }

    /// Calls a method of the queue.
    #[track_caller]
    pub(crate) fn queue(&mut self, queue: &str, method: &str, args: &Value) -> Value {
        self.call(&json!({"do": "queue", "queue": queue, "method": method, "args": args}))
    }

    /// Calls a method of a job.
    #[track_caller]
    pub(crate) fn job(&mut self, queue: &str, id: &str, method: &str, args: &Value) -> Value {
        self.call(&json!({"do": "job", "queue": queue, "id": id, "method": method, "args": args}))
    }

    /// Adds a job; returns its id.
    #[track_caller]
    pub(crate) fn add(&mut self, queue: &str, data: &Value, options: &Value) -> String {
        self.queue(queue, "add", &json!(["work", data, options]))["id"].as_str().unwrap().to_owned()
    }

    /// Adds jobs, each as `(data, options)`; returns their ids.
    #[track_caller]
    pub(crate) fn add_bulk(&mut self, queue: &str, jobs: impl IntoIterator<Item = (Value, Value)>) -> Vec<String> {
        let jobs: Vec<Value> =
            jobs.into_iter().map(|(data, options)| json!({"name": "work", "data": data, "opts": options})).collect();
        let mut ids = Vec::with_capacity(jobs.len());
        for piece in jobs.chunks(1000) {
            let added = self.queue(queue, "addBulk", &json!([piece]));
            ids.extend(added.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        }
        ids
    }

    /// Counts by state, under BullMQ's names.
    #[track_caller]
    pub(crate) fn counts(&mut self, queue: &str) -> Value {
        self.queue(queue, "getJobCounts", &json!([]))
    }

    /// Starts the worker of a queue, which works when it is told to.
    #[track_caller]
    pub(crate) fn worker(&mut self, queue: &str, options: &Value) {
        self.call(&json!({"do": "worker", "queue": queue, "options": options}));
    }

    #[track_caller]
    pub(crate) fn close_worker(&mut self, queue: &str) {
        self.call(&json!({"do": "close_worker", "queue": queue}));
    }

    /// The worker takes the next job; `None` when there is none.
    #[track_caller]
    pub(crate) fn take(&mut self, queue: &str) -> Option<Value> {
        Some(self.call(&json!({"do": "take", "queue": queue}))).filter(|job| !job.is_null())
    }

    /// The processor of a job that was taken ends like this.
    #[track_caller]
    pub(crate) fn settle(&mut self, queue: &str, id: &str, outcome: &Value) {
        self.call(&json!({"do": "settle", "queue": queue, "id": id, "outcome": outcome}));
    }

    /// The worker takes and settles until nothing waits: `outcomes` by id and attempt, else `otherwise`.
    #[track_caller]
    pub(crate) fn work(&mut self, queue: &str, outcomes: &Value, otherwise: &Value) {
        self.call(&json!({"do": "work", "queue": queue, "outcomes": outcomes, "otherwise": otherwise}));
    }
}

impl Drop for BullMq {
    fn drop(&mut self) {
        // One that has ended only gives an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes two tests of a scenario that takes a [`Version`].
macro_rules! on_each_bullmq {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::support::bullmq::Version;

            #[tokio::test]
            async fn of_bullmq_6() {
                super::$scenario(Version::V6).await;
            }

            #[tokio::test]
            async fn of_bullmq_5() {
                super::$scenario(Version::V5).await;
            }
        }
    )+};
}
pub(crate) use on_each_bullmq;
