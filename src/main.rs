//! Parses the arguments, runs one command, and turns its result into an exit status.

use std::process::ExitCode;

use clap::Parser as _;
use feedmill::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return cli::report(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    // What is traced is sent by tasks of the runtime.
    let within = runtime.enter();
    cli.start_logging();
    drop(within);
    let status = match runtime.block_on(cli::run(cli)) {
        Ok(status) => status,
        Err(error) => cli::report(&error),
    };
    feedmill::telemetry::end();
    // Everything that must end has ended. To drop the runtime drops its tasks one after the other while others still run,
    // and the driver of MongoDB panics where a task of its own is gone.
    std::mem::forget(runtime);
    status
}
