//! What a server and this process say they have taken so far.

use rustix::time::{ClockId, clock_gettime};

use crate::queue::Redis;

/// What was taken up to one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// CPU of the server for commands, in microseconds.
    redis_cpu_us: f64,
    /// CPU of this process, in microseconds.
    client_cpu_us: f64,
    /// Memory of the server's data.
    data_bytes: f64,
}

impl Taken {
    pub(super) async fn now(redis: &Redis) -> anyhow::Result<Self> {
        let info = redis.info().await?;
        anyhow::ensure!(info.used_memory_bytes() > 0, "INFO does not say used_memory");
        Ok(Self {
            redis_cpu_us: info.command_cpu().as_secs_f64() * 1e6,
            client_cpu_us: client_cpu_us(),
            data_bytes: info.data_bytes() as f64,
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
