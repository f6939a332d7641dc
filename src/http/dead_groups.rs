//! Dead letters by reason: a scan that goes on in the background, one a queue, and what it has so far.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::sync::watch;

use super::live::SECOND;
use super::{ApiError, App};
use crate::job::JobId;
use crate::queue::Queue;

/// Dead letters of one read while they are grouped.
const LETTERS_PER_READ: usize = 256;
/// How often a scan shows what it has so far.
const LETTERS_PER_SHOWING: usize = 16 * LETTERS_PER_READ;
/// Different reasons that are told apart.
const GROUPS_MAX: usize = 1000;
/// How long a page waits for a scan that has just begun.
const SCAN_PATIENCE: Duration = Duration::from_millis(80);
/// How old groups may be, once something is different.
const GROUPS_AGE: Duration = Duration::from_secs(5);

/// Dead letters whose reasons say the same.
#[derive(Clone, Debug)]
pub(super) struct DeadGroup {
    /// What they say, without what is different in each.
    pub(super) reason: String,
    pub(super) letters: u64,
    pub(super) oldest: SystemTime,
    pub(super) newest: SystemTime,
    /// The newest of them.
    pub(super) example: Option<JobId>,
}

/// The dead letters of a queue by reason.
#[derive(Clone, Debug)]
pub(super) struct DeadGroups {
    /// The largest first.
    pub(super) groups: Vec<DeadGroup>,
    /// Letters that were looked at.
    pub(super) looked_at: u64,
    /// Whether that were all.
    pub(super) is_through: bool,
    pub(super) at: Timestamp,
    /// Length and newest letter when it was begun: while they are the same, so are the groups.
    mark: (u64, String),
}

/// The scans of the queues, by name.
#[derive(Debug, Default)]
pub(super) struct DeadScans(Mutex<BTreeMap<String, Arc<DeadScan>>>);

#[derive(Debug)]
struct DeadScan {
    latest: watch::Sender<Option<Arc<DeadGroups>>>,
    /// Held by the one that is under way.
    running: tokio::sync::Mutex<()>,
}

/// The dead letters by reason, as of a few seconds ago; of very many, as far as they were looked at. A scan goes on in the
/// background, in bounded steps, one a queue.
pub(super) async fn dead_groups(app: &Arc<App>, queue: &Queue) -> Result<Arc<DeadGroups>, ApiError> {
    let scan = {
        let mut scans = app.dead_scans.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(DeadScan { latest: watch::Sender::new(None), running: tokio::sync::Mutex::default() });
        scans.entry(queue.name().to_owned()).or_insert_with(new).clone()
    };
    let mark = app
        .shared
        .get(format!("dead {}", queue.name()), SECOND, async {
            let last = queue.last_dead_letter().await?.map(|entry| entry.to_string()).unwrap_or_default();
            Ok((queue.counts().await?.failed, last))
        })
        .await?;
    let latest = scan.latest.borrow().clone();
    let is_current = latest.as_ref().is_some_and(|latest| {
        let is_young = latest.at.duration_until(Timestamp::now()).unsigned_abs() < GROUPS_AGE;
        latest.mark == *mark || (is_young && latest.is_through && latest.mark.0 > 100 * LETTERS_PER_READ as u64)
    });
    if !is_current && scan.running.try_lock().is_ok() {
        let (scan, queue, mark) = (scan.clone(), queue.clone(), (*mark).clone());
        let stop = app.shutdown.clone();
        app.starts.spawn(async move {
            let Ok(_running) = scan.running.try_lock() else { return };
            if let Some(Err(error)) = stop.run_until_cancelled(scan_letters(&scan, &queue, mark)).await {
                tracing::debug!(%error, "dead letters cannot be read");
            }
        });
    }
    let mut waiting = scan.latest.subscribe();
    let shown = |groups: &Option<Arc<DeadGroups>>| {
        groups.as_ref().is_some_and(|groups| groups.mark == *mark && groups.is_through)
    };
    let waited = tokio::time::timeout(SCAN_PATIENCE, waiting.wait_for(shown)).await;
    if let Ok(Ok(groups)) = waited
        && let Some(groups) = groups.clone()
    {
        return Ok(groups);
    }
    let so_far = scan.latest.borrow().clone();
    Ok(so_far.unwrap_or_else(|| {
        Arc::new(DeadGroups {
            groups: Vec::new(),
            looked_at: 0,
            is_through: false,
            at: Timestamp::now(),
            mark: (*mark).clone(),
        })
    }))
}

