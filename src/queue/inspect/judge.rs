//! What was observed, in plain language: a verdict for each line, and findings for what is not as it should be.

use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use super::super::{GROUP, Queue, QueueError, millis};
use super::observe::{Due, Length, Observed, RawConsumer, RawGroup, RawPending, lane_name};
use super::walks::{Delivered, Guards, Miscounted};
use super::words::{counted, is, span, will_be};
use super::{
    ConsumerLife, ConsumerLine, DeadReason, Finding, FindingKind, Group, InspectOptions, Inspection, ParkedGroup,
    PendingEntry, Structure, Walked,
};
use crate::check::Status;
use crate::job::{EntryId, Place};

/// A promoter sleeps until the next due time: what is overdue by more than this is promoted by nobody.
const BACKOFF_OVERDUE_MS: u64 = 10_000;
/// A schedule loop sleeps until the next slot, too, and may have many to fire at once.
const SCHEDULER_OVERDUE_MS: u64 = 30_000;
/// Reasons of dead letters that are told apart, and how much of each is shown.
const REASONS_MAX: usize = 5;
const REASON_CHARS: usize = 60;

pub(super) async fn inspect(queue: &Queue, options: InspectOptions) -> Result<Inspection, QueueError> {
    let mistyped = queue.mistyped_keys().await?;
    if !mistyped.is_empty() {
        let now = queue.time().await?.duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok(mistyped_inspection(queue, millis(now), &mistyped));
    }
    let observed = queue.observe().await?;
    let delivered = queue.walk_delivered(&options).await?;
    let fence = queue.fence().await?;
    let guards = queue.walk_guards(&options).await?;
    let miscounted =
        if queue.limits_groups() { queue.miscounted(&guards, fence).await? } else { Miscounted::default() };
    let orphans = delivered.orphans.iter().filter(|(lane, _)| *lane == Place::Stream).count() as u64;
    Ok(Judge { queue, options, observed, orphans, findings: Vec::new() }.inspection(delivered, guards, miscounted))
}

/// Of a queue in which nothing else can be trusted, since every script fails that meets such a key.
fn mistyped_inspection(queue: &Queue, at_ms: u64, mistyped: &[(String, String)]) -> Inspection {
    let findings = mistyped.iter().map(|(key, found)| {
        Finding::error(
            FindingKind::WrongType,
            1,
            format!("the key {key} is a {found}: another program wrote it, and every script that meets it fails"),
            format!("redis-cli RENAME '{key}' '{key}.wrong'"),
        )
        .with_examples([key])
    });
    Inspection {
        queue: queue.name().to_owned(),
        at_ms,
        paused: false,
        consumers_alive: 0,
        structures: Vec::new(),
        groups: Vec::new(),
        consumers: Vec::new(),
        oldest_pending: Vec::new(),
        parked: Vec::new(),
        dead_reasons: Vec::new(),
        walked: Walked::default(),
        findings: findings.collect(),
        orphans: Vec::new(),
        stray_guards: Vec::new(),
        forgotten_groups: Vec::new(),
        miscounted: Miscounted::default(),
    }
}

