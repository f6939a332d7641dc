//! `up --embedded` in a folder of a test.

use std::{collections::HashMap, fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    eventually::eventually,
    process::{Mill, PATIENCE, Running},
    servers::find,
};

/// A data directory for private servers. Dropping it kills what a test that failed left running.
pub(crate) struct DataDir(pub(crate) PathBuf);

impl DataDir {
    /// In the folder of this mill, with the programs where `make setup` puts them.
    pub(crate) fn of(mill: &Mill) -> Self {
        let folder = mill.folder().join("data dir");
        fs::create_dir_all(folder.join("bin")).unwrap();
        for program in ["redis-server", "mongod"] {
            symlink(find(program), folder.join("bin").join(program)).unwrap();
        }
        Self(folder)
    }

    /// Starts `up --embedded`.
    pub(crate) fn start(&self, mill: &Mill) -> Running {
        mill.start_command(self.command(mill))
    }

    /// The command that starts `up --embedded`.
    pub(crate) fn command(&self, mill: &Mill) -> Command {
        mill.command(&["up", "--embedded", "--data-dir", self.0.to_str().unwrap()])
    }

    /// Starts `up --embedded` and waits until it works; returns the variables for other commands.
    pub(crate) async fn up(&self, mill: &Mill) -> (Running, HashMap<String, String>) {
        let up = self.start(mill);
        let variables = self.variables(&up).await;
        (up, variables)
    }

    /// Waits until this `up --embedded` works; returns the variables for other commands.
    pub(crate) async fn variables(&self, up: &Running) -> HashMap<String, String> {
        eventually("up is up", PATIENCE, async || (up.stderr().matches("worker starts").count() == 2).then_some(()))
            .await;
        let text = fs::read_to_string(self.env_file()).unwrap();
        let variables = text.lines().map(|line| line.split_once('=').unwrap());
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(crate) fn env_file(&self) -> PathBuf {
        self.0.join("embedded.env")
    }

    /// Process ids of the servers that `up` has written down: redis-server, then mongod.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        let Ok(noted) = fs::read(self.0.join("data/servers.json")) else { return Vec::new() };
        let noted: serde_json::Value = serde_json::from_slice(&noted).unwrap();
        let pids = ["redis-server", "mongod"].into_iter().filter_map(|program| noted[program]["pid"].as_i64());
        pids.map(|pid| Pid::from_raw(pid as i32).unwrap()).collect()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // All that work in this folder, also those that `up` has wrongly forgotten.
        let folder = fs::canonicalize(&self.0).unwrap();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let works_here = fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid.filter(|_| works_here) {
                let _ = kill_process(pid, Signal::KILL); // it may have ended already
            }
        }
    }
}
