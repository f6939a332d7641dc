//! What can be asked of a queue: lists, events, counts over time, and what is told of jobs and consumers.

use std::collections::BTreeMap;

use feedmill::queue::{
    Events, Queue,
    enqueue::{Enqueued, NewJob},
    events::{After, Event},
    list::{Cursor, Listed},
    search::{Filter, Matches},
};

use crate::support::jobs::{PAYLOAD_MAX, id, new_job, queue_with};

mod lists;
mod search;
mod counts;
mod events;
mod series;
mod progress;
mod consumers;
mod at_scale;

fn ids(jobs: &[Listed]) -> Vec<String> {
    jobs.iter().map(|job| job.id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)).collect()
}

/// Adds jobs that have something special.
async fn add_with<'a>(queue: &Queue, jobs: &[&'a str], special: impl Fn(NewJob<'a>) -> NewJob<'a>) {
    let jobs: Vec<NewJob<'a>> = jobs.iter().map(|job| special(new_job(&id(job)))).collect();
    let added = queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    assert!(added.iter().all(|added| *added == Enqueued::Enqueued), "{added:?}");
}

async fn add_grouped(queue: &Queue, group: &'static str, jobs: &[&str]) {
    add_with(queue, jobs, |job| NewJob { group: Some(group), ..job }).await;
}

/// Everything that a search finds, so many a step, and how many jobs it looked at.
async fn search(queue: &Queue, filter: &Filter, limit: usize) -> (Vec<String>, usize) {
    let (mut found, mut looked) = (Vec::new(), 0);
    let mut cursor: Option<Cursor> = None;
    loop {
        let Matches { jobs, looked: here, next } = queue.search(filter, cursor.as_ref(), limit).await.unwrap();
        assert!(jobs.len() <= limit && here <= 128, "a step is bounded");
        found.extend(ids(&jobs));
        looked += here;
        cursor = next;
        if cursor.is_none() {
            return (found, looked);
        }
    }
}

/// A queue that tells everything.
async fn telling_queue() -> Queue {
    queue_with(Events::All.into()).await
}

/// Name and fields of an event, without those that hold a time.
fn told(event: &Event) -> String {
    let fields = event.fields.iter().map(|(name, value)| match name.as_str() {
        "delay" => format!(" {name}"),
        _ => format!(" {name}={value}"),
    });
    event.name.clone() + &fields.collect::<String>()
}

/// What was told of each job, in order.
async fn told_by_job(queue: &Queue) -> BTreeMap<String, Vec<String>> {
    let mut told_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut reader = queue.events(After::BEGINNING);
    loop {
        let events = reader.read(None).await.unwrap();
        if events.is_empty() {
            return told_of;
        }
        for event in events {
            let of = event.job.as_ref().map_or_else(|| "queue".to_owned(), ToString::to_string);
            told_of.entry(of).or_default().push(told(&event));
        }
    }
}