async fn scan_letters(scan: &DeadScan, queue: &Queue, mark: (u64, String)) -> Result<(), ApiError> {
    let mut groups: BTreeMap<String, DeadGroup> = BTreeMap::new();
    let (mut after, mut looked_at, mut is_first) = (None, 0_u64, scan.latest.borrow().is_none());
    loop {
        let letters = queue.dead_letters(after, LETTERS_PER_READ).await?;
        let is_through = letters.len() < LETTERS_PER_READ;
        after = letters.last().map(|letter| letter.entry).or(after);
        looked_at += letters.len() as u64;
        for letter in letters {
            let mut reason = reason_group(&letter.reason);
            if groups.len() >= GROUPS_MAX && !groups.contains_key(&reason) {
                "others".clone_into(&mut reason);
            }
            let new = || DeadGroup {
                reason: reason.clone(),
                letters: 0,
                oldest: letter.at,
                newest: letter.at,
                example: None,
            };
            let group = groups.entry(reason.clone()).or_insert_with(new);
            group.letters += 1;
            group.oldest = group.oldest.min(letter.at);
            group.newest = group.newest.max(letter.at);
            group.example = letter.id.or_else(|| group.example.take());
        }
        let is_to_be_shown = is_first && looked_at.is_multiple_of(LETTERS_PER_SHOWING as u64);
        if is_through || is_to_be_shown {
            let mut groups: Vec<DeadGroup> = groups.values().cloned().collect();
            groups.sort_by_key(|group| std::cmp::Reverse(group.letters));
            let all = DeadGroups { groups, looked_at, is_through, at: Timestamp::now(), mark: mark.clone() };
            scan.latest.send_replace(Some(Arc::new(all)));
        }
        if is_through {
            return Ok(());
        }
        is_first &= scan.latest.borrow().as_ref().is_none_or(|latest| !latest.is_through);
        // Between two reads others have their turn.
        tokio::task::yield_now().await;
    }
}

/// Digits from which on a word is taken for a number of its own. Codes, such as MongoDB's `E11000`, have fewer.
const DIGITS_OF_ITS_OWN: usize = 6;

/// What a reason has in common with others of its kind: addresses, quoted texts and long numbers are left out.
pub(super) fn reason_group(reason: &str) -> String {
    const CHARS_MAX: usize = 160;
    let line = reason.lines().next().unwrap_or_default();
    let mut words: Vec<String> = Vec::new();
    let mut quote = None;
    for word in line.split_whitespace() {
        let opens = word.chars().next().filter(|c| ['"', '\'', '`', '“'].contains(c));
        if quote.is_none() && opens.is_some() {
            quote = opens.map(|c| if c == '“' { '”' } else { c });
            words.push("“…”".to_owned());
            if word.chars().count() == 1 {
                continue;
            }
        } else if quote.is_none() {
            let digits = word.bytes().filter(u8::is_ascii_digit).count();
            let is_hex = word.len() >= 8 && digits > 0 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_own = word.contains("://") || digits >= DIGITS_OF_ITS_OWN || is_hex;
            words.push(if is_own { "…".to_owned() } else { word.to_owned() });
        }
        let trimmed = word.trim_end_matches([',', ':', ';', '.', ')', ']']);
        if quote.is_some_and(|quote| trimmed.ends_with(quote) && (opens.is_none() || trimmed.chars().count() > 1)) {
            quote = None;
        }
    }
    let group = words.join(" ");
    if group.is_empty() { "(no reason)".to_owned() } else { group.chars().take(CHARS_MAX).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_what_they_are_about_are_one_group() {
        for (reason, group) in [
            ("HTTP 503 from https://a.example/1", "HTTP 503 from …"),
            ("HTTP 404 from https://a.example/2", "HTTP 404 from …"),
            ("no field \"a b\" in item", "no field “…” in item"),
            ("no field \"c\": in item", "no field “…” in item"),
            ("lost 1795492693614 and deadbeef01", "lost … and …"),
            ("panicked\nat line 7", "panicked"),
            ("E11000 duplicate key 1234567", "E11000 duplicate key …"),
            ("", "(no reason)"),
            ("\" open", "“…”"),
        ] {
            assert_eq!(reason_group(reason), group, "{reason:?}");
        }
        assert!(reason_group(&"ä ".repeat(500)).chars().count() <= 160);
    }
}
