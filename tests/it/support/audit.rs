//! The audit: whether every job of a queue stands in exactly one place, and its counts agree with it.
//!
//! Reads everything there is under the queue's prefix (with `SCAN`, so for tests only), one key after the other: it is
//! for a queue that rests. A running one shows findings that are none.

use std::collections::{HashMap, HashSet};

use feedmill::{
    job::{EntryId, Head, ImportId, JobId, Place},
    queue::{GROUP, Keys, Queue},
};
use redis::{
    AsyncCommands, FromRedisValue,
    aio::MultiplexedConnection,
    streams::{StreamInfoGroupsReply, StreamPendingCountReply, StreamRangeReply},
};

use super::jobs::connection;

/// How many keys one step of a scan looks at.
const SCAN_COUNT: usize = 1000;

/// Fails the test when the audit finds something.
pub(crate) async fn assert_sound(queue: &Queue) {
    if let Err(findings) = audit(queue).await {
        panic!("the audit of {} finds:\n  {}", queue.name(), findings.join("\n  "));
    }
}

/// Looks for jobs that stand nowhere or twice, entries that nobody will read, and counts that are off.
pub(crate) async fn audit(queue: &Queue) -> Result<(), Vec<String>> {
    let mut audit = Audit { picture: Picture::of(queue).await, findings: Vec::new() };
    audit.guards();
    audit.entries();
    audit.delayed();
    audit.dead_letters();
    audit.failures();
    audit.imports();
    if audit.findings.is_empty() { Ok(()) } else { Err(audit.findings) }
}

/// An entry of the work stream or of the dead letters, with the field `id` if it has one.
struct Named {
    entry: EntryId,
    id: Option<Vec<u8>>,
}

/// Everything that is kept of the jobs of a queue.
struct Picture {
    guards: HashMap<Vec<u8>, Result<Head, String>>,
    stream: Vec<Named>,
    pending: HashSet<EntryId>,
    last_delivered: Option<EntryId>,
    prioritized: HashSet<Vec<u8>>,
    prioritized_active: Vec<Named>,
    prioritized_pending: HashSet<EntryId>,
    /// Group by parked job.
    parked: HashMap<Vec<u8>, Vec<u8>>,
    /// The index of groups that have parked jobs.
    parked_groups: HashSet<Vec<u8>>,
    groups: HashMap<Vec<u8>, i64>,
    held_groups: HashSet<Vec<u8>>,
    n_parked: i64,
    completed: HashSet<Vec<u8>>,
    delayed: HashSet<Vec<u8>>,
    dead: Vec<Named>,
    failures: HashSet<Vec<u8>>,
    imports: HashMap<String, HashMap<String, String>>,
    open_imports: HashSet<String>,
    closing_imports: HashSet<String>,
}