struct Judge<'a> {
    queue: &'a Queue,
    options: InspectOptions,
    observed: Observed,
    /// Entries of the work stream that are pending for nobody: Redis counts them as waiting, and nobody will read them.
    orphans: u64,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn inspection(mut self, delivered: Delivered, guards: Guards, miscounted: Miscounted) -> Inspection {
        let groups = self.groups();
        let consumers = self.consumers();
        let oldest_pending = self.oldest_pending();
        self.backlog();
        let (parked, forgotten_groups) = self.parked();
        self.walks(&delivered, &guards, &miscounted);
        let dead_reasons = self.dead_letters();
        let structures = self.structures();
        let mut findings = self.findings;
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.status));
        Inspection {
            queue: self.queue.name().to_owned(),
            at_ms: self.observed.now_ms,
            paused: self.observed.counts.is_paused,
            consumers_alive: self.observed.counts.consumers_alive,
            structures,
            groups,
            consumers,
            oldest_pending,
            parked,
            dead_reasons,
            walked: Walked {
                entries: delivered.looked,
                entries_through: delivered.is_through,
                guards: guards.looked,
                guards_through: guards.is_through,
            },
            findings,
            orphans: delivered.orphans,
            stray_guards: guards.strays,
            forgotten_groups,
            miscounted,
        }
    }

    /// A command for this queue.
    fn command(&self, command: &str) -> String {
        format!("feedmill {command} --queue {}", self.queue.name())
    }

    fn fix_command(&self) -> String {
        format!("feedmill xinfo {} --fix", self.queue.name())
    }

    fn nobody_lives(&self) -> bool {
        self.observed.counts.consumers_alive == 0
    }

    // ── groups ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    fn groups(&mut self) -> Vec<Group> {
        let mut lines = Vec::new();
        let observed = std::mem::take(&mut self.observed.groups);
        for (lane, groups) in &observed {
            let length = self.observed.lengths[lane_name(*lane)].n;
            if !groups.iter().any(|group| group.name == GROUP) && (length > 0 || self.was_lost(*lane)) {
                self.findings.push(Finding::error(
                    FindingKind::GroupLost,
                    length,
                    format!(
                        "the consumer group {GROUP} of {} is gone: nobody can read its {}",
                        self.queue_key(*lane),
                        counted(length, "entry")
                    ),
                    self.fix_command(),
                ));
            }
            lines.extend(groups.iter().map(|group| self.group(*lane, group)));
        }
        self.observed.groups = observed;
        lines
    }

    /// Whether the group of a lane must have been there before.
    fn was_lost(&self, lane: Place) -> bool {
        lane == Place::Stream && self.observed.had_group
    }

    fn queue_key(&self, lane: Place) -> &str {
        &self.observed.lengths[lane_name(lane)].key
    }

    fn group(&mut self, lane: Place, group: &RawGroup) -> Group {
        let is_ours = group.name == GROUP;
        let last_delivered = match &self.observed.gate {
            Some(gate) if is_ours && lane == Place::Stream => gate.clone(),
            _ => group.last_delivered.clone(),
        };
        let (status, verdict) = if is_ours {
            let lag = match group.lag {
                _ if lane == Place::Prioritized => "jobs with a priority that workers have".to_owned(),
                _ if self.observed.gate.is_some() => "its gate is closed: paused or limited".to_owned(),
                Some(0) => "everything was delivered".to_owned(),
                Some(lag) => format!("{} {} still to be delivered", counted(lag, "entry"), is(lag)),
                None => "Redis does not know the lag: entries were deleted".to_owned(),
            };
            (Status::Ok, lag)
        } else {
            let stream = self.queue_key(lane).to_owned();
            let name = &group.name;
            self.findings.push(
                Finding::error(
                    FindingKind::SecondGroup,
                    1,
                    format!(
                        "{stream} has a second consumer group, {name}: it is given every job as well, and jobs go as soon as \
                         {GROUP} has settled them, whether it has read them or not"
                    ),
                    format!("redis-cli XGROUP DESTROY '{stream}' '{name}'"),
                )
                .with_examples([name]),
            );
            (Status::Error, "not ours: a work stream has exactly one group".to_owned())
        };
        Group {
            stream: lane_name(lane),
            name: group.name.clone(),
            consumers: group.consumers,
            pending: group.pending,
            last_delivered,
            lag: group.lag,
            status,
            verdict,
        }
    }

    // ── consumers ───────────────────────────────────────────────────────────────────────────────────────────────────────

    fn consumers(&mut self) -> Vec<ConsumerLine> {
        let consumers = std::mem::take(&mut self.observed.consumers);
        let lines = consumers.iter().map(|consumer| self.consumer(consumer)).collect();
        self.observed.consumers = consumers;
        lines
    }

    fn consumer(&mut self, consumer: &RawConsumer) -> ConsumerLine {
        let state = &consumer.state;
        let beat = state.heartbeat_at.map(|at| millis(at.duration_since(UNIX_EPOCH).unwrap_or_default()));
        let heartbeat_ms = beat.map(|beat| self.observed.now_ms.saturating_sub(beat));
        let life = match state.heartbeat_at {
            _ if state.is_alive => ConsumerLife::Alive,
            Some(_) => ConsumerLife::Dead,
            None => ConsumerLife::Unknown,
        };
        let idle_ms = consumer.pending_idle_ms.unwrap_or(0);
        let claimed_in_ms = (life != ConsumerLife::Alive
            && state.pending > 0
            && !self.nobody_lives()
            && !self.observed.counts.is_paused)
            .then(|| self.next_claim_ms(idle_ms));
        let held = counted(state.pending, "entry");
        let (status, verdict) = match life {
            ConsumerLife::Alive if state.pending == 0 => (Status::Ok, "alive, holds nothing".to_owned()),
            ConsumerLife::Alive => (Status::Ok, format!("alive, holds {held}")),
            _ => {
                let past = match (life, heartbeat_ms) {
                    (ConsumerLife::Dead, Some(ms)) => format!("died {} ago", span(ms)),
                    _ => "no worker of ours,".to_owned(),
                };
                if state.pending == 0 {
                    (Status::Ok, format!("{past} holding nothing: any worker removes it"))
                } else {
                    self.gone_with_entries(consumer, &past, claimed_in_ms, idle_ms)
                }
            }
        };
        ConsumerLine {
            name: state.name.clone(),
            life,
            host: state.about.as_ref().map(|about| about.host.clone()),
            pid: state.about.as_ref().map(|about| about.pid),
            heartbeat_ms,
            idle_ms: consumer.idle_ms,
            inactive_ms: consumer.inactive_ms,
            pending: state.pending,
            claimed_in_ms,
            status,
            verdict,
        }
    }

    fn gone_with_entries(
        &mut self,
        consumer: &RawConsumer,
        past: &str,
        claimed_in_ms: Option<u64>,
        idle_ms: u64,
    ) -> (Status, String) {
        let RawConsumer { state, .. } = consumer;
        let held = counted(state.pending, "entry");
        let (next, fix) = match claimed_in_ms {
            Some(ms) => (
                format!("{} claimed in {}", will_be(state.pending), span(ms)),
                "nothing to do; to replace it: feedmill worker".to_owned(),
            ),
            None if self.observed.counts.is_paused => {
                ("nothing is claimed while the queue is paused".to_owned(), self.command("queue resume"))
            }
            None => ("no worker is alive to claim them".to_owned(), "feedmill worker".to_owned()),
        };
        // A reader that is no worker of ours may still be at it.
        let is_at_work = state.heartbeat_at.is_none() && idle_ms < millis(self.options.lock_duration);
        let status = if is_at_work { Status::Warning } else { Status::Error };
        let verdict = format!("{past} holding {held}; {next}");
        self.findings.push(Finding {
            status,
            ..Finding::error(
                FindingKind::DeadConsumer,
                state.pending,
                format!("consumer {} {}{verdict}", state.name, if state.heartbeat_at.is_none() { "is " } else { "" }),
                fix,
            )
            .with_examples([&state.name])
        });
        (status, verdict)
    }

    /// When an entry that is idle for so long is claimed: by the first sweep after its lease is over.
    fn next_claim_ms(&self, idle_ms: u64) -> u64 {
        let lease_left_ms = millis(self.options.lock_duration).saturating_sub(idle_ms);
        let first = self.observed.sweep_left_ms.unwrap_or(0);
        next_sweep_ms(lease_left_ms, first, millis(self.options.stalled_interval))
    }

    fn oldest_pending(&mut self) -> Vec<PendingEntry> {
        let lock_ms = millis(self.options.lock_duration);
        // Two sweeps may have missed it, by a moment and because the clock of Redis was set.
        let overdue_ms = lock_ms + 2 * millis(self.options.stalled_interval);
        let pending = std::mem::take(&mut self.observed.oldest_pending);
        let is_overdue = |entry: &&RawPending| entry.idle_ms > overdue_ms;
        let overdue: Vec<&RawPending> = pending.iter().filter(is_overdue).collect();
        if let Some(longest) = overdue.iter().map(|entry| entry.idle_ms).max() {
            let n = overdue.len() as u64;
            let (why, fix) = if self.observed.counts.is_paused {
                ("the queue is paused, and nothing is claimed meanwhile", self.command("queue resume"))
            } else if self.nobody_lives() {
                ("no worker is alive", "feedmill worker".to_owned())
            } else {
                ("no worker sweeps: restart one", "feedmill worker".to_owned())
            };
            let finding = Finding::error(
                FindingKind::OverdueClaim,
                n,
                format!(
                    "of the oldest pending entries {n} {} idle for up to {}, beyond lease and sweep: {why}",
                    is(n),
                    span(longest)
                ),
                fix,
            );
            self.findings.push(finding.with_examples(overdue.iter().map(|entry| &entry.entry)));
        }
        let line = |entry: &RawPending| {
            let lease_left_ms = lock_ms.saturating_sub(entry.idle_ms);
            let lease = if lease_left_ms > 0 {
                format!("lease: {} left", span(lease_left_ms))
            } else {
                format!("lease over for {}", span(entry.idle_ms - lock_ms))
            };
            let status = if entry.idle_ms > overdue_ms { Status::Error } else { Status::Ok };
            PendingEntry {
                stream: lane_name(entry.lane),
                entry: entry.entry.clone(),
                job: entry.job.clone(),
                consumer: entry.consumer.clone(),
                idle_ms: entry.idle_ms,
                deliveries: entry.deliveries,
                lease_left_ms,
                status,
                verdict: lease,
            }
        };
        pending.iter().map(line).collect()
    }

    // ── what waits ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn backlog(&mut self) {
        let Observed { counts, now_ms, delayed, schedulers, .. } = &self.observed;
        let now_ms = *now_ms;
        let waiting = (counts.waiting + counts.prioritized).saturating_sub(self.orphans);
        let mut found = Vec::new();
        if waiting > 0 && counts.is_paused {
            found.push(Finding::warning(
                FindingKind::Paused,
                waiting,
                format!("the queue is paused, and {} {}", counted(waiting, "job"), waits(waiting)),
                self.command("queue resume"),
            ));
        } else if waiting > 0 && self.nobody_lives() {
            let oldest =
                counts.oldest_waiting.map_or_else(String::new, |age| format!(", the oldest for {}", span(millis(age))));
            found.push(Finding::error(
                FindingKind::NoConsumer,
                waiting,
                format!("{} {}{oldest}, and no worker of the queue is alive", counted(waiting, "job"), waits(waiting)),
                "feedmill worker",
            ));
        }
        if let Some(late) = overdue(delayed, now_ms, BACKOFF_OVERDUE_MS) {
            let due = delayed.n;
            let fix = if self.nobody_lives() {
                format!("feedmill worker; at once: {}", self.fix_command())
            } else {
                self.fix_command()
            };
            let finding = Finding::error(
                FindingKind::OverdueBackoff,
                due,
                format!(
                    "{} in backoff {} due, the first for {}, and nobody promotes {}",
                    counted(due, "job"),
                    is(due),
                    span(late),
                    if due == 1 { "it" } else { "them" }
                ),
                fix,
            );
            found.push(finding.with_examples(&delayed.examples));
        }
        if let Some(late) = overdue(schedulers, now_ms, SCHEDULER_OVERDUE_MS) {
            let due = schedulers.n;
            let finding = Finding::error(
                FindingKind::OverdueScheduler,
                due,
                format!(
                    "the slot of {} has come, the first {} ago, and nobody fires: no schedule loop runs, or it fails",
                    counted(due, "scheduler"),
                    span(late)
                ),
                "feedmill schedule",
            );
            found.push(finding.with_examples(&schedulers.examples));
        }
        self.findings.extend(found);
    }

    fn parked(&mut self) -> (Vec<ParkedGroup>, Vec<Vec<u8>>) {
        let (mut lines, mut forgotten) = (Vec::new(), Vec::new());
        for group in &self.observed.parked.groups {
            let name = String::from_utf8_lossy(&group.group).into_owned();
            let held_until = self.observed.held.get(&group.group);
            let held_ms = held_until.map(|until| until.saturating_sub(self.observed.now_ms));
            let is_forgotten = group.members == 0 && group.parked > 0 && held_ms.is_none();
            let verdict = match held_ms {
                Some(ms) => format!("held up for {}", span(ms)),
                None if is_forgotten => "nothing of it is where it will be read: nothing brings them out".to_owned(),
                None => format!("window full: {} in the stream or at work", counted(group.members, "job")),
            };
            if is_forgotten {
                let finding = Finding::error(
                    FindingKind::ForgottenGroup,
                    group.parked,
                    format!(
                        "{} of group {name} {} parked, none is where it will be read, and nothing brings them out",
                        counted(group.parked, "job"),
                        is(group.parked)
                    ),
                    self.fix_command(),
                );
                self.findings.push(finding.with_examples([&name]));
                forgotten.push(group.group.clone());
            }
            let status = if is_forgotten { Status::Error } else { Status::Ok };
            let (members, parked) = (group.members, group.parked);
            lines.push(ParkedGroup { group: name, members, parked, held_ms, status, verdict });
        }
        (lines, forgotten)
    }

    // ── what the walks found ────────────────────────────────────────────────────────────────────────────────────────────

    fn walks(&mut self, delivered: &Delivered, guards: &Guards, miscounted: &Miscounted) {
        let n = delivered.orphans.len() as u64;
        if n > 0 {
            let finding = Finding::error(
                FindingKind::OrphanEntry,
                n,
                format!(
                    "{} {} delivered once and {} pending for nobody: nobody will ever read {} again",
                    counted(n, "entry"),
                    if n == 1 { "was" } else { "were" },
                    is(n),
                    if n == 1 { "it" } else { "them" }
                ),
                self.fix_command(),
            );
            self.findings.push(finding.with_examples(delivered.orphans.iter().map(|(_, entry)| entry)));
        }
        let n = delivered.lost.len() as u64;
        if n > 0 {
            let finding = Finding::warning(
                FindingKind::PayloadLost,
                n,
                format!(
                    "{} {} no guard any more (evicted, or deleted by hand): whoever reads it next makes a dead letter of \
                     it",
                    counted(n, "active job"),
                    if n == 1 { "has" } else { "have" }
                ),
                "feedmill doctor",
            );
            self.findings.push(finding.with_examples(&delivered.lost));
        }
        let n = guards.strays.len() as u64;
        if n > 0 {
            let finding = Finding::error(
                FindingKind::GuardWithoutJob,
                n,
                format!(
                    "{} without a job: the head of each names a place where it does not stand, so nobody will work on \
                     it",
                    counted(n, "guard")
                ),
                self.fix_command(),
            );
            self.findings.push(finding.with_examples(&guards.strays));
        }
        let n = guards.unreadable.len() as u64;
        if n > 0 {
            let first = self.queue.keys().job(&guards.unreadable[0]);
            let finding = Finding::error(
                FindingKind::UnreadableGuard,
                n,
                format!("the keys of {} hold no head: another program wrote them", counted(n, "job")),
                format!("redis-cli DEL '{}'", String::from_utf8_lossy(&first)),
            );
            self.findings.push(finding.with_examples(&guards.unreadable));
        }
        self.miscounted_groups(miscounted);
    }

    fn miscounted_groups(&mut self, miscounted: &Miscounted) {
        let n = miscounted.groups.len() as u64;
        if n > 0 {
            let finding = Finding::error(
                FindingKind::MiscountedGroup,
                n,
                format!(
                    "{} {} counted wrong: the window lets through more or fewer of {} jobs than it should",
                    counted(n, "group"),
                    is(n),
                    if n == 1 { "its" } else { "their" }
                ),
                self.fix_command(),
            );
            let names = miscounted.groups.iter().map(|(group, _)| String::from_utf8_lossy(group).into_owned());
            self.findings.push(finding.with_examples(names));
        }
    }

    fn dead_letters(&mut self) -> Vec<DeadReason> {
        let mut by_reason: HashMap<String, u64> = HashMap::new();
        for reason in &self.observed.reasons {
            *by_reason.entry(shortened(reason)).or_default() += 1;
        }
        let mut reasons: Vec<DeadReason> =
            by_reason.into_iter().map(|(reason, letters)| DeadReason { reason, letters }).collect();
        reasons.sort_by(|a, b| b.letters.cmp(&a.letters).then_with(|| a.reason.cmp(&b.reason)));
        reasons.truncate(REASONS_MAX);
        let failed = self.observed.counts.failed;
        if failed > 0 {
            let most = reasons.first().map_or_else(String::new, |most| format!("; most often: {}", most.reason));
            self.findings.push(Finding::warning(
                FindingKind::DeadLetters,
                failed,
                format!("{} {} given up{most}", counted(failed, "job"), if failed == 1 { "was" } else { "were" }),
                self.command("queue list --state failed --desc"),
            ));
        }
        reasons
    }

    // ── structures ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn structures(&self) -> Vec<Structure> {
        let Observed { counts, delayed, schedulers, now_ms, .. } = &self.observed;
        let found = |kinds: &[FindingKind]| {
            let found = self.findings.iter().filter(|finding| kinds.contains(&finding.kind));
            found.map(|finding| finding.status).max().unwrap_or(Status::Ok)
        };
        let in_stream = counts.waiting.saturating_sub(counts.parked + self.orphans);
        let oldest = match counts.oldest_waiting {
            Some(age) if in_stream > 0 => format!(", the oldest for {}", span(millis(age))),
            _ => String::new(),
        };
        let active =
            self.observed.groups.iter().flat_map(|(lane, groups)| groups.iter().map(move |group| (lane, group)));
        let active_in = |wanted: Place| {
            let of_lane = active.clone().filter(|(lane, group)| **lane == wanted && group.name == GROUP);
            of_lane.map(|(_, group)| group.pending).sum::<u64>()
        };
        let active_plain = active_in(Place::Stream);
        let verdicts = [
            (
                "stream",
                "stream",
                found(&[
                    FindingKind::GroupLost,
                    FindingKind::SecondGroup,
                    FindingKind::OrphanEntry,
                    FindingKind::NoConsumer,
                    FindingKind::Paused,
                ]),
                format!(
                    "{in_stream} {}{oldest}; {active_plain} {} active{}{}",
                    waits(in_stream),
                    is(active_plain),
                    if self.orphans > 0 { format!("; {}", counted(self.orphans, "orphan")) } else { String::new() },
                    if counts.is_paused { "; paused" } else { "" }
                ),
            ),
            (
                "prioritized",
                "zset",
                Status::Ok,
                format!("{} with a priority {}", counts.prioritized, waits(counts.prioritized)),
            ),
            (
                "prioritized:active",
                "stream",
                Status::Ok,
                format!("{} of those {} active", active_in(Place::Prioritized), is(active_in(Place::Prioritized))),
            ),
            (
                "parked",
                "zset",
                found(&[FindingKind::ForgottenGroup]),
                format!("{} of these groups {} parked", counted(counts.parked, "job"), is(counts.parked)),
            ),
            ("delayed", "zset", found(&[FindingKind::OverdueBackoff]), due_verdict(delayed, *now_ms)),
            (
                "dead",
                "stream",
                found(&[FindingKind::DeadLetters]),
                self.observed.lengths["dead"]
                    .last_entry
                    .as_deref()
                    .map_or_else(String::new, |last| format!("given up, the last {} ago", span(self.age_ms(last)))),
            ),
            ("completed", "zset", Status::Ok, "done, and kept".to_owned()),
            ("schedulers", "zset", found(&[FindingKind::OverdueScheduler]), due_verdict(schedulers, *now_ms)),
            (
                "events",
                "stream",
                Status::Ok,
                self.observed.lengths["events"]
                    .last_entry
                    .as_deref()
                    .map_or_else(String::new, |last| format!("the last {} ago", span(self.age_ms(last)))),
            ),
        ];
        let line = |(name, r#type, status, verdict): (&'static str, &'static str, Status, String)| {
            let Length { key, n, memory_bytes, first_entry, last_entry } = &self.observed.lengths[name];
            Structure {
                name,
                key: key.clone(),
                r#type,
                length: *n,
                memory_bytes: *memory_bytes,
                first_entry: first_entry.clone(),
                last_entry: last_entry.clone(),
                status,
                verdict: if *n == 0 && name != "stream" { "empty".to_owned() } else { verdict },
            }
        };
        verdicts.into_iter().map(line).collect()
    }

    fn age_ms(&self, entry: &str) -> u64 {
        entry.parse::<EntryId>().map_or(0, |entry| self.observed.now_ms.saturating_sub(entry.ms))
    }
}

