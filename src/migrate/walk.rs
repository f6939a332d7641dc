//! The way through the structures of a BullMQ queue, page by page, and the account of it.

use std::collections::HashSet;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::keys::Structure;
use super::mapping::{Arrival, Mapping, Met, Obstacle, Origin, arrival};
use super::source::{Page, Removed, Source, Survey};
use super::target::{self, TakenIn};
use super::{DEAD_LETTER_QUEUE_SUFFIX, MigrateError};
use crate::job::JobId;
use crate::queue::{Queue, Redis};

/// Most jobs that stay whose reasons are reported; all are counted.
pub(super) const REPORTED_OBSTACLES_MAX: usize = 20;

/// A BullMQ queue that is to be taken over.
#[derive(Debug)]
pub struct Migration {
    source: Source,
    /// Present when BullMQ has it.
    dead_letter_queue: Option<(String, Source)>,
    target: Queue,
    mapping: Mapping,
    payload_max_bytes: usize,
}

/// What a migration finds before it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the queue.
    pub queue: Survey,
    /// In its dead-letter queue.
    pub dead_letter_queue: Survey,
}

/// What became of the jobs of one kind. In a dry run: what would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// They are here now.
    pub moved: u64,
    /// The same job, or newer content of the same item, was here already; they are gone from BullMQ.
    pub duplicates: u64,
    /// They stay in BullMQ.
    pub stay: u64,
}

/// The account of a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Jobs that waited.
    pub waiting: Tally,
    /// Jobs with a priority.
    pub prioritized: Tally,
    /// Jobs that were not due.
    pub delayed: Tally,
    /// Jobs that were given up.
    pub failed: Tally,
    /// Jobs of the dead-letter queue.
    pub dlq: Tally,
    /// Why jobs stay; the first 20 of them.
    pub obstacles: Vec<Stays>,
    /// Jobs that a worker of BullMQ, or another run, took while they were moved: they may be in both.
    pub taken_meanwhile: u64,
    /// Jobs that stay because their scheduler waits for them; counted in `stay` too.
    pub next_runs: u64,
}

/// A job that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stays {
    /// Prefix and name of its queue.
    pub queue: String,
    /// Its id in BullMQ.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// The rows of a report.
#[derive(Clone, Copy, Debug)]
enum Part {
    Waiting,
    Prioritized,
    Delayed,
    Failed,
    DeadLetterQueue,
}

/// One structure on the way.
#[derive(Clone, Copy, Debug)]
struct Station<'a> {
    source: &'a Source,
    origin: Origin<'a>,
    structure: Structure,
    part: Part,
}

impl Report {
    /// Rows in the order in which BullMQ's users know them.
    pub fn rows(&self) -> [(&'static str, Tally); 5] {
        [
            ("waiting", self.waiting),
            ("prioritized", self.prioritized),
            ("delayed", self.delayed),
            ("failed", self.failed),
            ("dlq", self.dlq),
        ]
    }

    /// Whether a job stays that somebody has to look after; a scheduler looks after its own.
    pub fn is_complete(&self) -> bool {
        let stay: u64 = self.rows().iter().map(|(_, tally)| tally.stay).sum();
        stay == self.next_runs && self.taken_meanwhile == 0
    }

    fn tally(&mut self, part: Part) -> &mut Tally {
        match part {
            Part::Waiting => &mut self.waiting,
            Part::Prioritized => &mut self.prioritized,
            Part::Delayed => &mut self.delayed,
            Part::Failed => &mut self.failed,
            Part::DeadLetterQueue => &mut self.dlq,
        }
    }

    fn note_obstacle(&mut self, station: Station<'_>, id: &[u8], obstacle: &Obstacle) {
        self.tally(station.part).stay += 1;
        if *obstacle == Obstacle::NextRun {
            self.next_runs += 1;
        } else if self.obstacles.len() < REPORTED_OBSTACLES_MAX {
            let id = String::from_utf8_lossy(id).into_owned();
            self.obstacles.push(Stays { queue: station.source.label(), id, reason: obstacle.to_string() });
        }
    }
}

impl Found {
    /// Jobs that are there to be moved.
    pub fn movable(&self) -> u64 {
        self.queue.movable() + self.dead_letter_queue.movable()
    }
}

impl Migration {
    /// Looks for the queue `name` of BullMQ, and for its dead-letter queue, on `redis`.
    ///
    /// # Errors
    /// [`MigrateError::NoQueue`], [`MigrateError::Redis`].
    pub async fn find(
        redis: &Redis,
        prefix: &str,
        name: &str,
        target: Queue,
        mapping: Mapping,
        payload_max_bytes: usize,
    ) -> Result<Self, MigrateError> {
        let source = Source::new(redis, prefix, name);
        if !source.exists().await? {
            return Err(MigrateError::NoQueue { queue: source.label(), key: format!("{}:meta", source.label()) });
        }
        let dlq_name = format!("{name}{DEAD_LETTER_QUEUE_SUFFIX}");
        let dlq = Source::new(redis, prefix, &dlq_name);
        let dead_letter_queue = dlq.exists().await?.then_some((dlq_name, dlq));
        Ok(Self { source, dead_letter_queue, target, mapping, payload_max_bytes })
    }

