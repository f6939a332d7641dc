//! Writes items as documents: many at a time, the newest version wins, and each gets a result of its own.
//!
//! ```text
//!  items ──▶ documents ──▶ insert command ─┬─ ok ──────▶ Inserted
//!    │        ≤ 100, ≤ 12 MiB              └─ refused ─▶ find the stored versions ─┬─ higher ─▶ Stale
//!    │                                                                             ├─ equal ──▶ Inserted · Updated
//!    └─ cannot be BSON     ┌────────────────────── lower, or not there ────────────┘
//!         ▶ Failed         ▼
//!                      updates ──▶ update command ─┬─ ok ─────────────▶ Inserted · Updated
//!                          ▲                       ├─ an error of one ▶ Failed
//!                          │                       └─ E11000 ─▶ find the stored versions ─▶ as above
//!                          └────────────────────── lower, or not there ───────┘
//! ```
//!
//! Most items are new, and an insert costs mongod a sixth of an update that inserts (items of 3 KB, 100 at once); an update
//! costs less than an insert that is refused. So a write begins with what would have been right for most items of the
//! command before it, and the updates decide about whatever was not inserted: a validator or an index of somebody else may
//! refuse to insert what it lets be updated.
//!
//! An E11000 of an update means one of three things: the stored version is the same or higher; another writer inserted a
//! lower one at the same moment (MongoDB does not try again by itself, because the filter is more than the unique key); or a
//! unique index that somebody else made refuses the document. Only the stored version tells them apart, because with
//! several indexes MongoDB names whichever it checks first. So it is read, and only what is older is written once more.
//! Taking E11000 for "stale" would lose the newest of two concurrent versions now and then; running every such
//! statement again before looking would cost a redelivered batch a round more.
//!
//! Called by the worker with the buffers of one or several sources.
//!
//! *Crash:* any part of the statements may have landed. The jobs were not acknowledged, so they are delivered again;
//! what has landed is found with an equal version and counts as written.
//! *Not here:* what a result means for its job, and waiting out an outage: `worker/` does both.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use futures_util::TryStreamExt;
use mongodb::{
    bson::{DateTime, Document, RawDocumentBuf, doc},
    options::{ReadPreference, SelectionCriteria},
};

use super::{
    JOBS, Store, StoreError,
    encode::{EncodeError, insert_document, stored_version, upsert_statement},
    error::one_line,
    write_command::{Answer, STATEMENTS_MAX, StatementError, WriteCommand, number},
};
use crate::item::Item;

/// Bytes of statements in one command, which is itself one BSON document of at most 16 MiB.
const COMMAND_BYTES_MAX: usize = 12 << 20;
/// Bytes of one document. MongoDB's limit is 16 MiB; the rest is left to fields others have added to an adopted
/// document and to the command around it.
pub(super) const DOCUMENT_BYTES_MAX: usize = 15 << 20;
const WRITING: &str = "a write of items";
/// How often updates that met an E11000 are written. The second time suffices unless yet another writer comes in
/// between, or someone removes documents while we write.
const ROUNDS_MAX: usize = 3;

/// An item to be written.
#[derive(Clone, Copy, Debug)]
pub struct ItemWrite<'a> {
    /// Becomes the document with this item's `source` and `guid`.
    pub item: &'a Item,
    /// Digest of the content, if it came through a fetch.
    pub fingerprint: Option<[u8; 7]>,
    /// Version of the content in microseconds: when its fetch started, or its entry was added.
    pub version: u64,
    /// The import it is counted in, if it still belongs to one.
    pub import: Option<&'a str>,
}

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// There is a new document with this version.
    Inserted,
    /// The document that existed has this version now.
    Updated,
    /// The document has a higher version and was not touched.
    Stale,
    /// The document could not be written, through a fault of its own.
    Failed {
        /// Why, in one short line.
        reason: String,
        /// Whether the same write may succeed later. Not if the item itself must change first.
        retry: bool,
    },
}

fn failed(error: &StatementError) -> WriteResult {
    WriteResult::Failed { reason: error.reason(), retry: error.may_pass_later() }
}

/// Statements that go into one command, each with the position of its item in the caller's list.
#[derive(Default)]
struct Command {
    positions: Vec<usize>,
    statements: Vec<RawDocumentBuf>,
    bytes: usize,
}

impl Command {
    /// Whether one more statement would make it too large. A single one is never too large.
    fn is_full_for(&self, statement: &RawDocumentBuf) -> bool {
        let bytes = self.bytes + statement.as_bytes().len();
        self.statements.len() == STATEMENTS_MAX || (bytes > COMMAND_BYTES_MAX && !self.statements.is_empty())
    }