impl Picture {
    async fn of(queue: &Queue) -> Self {
        let keys = queue.keys();
        let mut redis = connection(queue).await;
        let mut guards = HashMap::new();
        for key in scan(&mut redis, keys.job_prefix()).await {
            let id = key[keys.job_prefix().len()..].to_vec();
            let value: Result<Vec<u8>, _> = redis.get(&key).await;
            let head = match value {
                Ok(value) => Head::decode(&value).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            guards.insert(id, head);
        }
        let (imports, [open_imports, closing_imports]) = imports(&mut redis, keys).await;
        let gate: Option<String> = redis.hget(keys.meta(), "gate").await.unwrap();
        let n_parked: Option<i64> = redis.hget(keys.meta(), "parked").await.unwrap();
        let groups: Result<StreamInfoGroupsReply, _> = redis.xinfo_groups(keys.stream()).await;
        let group = groups.ok().and_then(|groups| groups.groups.into_iter().find(|group| group.name == GROUP));
        let pending = if group.is_some() { pending_of(&mut redis, keys.stream()).await } else { HashSet::new() };
        let parked_prefix = keys.parked(b"");
        let mut parked = HashMap::new();
        for key in scan(&mut redis, &String::from_utf8(parked_prefix.clone()).unwrap()).await {
            let ids: Vec<Vec<u8>> = redis.zrange(&key, 0, -1).await.unwrap();
            parked.extend(ids.into_iter().map(|id| (id, key[parked_prefix.len()..].to_vec())));
        }
        Self {
            guards,
            stream: named(&mut redis, keys.stream()).await,
            pending,
            last_delivered: group.map(|group| entry_id(&gate.unwrap_or(group.last_delivered_id))),
            prioritized: all(redis.zrange(keys.prioritized(), 0, -1).await),
            prioritized_active: named(&mut redis, keys.prioritized_active()).await,
            prioritized_pending: pending_of(&mut redis, keys.prioritized_active()).await,
            parked,
            parked_groups: all(redis.zrange(keys.parked_groups(), 0, -1).await),
            groups: redis.hgetall(keys.groups()).await.unwrap(),
            held_groups: all(redis.zrange(keys.held_groups(), 0, -1).await),
            n_parked: n_parked.unwrap_or(0),
            completed: all(redis.zrange(keys.completed(), 0, -1).await),
            delayed: all(redis.zrange(keys.delayed(), 0, -1).await),
            dead: named(&mut redis, keys.dead()).await,
            failures: all(redis.hkeys(keys.failures()).await),
            imports,
            open_imports,
            closing_imports,
        }
    }
}

/// The hashes of the imports in Redis, and the members of the zsets of open and of closing ones. A recorder that lets go of an
/// import meanwhile takes it out of both at once, so what the zsets hold before and after belongs to the hashes in between.
async fn imports(
    redis: &mut MultiplexedConnection,
    keys: &Keys,
) -> (HashMap<String, HashMap<String, String>>, [HashSet<String>; 2]) {
    let mut before = None;
    loop {
        let mut hashes = HashMap::new();
        for key in scan(redis, keys.import_prefix()).await {
            let id = String::from_utf8(key[keys.import_prefix().len()..].to_vec()).unwrap();
            let fields: HashMap<String, Vec<u8>> = redis.hgetall(&key).await.unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            if !fields.is_empty() {
                hashes.insert(id, fields.into_iter().map(|(name, value)| (name, text(value))).collect());
            }
        }
        let zsets =
            [all(redis.zrange(keys.imports(), 0, -1).await), all(redis.zrange(keys.closing_imports(), 0, -1).await)];
        if before.as_ref() == Some(&zsets) {
            return (hashes, zsets);
        }
        before = Some(zsets);
    }
}

struct Audit {
    picture: Picture,
    findings: Vec<String>,
}

impl Audit {
    fn find(&mut self, finding: String) {
        self.findings.push(finding);
    }

    /// Every guard stands exactly where its head says.
    fn guards(&mut self) {
        let mut findings = Vec::new();
        let stands_in = |entries: &[Named], head: &Head, id: &[u8]| {
            entries.iter().any(|named| Some(named.entry) == head.entry && named.id.as_deref() == Some(id))
        };
        for (id, head) in &self.picture.guards {
            let job = shown(id);
            match head {
                Err(error) => findings.push(format!("guard of job {job} cannot be read: {error}")),
                Ok(head) => {
                    let (stands, place) = match head.place {
                        Place::Stream => (stands_in(&self.picture.stream, head, id), "in the stream"),
                        Place::Prioritized if head.entry.is_some() => {
                            (stands_in(&self.picture.prioritized_active, head, id), "in the lane of prioritized jobs")
                        }
                        Place::Prioritized => (self.picture.prioritized.contains(id), "among the prioritized"),
                        Place::Parked => (self.picture.parked.get(id) == Some(&head.group), "parked in its group"),
                        Place::Completed => (self.picture.completed.contains(id), "among the completed"),
                        Place::Delayed => (self.picture.delayed.contains(id), "in backoff"),
                        Place::Dead => (stands_in(&self.picture.dead, head, id), "among the dead letters"),
                    };
                    if !stands {
                        findings.push(format!("guard without a job: {job} is not {place} ({:?})", head.entry));
                    }
                }
            }
        }
        self.findings.extend(findings);
    }

    /// The head of a job, if its guard is there and readable.
    fn head(&self, id: &[u8]) -> Option<&Head> {
        self.picture.guards.get(id)?.as_ref().ok()
    }

    /// Every entry of the stream is named by its guard, and will be read or is pending.
    fn entries(&mut self) {
        self.places();
        self.groups();
        let mut findings = Vec::new();
        let Some(last) = self.picture.last_delivered else {
            return self.find("the stream has no group".to_owned());
        };
        for Named { entry, id } in &self.picture.stream {
            if *entry <= last && !self.picture.pending.contains(entry) {
                findings.push(format!("orphan entry {entry}: delivered before, not pending"));
            }
            if let Some(id) = id {
                match self.head(id) {
                    Some(head) if head.place == Place::Stream && head.entry == Some(*entry) => {}
                    Some(head) => findings.push(format!(
                        "entry {entry} of job {}, which stands elsewhere: {:?} {:?}",
                        shown(id),
                        head.place,
                        head.entry
                    )),
                    None => findings.push(format!("entry {entry} of job {}, which has no guard", shown(id))),
                }
            }
        }
        let standing: HashSet<EntryId> = self.picture.stream.iter().map(|named| named.entry).collect();
        for entry in self.picture.pending.difference(&standing) {
            findings.push(format!("entry {entry} is pending and not in the stream"));
        }
        self.findings.extend(findings);
    }