    /// Counts what is there, and makes sure that nobody works on it.
    ///
    /// # Errors
    /// [`MigrateError::Active`], [`MigrateError::Workers`], [`MigrateError::Redis`].
    pub async fn begin(&self) -> Result<Found, MigrateError> {
        let mut found = Found { queue: check(&self.source).await?, ..Found::default() };
        if let Some((_, dlq)) = &self.dead_letter_queue {
            found.dead_letter_queue = check(dlq).await?;
        }
        Ok(found)
    }

    /// Says what would be moved, and changes nothing. `progress` is told how many jobs were looked at.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn rehearse(&self, mut progress: impl FnMut(u64)) -> Result<Report, MigrateError> {
        let mut report = Report::default();
        // Ids that this run would have moved, as digests: copies in the dead-letter queue are duplicates of them.
        let mut moved = HashSet::new();
        for station in self.stations() {
            let mut looked_at = 0;
            loop {
                let page = station.source.read_page(station.structure, looked_at).await?;
                if page.jobs.is_empty() {
                    break;
                }
                looked_at += page.jobs.len();
                let arrivals = self.sort_out(station, &page, &mut report);
                let ids: Vec<JobId> = arrivals.iter().map(|(_, arrival)| arrival.id.clone()).collect();
                let living = self.target.jobs(&ids).await?;
                for ((id, arrival), lives) in arrivals.into_iter().zip(living) {
                    let met = lives.map(|job| arrival.is_met_by(&job));
                    let tally = report.tally(station.part);
                    match met {
                        Some(Met::Other) => report.note_obstacle(station, id, &Obstacle::IdInUse),
                        Some(Met::Older) | None if moved.insert(xxh3_64(arrival.id.as_bytes())) => tally.moved += 1,
                        Some(Met::Same | Met::Older) | None => tally.duplicates += 1,
                    }
                }
                progress(page.jobs.len() as u64);
            }
        }
        Ok(report)
    }

    /// Moves everything that can be moved. `progress` is told how many jobs were looked at.
    ///
    /// What was paused stays paused: if BullMQ's queue is, ours is paused before the first job is in.
    ///
    /// # Errors
    /// [`MigrateError`]: what was moved so far is here, the rest is in BullMQ; run it again.
    pub async fn run(&self, found: &Found, mut progress: impl FnMut(u64)) -> Result<Report, MigrateError> {
        let mut report = Report::default();
        let mut must_pause = found.queue.is_paused;
        for station in self.stations() {
            let mut stay = 0;
            loop {
                let page = station.source.read_page(station.structure, stay).await?;
                if page.jobs.is_empty() {
                    break;
                }
                let stayed_before = report.tally(station.part).stay;
                let arrivals = self.sort_out(station, &page, &mut report);
                if must_pause && !arrivals.is_empty() {
                    self.target.pause().await?;
                    must_pause = false;
                }
                self.move_in(station, arrivals, &mut report).await?;
                stay += (report.tally(station.part).stay - stayed_before) as usize;
                progress(page.jobs.len() as u64);
            }
        }
        Ok(report)
    }