    fn push(&mut self, position: usize, statement: RawDocumentBuf) {
        self.bytes += statement.as_bytes().len();
        self.positions.push(position);
        self.statements.push(statement);
    }

    fn len(&self) -> usize {
        self.statements.len()
    }

    fn into_iter(self) -> impl Iterator<Item = (usize, RawDocumentBuf)> {
        self.positions.into_iter().zip(self.statements)
    }
}

/// What the database holds of one item.
struct Stored {
    version: i64,
    /// What the write of this version answered, or would have if its answer had arrived: inserted if it is also the
    /// first version, which shows in the two times being of one write.
    first_result: WriteResult,
}

impl Stored {
    /// What becomes of a write of `version`; `None` if what is stored is older.
    fn result(&self, version: i64) -> Option<WriteResult> {
        match self.version.cmp(&version) {
            std::cmp::Ordering::Greater => Some(WriteResult::Stale),
            std::cmp::Ordering::Equal => Some(self.first_result.clone()),
            std::cmp::Ordering::Less => None,
        }
    }
}

/// By source and guid.
type StoredOf = HashMap<(String, String), Stored>;

fn stored_result(stored: &StoredOf, write: &ItemWrite<'_>) -> Option<WriteResult> {
    let key = (write.item.source.clone(), write.item.guid.clone());
    stored.get(&key)?.result(stored_version(write.version))
}

impl From<EncodeError> for WriteResult {
    fn from(error: EncodeError) -> Self {
        Self::Failed { reason: one_line(&error.to_string()), retry: false }
    }
}

