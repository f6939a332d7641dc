//! How Redis, MongoDB, the queues and this process are doing.

use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};

use super::page::Page;
use super::view::{number, span, time};
use crate::check::{Check, Status};
use crate::http::{ApiError, health_facts};

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
    let health = health_facts::health(&page.app).await?;
    let body = html! {
        div.head { div { h1 { "Health" } } span.dim { code { "feedmill doctor" } " and " code { "feedmill xinfo" } " look closer" } }
        @if !health.stopped.is_empty() { section.panel.problem { "Stopped in this process: " (health.stopped.join(", ")) } }
        @if !health.findings.is_empty() {
            section.panel.flush {
                h2 { "Queues" }
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Queue" } th scope="col" { "What was found" } th scope="col" { "What mends it" } } }
                        tbody {
                            @for (queue, finding) in &health.findings {
                                tr {
                                    td { a href=(page.queue_url(queue)) { (queue) } }
                                    td.wide.(if finding.status == Status::Error { "bad" } else { "" }) { (finding.verdict) }
                                    td.note { code { @for word in finding.fix.split(' ') { span.nowrap { (word) } " " } } }
                                }
                            }
                        }
                    }
                }
            }
        }
        div.grid {
            section.panel {
                h2 { "Redis" }
                @match &health.redis {
                    Err(error) => p.bad { (error) },
                    Ok(facts) => {
                        (checks_list(&facts.checks))
                        dl.about {
                            dt { "Address" } dd { (facts.address) }
                            dt { "Round trip" } dd { (format!("{:.1} ms", facts.ping.as_secs_f64() * 1000.0)) }
                            @for name in health_facts::TOLD {
                                @if let Some(value) = facts.info.text(name) { @let (name, value) = in_words(name, value); dt { (name) } dd { (value) } }
                            }
                        }
                    }
                }
            }
            div.column {
                section.panel {
                    h2 { "MongoDB" }
                    @match &health.mongodb {
                        Err(error) => p.bad { (error) },
                        Ok((facts, checks)) => {
                            (checks_list(checks))
                            dl.about {
                                dt { "Version" } dd { (facts.version) }
                                dt { "Round trip" } dd { (format!("{:.1} ms", facts.ping.as_secs_f64() * 1000.0)) }
                                @for (name, documents) in &facts.documents { dt { (name) } dd { (number(*documents)) " documents" } }
                                dt { "Indexes of jobs" } dd { (facts.indexes.join(", ")) }
                            }
                        }
                    }
                }
                section.panel {
                    h2 { "This process" }
                    dl.about {
                        dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) }
                        dt { "Started" } dd { (time(page.app.started_at)) }
                        dt { "Configuration" } dd { (page.app.options.config_file) }
                        dt { "Feeds" } dd { (number(page.app.feeds.current().len() as u64)) }
                        dt { "Changes" } dd { (if page.may_act() { "allowed" } else { "refused: read-only" }) }
                    }
                }
            }
        }
    };
    Ok(page.shell("Health", "health", &body))
}

/// What is not as it should be, and what mends it.
fn checks_list(checks: &[Check]) -> Markup {
    html! {
        @for check in checks.iter().filter(|check| check.status != Status::Ok) {
            p.(if check.status == Status::Error { "bad" } else { "warn" }) {
                (check.detail)
                @if let Some(fix) = &check.fix { br; code { (fix) } }
            }
        }
    }
}

/// A field of Redis' `INFO` as people say it.
fn in_words(name: &str, value: &str) -> (String, String) {
    let on_or_off = || if value == "1" { "on" } else { "off" }.to_owned();
    let (name, value) = match name {
        "redis_version" => ("Version", value.to_owned()),
        "redis_mode" => ("Mode", value.to_owned()),
        "role" => ("Role", value.to_owned()),
        "uptime_in_seconds" => ("Up for", value.parse().map_or(value.to_owned(), |s| span(Duration::from_secs(s)))),
        "connected_clients" => ("Clients", value.to_owned()),
        "blocked_clients" => ("Clients that wait", value.to_owned()),
        "used_memory_human" => ("Memory", value.to_owned()),
        "used_memory_peak_human" => ("Memory at most", value.to_owned()),
        "maxmemory_human" => ("Limit of memory", if value == "0B" { "none".to_owned() } else { value.to_owned() }),
        "maxmemory_policy" => ("Eviction", value.to_owned()),
        "mem_fragmentation_ratio" => ("Fragmentation", value.to_owned()),
        "instantaneous_ops_per_sec" => ("Commands a second", value.to_owned()),
        "evicted_keys" => ("Evicted keys", value.to_owned()),
        "expired_keys" => ("Expired keys", value.to_owned()),
        "aof_enabled" => ("Append-only file", on_or_off()),
        "rdb_last_bgsave_status" => ("Last snapshot", value.to_owned()),
        "connected_slaves" => ("Replicas", value.to_owned()),
        _ => return (name.replace('_', " "), value.to_owned()),
    };
    (name.to_owned(), value)
}