    /// Takes jobs in, then removes them from BullMQ. *Crash:* between the two they stand in both; the next run finds
    /// them here, and makes up for the removal.
    async fn move_in(
        &self,
        station: Station<'_>,
        arrivals: Vec<(&[u8], Arrival)>,
        report: &mut Report,
    ) -> Result<(), MigrateError> {
        let (ids, arrivals): (Vec<&[u8]>, Vec<Arrival>) = arrivals.into_iter().unzip();
        let taken_in = target::take_in(&self.target, &arrivals, self.payload_max_bytes).await?;
        let (mut to_remove, mut moved) = (Vec::with_capacity(ids.len()), 0);
        for (id, taken_in) in ids.into_iter().zip(taken_in) {
            match taken_in {
                TakenIn::Moved => {
                    moved += 1;
                    to_remove.push(id);
                }
                TakenIn::Duplicate => {
                    report.tally(station.part).duplicates += 1;
                    to_remove.push(id);
                }
                TakenIn::IdInUse => report.note_obstacle(station, id, &Obstacle::IdInUse),
                TakenIn::Refused(reason) => report.note_obstacle(station, id, &Obstacle::Refused(reason)),
            }
        }
        report.tally(station.part).moved += moved;
        let removed = station.source.remove(station.structure, &to_remove).await?;
        report.taken_meanwhile += removed.iter().filter(|removed| **removed == Removed::Gone).count() as u64;
        Ok(())
    }

    /// What the jobs of a page become, with their ids in BullMQ; those that stay are noted.
    fn sort_out<'p>(&self, station: Station<'_>, page: &'p Page, report: &mut Report) -> Vec<(&'p [u8], Arrival)> {
        let mut arrivals = Vec::with_capacity(page.jobs.len());
        for job in &page.jobs {
            match arrival(job, station.origin, self.mapping, page.read_at, self.payload_max_bytes) {
                Ok(arrival) => arrivals.push((job.id.as_slice(), arrival)),
                Err(obstacle) => report.note_obstacle(station, &job.id, &obstacle),
            }
        }
        arrivals
    }

    /// The structures in the order in which they are emptied. What failed goes first, so that a newer job of the same item
    /// takes over its dead letter; the dead-letter queue last, because it holds copies, which give way to everything.
    fn stations(&self) -> Vec<Station<'_>> {
        let here = |structure, part| Station { source: &self.source, origin: Origin::Queue, structure, part };
        let mut stations = vec![
            here(Structure::Failed, Part::Failed),
            here(Structure::Wait, Part::Waiting),
            here(Structure::Paused, Part::Waiting),
            here(Structure::Prioritized, Part::Prioritized),
            here(Structure::Delayed, Part::Delayed),
        ];
        if let Some((name, source)) = &self.dead_letter_queue {
            let origin = Origin::DeadLetterQueue(name);
            let all =
                [Structure::Failed, Structure::Wait, Structure::Paused, Structure::Prioritized, Structure::Delayed];
            let part = Part::DeadLetterQueue;
            stations.extend(all.map(|structure| Station { source, origin, structure, part }));
        }
        stations
    }
}

async fn check(source: &Source) -> Result<Survey, MigrateError> {
    let survey = source.survey().await?;
    if survey.active > 0 {
        return Err(MigrateError::Active { queue: source.label(), jobs: survey.active });
    }
    // Workers of a paused queue take nothing.
    if !survey.is_paused {
        match source.workers().await? {
            Some(0) => {}
            Some(workers) => return Err(MigrateError::Workers { queue: source.label(), workers }),
            None => tracing::warn!(
                queue = %source.label(),
                "Redis does not list its clients: make sure that no BullMQ worker of {} runs", source.label()
            ),
        }
    }
    Ok(survey)
}