impl Store {
    /// Writes items as documents, each unless the document has a higher version.
    ///
    /// Returns one result per item, in the order of `writes`. The same version again counts as written, with the same
    /// result as the first time. `writes` may be of any length and hold an item several times; it is split into
    /// commands of at most 100 statements or 12 MiB, which are sent one after the other. What cannot be a document
    /// (nesting over 100 levels, NUL in a name, more than 15 MiB) is [`WriteResult::Failed`] without being sent, and
    /// what MongoDB refuses for a document's own sake fails alone.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them. Nothing is known then about any of the items: write them all
    /// again.
    ///
    /// # Cancel safety
    /// Safe in the same sense.
    #[expect(clippy::missing_panics_doc, reason = "every item gets a result in the loop or in `write_command`")]
    pub async fn write(&self, writes: &[ItemWrite<'_>]) -> Result<Vec<WriteResult>, StoreError> {
        let now = DateTime::now();
        let way = if self.most_are_new.load(Ordering::Relaxed) { WriteCommand::Insert } else { WriteCommand::Update };
        let mut results = vec![None; writes.len()];
        let mut command = Command::default();
        for (position, write) in writes.iter().enumerate() {
            let encoded = match way {
                WriteCommand::Insert => insert_document(write, now),
                WriteCommand::Update => upsert_statement(write, now),
            };
            match encoded {
                Ok(statement) => {
                    if command.is_full_for(&statement) {
                        self.write_command(writes, now, way, std::mem::take(&mut command), &mut results).await?;
                    }
                    command.push(position, statement);
                }
                Err(error) => results[position] = Some(error.into()),
            }
        }
        self.write_command(writes, now, way, command, &mut results).await?;
        Ok(results.into_iter().map(|result| result.expect("each item was refused or sent")).collect())
    }

    /// Writes the items of one command until each has a result.
    async fn write_command(
        &self,
        writes: &[ItemWrite<'_>],
        now: DateTime,
        way: WriteCommand,
        command: Command,
        results: &mut [Option<WriteResult>],
    ) -> Result<(), StoreError> {
        let positions = command.positions.clone();
        match way {
            WriteCommand::Insert => {
                let open = self.insert(writes, now, command, results).await?;
                self.update(writes, open, results).await?;
            }
            WriteCommand::Update => self.update(writes, command, results).await?,
        }
        // What was delivered again counts as what it was the first time: wrong for one command, which does no harm.
        let new = positions.iter().filter(|at| results[**at] == Some(WriteResult::Inserted)).count();
        if !positions.is_empty() {
            self.most_are_new.store(2 * new >= positions.len(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Inserts the documents of one command. Returns updates for those that were refused, unless what is stored already
    /// answers them.
    async fn insert(
        &self,
        writes: &[ItemWrite<'_>],
        now: DateTime,
        command: Command,
        results: &mut [Option<WriteResult>],
    ) -> Result<Command, StoreError> {
        let answers = self.send(WRITING, WriteCommand::Insert, JOBS, &command.statements).await?;
        let mut refused = Vec::new();
        for (position, answer) in command.positions.into_iter().zip(answers) {
            match answer {
                Answer::Inserted | Answer::Matched => results[position] = Some(WriteResult::Inserted),
                Answer::Refused(_) => refused.push(position),
            }
        }
        let mut open = Command::default();
        if refused.is_empty() {
            return Ok(open);
        }
        let stored = self.stored(refused.iter().map(|position| writes[*position].item)).await?;
        for position in refused {
            results[position] = stored_result(&stored, &writes[position]);
            if results[position].is_none() {
                match upsert_statement(&writes[position], now) {
                    Ok(statement) => open.push(position, statement),
                    Err(error) => results[position] = Some(error.into()),
                }
            }
        }
        Ok(open)
    }

    /// Writes the updates of one command until each has a result.
    async fn update(
        &self,
        writes: &[ItemWrite<'_>],
        mut open: Command,
        results: &mut [Option<WriteResult>],
    ) -> Result<(), StoreError> {
        for _ in 0..ROUNDS_MAX {
            if open.len() == 0 {
                break;
            }
            let answers = self.send(WRITING, WriteCommand::Update, JOBS, &open.statements).await?;
            let mut clashed = Vec::new();
            for ((position, statement), answer) in open.into_iter().zip(answers) {
                results[position] = match answer {
                    Answer::Inserted => Some(WriteResult::Inserted),
                    Answer::Matched => Some(WriteResult::Updated),
                    Answer::Refused(error) if error.is_clash() => {
                        clashed.push((position, statement, error));
                        None
                    }
                    Answer::Refused(error) => Some(failed(&error)),
                };
            }
            open = Command::default();
            if clashed.is_empty() {
                break;
            }
            let stored = self.stored(clashed.iter().map(|(position, ..)| writes[*position].item)).await?;
            for (position, statement, error) in clashed {
                results[position] = stored_result(&stored, &writes[position]);
                if results[position].is_some() {
                    continue;
                }
                if error.is_clash_on(&["source", "guid"]) {
                    open.push(position, statement);
                } else {
                    results[position] = Some(failed(&error));
                }
            }
        }
        for (position, _) in open.into_iter() {
            let reason = "other writers kept changing the document".to_owned();
            results[position] = Some(WriteResult::Failed { reason, retry: true });
        }
        Ok(())
    }

    /// Reads the versions that are stored of `items`.
    ///
    /// Asks the primary, and for what is confirmed there: "landed" leads to an acknowledgement. A command that only
    /// met E11000s is confirmed like any other, so a confirmed read after it sees at least what it clashed with.
    async fn stored<'a>(&self, items: impl Iterator<Item = &'a Item>) -> Result<StoredOf, StoreError> {
        const DOING: &str = "a look-up of stored versions";
        let mut guids: HashMap<&str, Vec<&str>> = HashMap::new();
        for item in items {
            guids.entry(&item.source).or_default().push(&item.guid);
        }
        // One alternative per source; one per item would cost mongod a third more for a batch that was delivered again.
        let sources: Vec<Document> =
            guids.into_iter().map(|(source, guids)| doc! { "source": source, "guid": { "$in": guids } }).collect();
        let filter = doc! { "$or": sources };
        let documents = self.database.collection::<Document>(JOBS);
        let find = documents
            .find(filter)
            .projection(doc! { "_id": 0, "source": 1, "guid": 1, "version": 1, "createdAt": 1, "updatedAt": 1 })
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .read_concern(self.read_concern.clone());
        let found: Vec<Document> = self.call(DOING, async { find.await?.try_collect().await }).await?;
        let mut stored = HashMap::with_capacity(found.len());
        for document in found {
            let (Ok(source), Ok(guid)) = (document.get_str("source"), document.get_str("guid")) else {
                return Err(StoreError::Answer { doing: DOING, detail: "a document without source and guid".into() });
            };
            let key = (source.to_owned(), guid.to_owned());
            // A version that is no number was not written here, and the filter takes it for older than any too.
            let Some(version) = number(document.get("version")) else { continue };
            let first_result = match (document.get_datetime("createdAt"), document.get_datetime("updatedAt")) {
                (Ok(created), Ok(updated)) if created == updated => WriteResult::Inserted,
                _ => WriteResult::Updated,
            };
            stored.insert(key, Stored { version, first_result });
        }
        Ok(stored)
    }
}