    /// Every member of a zset, and every entry of the prioritized lane, is a job whose head says so.
    fn places(&mut self) {
        let picture = &self.picture;
        let mut findings = Vec::new();
        let zsets = [
            (&picture.prioritized, Place::Prioritized, "prioritized"),
            (&picture.completed, Place::Completed, "completed"),
            (&picture.parked.keys().cloned().collect(), Place::Parked, "parked"),
        ];
        for (ids, place, name) in zsets {
            for id in ids {
                if self.head(id).is_none_or(|head| head.place != place || head.entry.is_some()) {
                    findings.push(format!("job {} is {name}, and its head disagrees", shown(id)));
                }
            }
        }
        for Named { entry, id } in &picture.prioritized_active {
            if !picture.prioritized_pending.contains(entry) {
                findings.push(format!("entry {entry} of the prioritized lane is not pending"));
            }
            let names_it = |head: &Head| head.place == Place::Prioritized && head.entry == Some(*entry);
            if !id.as_ref().is_some_and(|id| self.head(id).is_some_and(names_it)) {
                findings.push(format!("entry {entry} of the prioritized lane is no job's"));
            }
        }
        self.findings.extend(findings);
    }

    /// Each group has the jobs that are counted for it, and nothing is parked of a group without any.
    fn groups(&mut self) {
        let picture = &self.picture;
        let mut members: HashMap<Vec<u8>, i64> = HashMap::new();
        for head in picture.guards.values().flatten() {
            if matches!(head.place, Place::Stream | Place::Prioritized) && !head.group.is_empty() {
                *members.entry(head.group.clone()).or_default() += 1;
            }
        }
        let mut findings = Vec::new();
        if members != picture.groups {
            findings.push(format!("groups are counted as {:?}, and have {members:?}", picture.groups));
        }
        if picture.parked.len() as i64 != picture.n_parked {
            findings.push(format!("{} jobs are parked, counted are {}", picture.parked.len(), picture.n_parked));
        }
        let with_parked: HashSet<Vec<u8>> = picture.parked.values().cloned().collect();
        if with_parked != picture.parked_groups {
            findings.push(format!("jobs of {with_parked:?} are parked, listed are {:?}", picture.parked_groups));
        }
        let is_forgotten = |group: &&Vec<u8>| !members.contains_key(*group) && !picture.held_groups.contains(*group);
        for group in picture.parked.values().filter(is_forgotten) {
            findings.push(format!("jobs of group {} are parked, and nothing will bring them out", shown(group)));
        }
        self.findings.extend(findings);
    }

    /// Every member of the backoff zset is a job that waits there.
    fn delayed(&mut self) {
        let not_delayed = |id: &&Vec<u8>| self.head(id).is_none_or(|head| head.place != Place::Delayed);
        let findings: Vec<String> = self.picture.delayed.iter().filter(not_delayed).map(|id| shown(id)).collect();
        self.findings.extend(findings.into_iter().map(|id| format!("job {id} is in backoff, and its head disagrees")));
    }

    /// A dead job is named by one letter, and names it.
    fn dead_letters(&mut self) {
        let mut findings = Vec::new();
        for Named { entry, id } in &self.picture.dead {
            if let Some(head) = id.as_ref().and_then(|id| self.head(id))
                && head.place == Place::Dead
                && head.entry != Some(*entry)
            {
                findings.push(format!("dead letter {entry}: its job is dead by another letter, {:?}", head.entry));
            }
        }
        self.findings.extend(findings);
    }

    /// Errors are kept only of jobs that failed.
    fn failures(&mut self) {
        let has_failed = |head: &Head| head.attempts > 0 || head.place == Place::Dead;
        let stale = |id: &&Vec<u8>| !self.head(id).is_some_and(has_failed);
        let findings: Vec<String> = self.picture.failures.iter().filter(stale).map(|id| shown(id)).collect();
        self.findings
            .extend(findings.into_iter().map(|id| format!("the last error of job {id}, which has not failed")));
    }