/// Time until the first sweep that is no earlier than `lease_left_ms` from now: the next one is `first_ms` from now, and one
/// follows in each interval.
fn next_sweep_ms(lease_left_ms: u64, first_ms: u64, interval_ms: u64) -> u64 {
    if lease_left_ms <= first_ms {
        return first_ms;
    }
    let interval_ms = interval_ms.max(1);
    first_ms + (lease_left_ms - first_ms).div_ceil(interval_ms) * interval_ms
}

/// How long the first one has been due, if that is longer than it should take.
fn overdue(due: &Due, now_ms: u64, patience_ms: u64) -> Option<u64> {
    due.first_ms.map(|first| now_ms.saturating_sub(first)).filter(|late| *late > patience_ms)
}

fn due_verdict(due: &Due, now_ms: u64) -> String {
    match due.first_ms {
        None => String::new(),
        Some(first) if first > now_ms => format!("the next is due in {}", span(first - now_ms)),
        Some(first) => format!("{} {} due, the first for {}", due.n, is(due.n), span(now_ms - first)),
    }
}

fn waits(n: u64) -> &'static str {
    if n == 1 { "waits" } else { "wait" }
}

/// The front of a reason: what follows tells apart what is the same.
fn shortened(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    let cut = line.chars().nth(REASON_CHARS).map(|_| '…');
    line.chars().take(REASON_CHARS).chain(cut).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_claimed_by_the_first_sweep_after_its_lease() {
        assert_eq!(next_sweep_ms(0, 12, 30), 12, "its lease is over: the next sweep takes it");
        assert_eq!(next_sweep_ms(12, 12, 30), 12);
        assert_eq!(next_sweep_ms(13, 12, 30), 42, "the next sweep comes a moment too early");
        assert_eq!(next_sweep_ms(100, 12, 30), 102);
        assert_eq!(next_sweep_ms(5, 0, 0), 5, "an interval of nothing is no division by zero");
    }
}
