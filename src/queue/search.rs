//! Searches jobs: looks through the lists of [`super::list`], a page a call, and returns what matches.
//!
//! There is no index: a search costs what it looks at, so it is done in bounded steps, and whoever asks decides how long to go
//! on. What [`super::list`] promises of jobs that stay and of jobs that move holds here too.

use super::list::{Cursor, ListState, Listed, Order, PAGE_MAX, Rows};
use super::{Queue, QueueError};

/// What is looked for: all that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state; `None`: in any.
    pub state: Option<ListState>,
    /// The id begins with these bytes. Ids of items begin with their source and `#`.
    pub id_prefix: Vec<u8>,
    /// In this group.
    pub group: Option<Vec<u8>>,
    /// The last error, or the reason of a dead letter, holds this text, be it in capitals or not.
    pub error: Option<String>,
}

/// What one step of a search found.
#[derive(Clone, Debug)]
pub struct Matches {
    /// The jobs that match, upwards, state by state.
    pub jobs: Vec<Listed>,
    /// How many jobs were looked at.
    pub looked: usize,
    /// Where the search goes on; `None` when it is through.
    pub next: Option<Cursor>,
}

impl Filter {
    /// Whether a job is looked for.
    pub fn matches(&self, job: &Listed) -> bool {
        let has_id = || job.id.as_ref().is_some_and(|id| id.as_bytes().starts_with(&self.id_prefix));
        let in_group = |group: &Vec<u8>| job.job.as_ref().is_some_and(|job| job.head.group == *group);
        let says = |text: &String| job.error().is_some_and(|error| error.to_lowercase().contains(&text.to_lowercase()));
        self.state.is_none_or(|state| job.state() == state)
            && (self.id_prefix.is_empty() || has_id())
            && self.group.as_ref().is_none_or(in_group)
            && self.error.as_ref().is_none_or(says)
    }

    /// The state that is looked through after this one.
    fn state_after(&self, state: ListState) -> Option<ListState> {
        let at = ListState::ALL.iter().position(|other| *other == state).expect("there are no other states");
        ListState::ALL.get(at + 1).copied().filter(|_| self.state.is_none())
    }
}

impl Queue {
    /// Looks at one page of jobs ([`PAGE_MAX`]), behind where the step before ended, and returns at most `limit` that match.
    ///
    /// # Errors
    /// [`QueueError::Cursor`] when the cursor is of a list of another state, or downwards.
    pub async fn search(&self, filter: &Filter, cursor: Option<&Cursor>, limit: usize) -> Result<Matches, QueueError> {
        let start = Cursor::start(filter.state.unwrap_or(ListState::ALL[0]), Order::Asc);
        let cursor = cursor.unwrap_or(&start);
        let state = cursor.state();
        cursor.check(filter.state.unwrap_or(state), Order::Asc)?;
        let Rows { rows, next } = self.rows(cursor, PAGE_MAX).await?;
        let next = next.or_else(|| filter.state_after(state).map(|state| Cursor::start(state, Order::Asc)));
        let mut matches = Matches { jobs: Vec::new(), looked: 0, next };
        for (job, behind) in rows {
            matches.looked += 1;
            if filter.matches(&job) {
                matches.jobs.push(job);
                if matches.jobs.len() >= limit.max(1) {
                    matches.next = Some(behind);
                    break;
                }
            }
        }
        Ok(matches)
    }
}
