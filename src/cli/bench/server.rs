//! What a server and this process say they have taken so far.

use std::collections::HashMap;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};

use crate::queue::Redis;

/// What was taken up to one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// CPU of the server's main thread, which carries out the commands, in microseconds.
    redis_cpu_us: f64,
    /// CPU of this process, in microseconds.
    client_cpu_us: f64,
    /// Memory of the server's data.
    data_bytes: f64,
}

impl Taken {
    pub(super) async fn now(redis: &Redis) -> anyhow::Result<Self> {
        let ask = async || redis::cmd("INFO").arg("everything").query_async::<String>(&mut redis.connection()).await;
        let info = ask().await.context("Redis does not answer INFO")?;
        let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let number = |name: &str| fields.get(name).and_then(|value| value.parse::<f64>().ok());
        // Servers on other systems than Linux know only the whole process, with the threads that write and free.
        let seconds = |kind: &str| {
            number(&format!("used_cpu_{kind}_main_thread")).or_else(|| number(&format!("used_cpu_{kind}")))
        };
        let memory = number("used_memory").context("INFO does not say used_memory")?;
        let passing = ["mem_clients_normal", "mem_aof_buffer"].into_iter().filter_map(number).sum::<f64>();
        Ok(Self {
            redis_cpu_us: (seconds("user").unwrap_or(0.0) + seconds("sys").unwrap_or(0.0)) * 1e6,
            client_cpu_us: client_cpu_us(),
            data_bytes: memory - passing,
        })
    }

    /// CPU that Redis has taken since `before` for each of so many jobs, in microseconds.
    pub(super) fn redis_cpu_per_job(&self, before: &Self, jobs: u64) -> f64 {
        (self.redis_cpu_us - before.redis_cpu_us) / jobs as f64
    }

    /// CPU that this process has taken since `before` for each of so many jobs, in microseconds.
    pub(super) fn client_cpu_per_job(&self, before: &Self, jobs: u64) -> f64 {
        (self.client_cpu_us - before.client_cpu_us) / jobs as f64
    }

    /// Memory that came to the server's data since `before` for each of so many jobs.
    pub(super) fn bytes_per_job(&self, before: &Self, jobs: u64) -> f64 {
        (self.data_bytes - before.data_bytes) / jobs as f64
    }
}

fn client_cpu_us() -> f64 {
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    taken.tv_sec as f64 * 1e6 + taken.tv_nsec as f64 / 1e3
}
