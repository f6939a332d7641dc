//! The integration tests: feedmill's parts against a real Redis and a real MongoDB.
//!
//! Each test has a key prefix and a database of its own on servers shared by the run; a test that breaks a server
//! starts its own (`support/servers.rs`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so may its helpers")]

mod support;

mod servers;
mod audit;
mod enqueue;
mod adding;
mod delivery;
mod claim;
mod pause;
mod limits;
mod groups;
mod priorities;
mod backoff;
mod dead_letter;
mod operate;
mod schedulers;
mod schedule_loop;
mod consumers;
mod look;
mod worker;
mod library;
mod model;
mod differential;
mod store;

mod happy_path;
mod newest_lands;
mod plain_producers;
mod poison;
mod fetch_failures;
mod what_servers_do;
mod many_hosts;
mod hostile;
mod leaving;
mod crash;
mod outage;
mod ending;
mod schedules;
mod shared_out;
mod embedded;
mod metrics;
mod traces;

mod cli;
mod captures;
mod look_cli;
mod xinfo;
mod doctor;
mod subscriptions;
mod operate_cli;
mod schedulers_cli;
mod migrate;
mod http_api;
mod dashboard_api;
mod dashboard;
mod dashboard_load;
mod pictures;
mod demo;