    /// `open` of each import is the number of its jobs that live, and its counts add up.
    fn imports(&mut self) {
        let mut live: HashMap<String, i64> = HashMap::new();
        for head in
            self.picture.guards.values().flatten().filter(|head| !matches!(head.place, Place::Dead | Place::Completed))
        {
            if let Some(import) = head.import {
                *live.entry(import.to_string()).or_default() += 1;
            }
        }
        let mut findings = Vec::new();
        for import in live.keys().filter(|import| !self.picture.imports.contains_key(*import)) {
            findings.push(format!("live jobs count for import {import}, which is gone"));
        }
        for (import, fields) in &self.picture.imports {
            findings.extend(
                import_findings(fields, live.get(import).copied().unwrap_or(0))
                    .into_iter()
                    .map(|finding| format!("import {import}: {finding}")),
            );
            if import.parse::<ImportId>().is_err() {
                findings.push(format!("import {import} has a name that is no import id"));
            }
            if !self.picture.open_imports.contains(import) {
                findings.push(format!("import {import} is not in the zset of imports"));
            }
            if fields.contains_key("closed") != self.picture.closing_imports.contains(import) {
                findings.push(format!("import {import}: the zset of closing imports disagrees with its hash"));
            }
        }
        for import in self.picture.open_imports.union(&self.picture.closing_imports) {
            if !self.picture.imports.contains_key(import) {
                findings.push(format!("import {import} is in a zset of imports and has no hash"));
            }
        }
        self.findings.extend(findings);
    }
}

/// What is off in the counts of one import with so many live jobs.
fn import_findings(fields: &HashMap<String, String>, live: i64) -> Vec<String> {
    let count = |name: &str| fields.get(name).map_or(0, |count| count.parse::<i64>().expect("counts are numbers"));
    let sum = |names: &[&str]| names.iter().map(|name| count(name)).sum::<i64>();
    let mut findings = Vec::new();
    if count("open") != live {
        findings.push(format!("open is {}, and {live} of its jobs live", count("open")));
    }
    let (taken_in, left) =
        (sum(&["new", "changed"]), sum(&["inserted", "updated", "stale", "superseded", "removed", "failed"]));
    if taken_in != left + count("open") {
        findings.push(format!("{taken_in} jobs were taken in, {left} have left, open are {}", count("open")));
    }
    let (sealed, closed) = (fields.contains_key("sealed"), fields.contains_key("closed"));
    if sealed && count("items") != sum(&["new", "changed", "unchanged", "duplicate"]) {
        findings.push(format!("its items do not add up: {fields:?}"));
    }
    if closed != (sealed && count("open") == 0) {
        findings.push(format!("closed: {closed}, sealed: {sealed}, open: {}", count("open")));
    }
    findings
}

/// All keys that begin like this.
pub(crate) async fn scan(redis: &mut MultiplexedConnection, prefix: &str) -> Vec<Vec<u8>> {
    let mut found = HashSet::new();
    let mut cursor = 0_u64;
    loop {
        let step = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}*"))
            .arg("COUNT")
            .arg(SCAN_COUNT)
            .to_owned();
        let (next, keys): (u64, Vec<Vec<u8>>) = step.query_async(redis).await.unwrap();
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            return found.into_iter().collect();
        }
    }
}

async fn pending_of(redis: &mut MultiplexedConnection, stream: &str) -> HashSet<EntryId> {
    let all: StreamPendingCountReply = redis.xpending_count(stream, GROUP, "-", "+", usize::MAX >> 1).await.unwrap();
    all.ids.iter().map(|entry| entry_id(&entry.id)).collect()
}

async fn named(redis: &mut MultiplexedConnection, stream: &str) -> Vec<Named> {
    let all: StreamRangeReply = redis.xrange_all(stream).await.unwrap();
    all.ids.iter().map(|entry| Named { entry: entry_id(&entry.id), id: entry.get("id") }).collect()
}

fn all<T: FromRedisValue + std::hash::Hash + Eq>(reply: redis::RedisResult<Vec<T>>) -> HashSet<T> {
    reply.unwrap().into_iter().collect()
}

fn entry_id(text: &str) -> EntryId {
    text.parse().expect("an entry id of Redis")
}

/// An id as people read it; a long one cut.
fn shown(id: &[u8]) -> String {
    JobId::new(id).map_or_else(|error| error.to_string(), |id| format!("{id:.60}"))
}
