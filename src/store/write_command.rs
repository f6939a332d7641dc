//! The write commands `insert` and `update`: many statements in, one answer for each out.
//!
//! All writes of this folder go through here, so that there is one place that reads the reply and one that tells the
//! fault of a document from an outage. The driver's own bulk write needs MongoDB 8, and its `update_one` is a round
//! trip for each document.

use mongodb::bson::{
    Bson, Document, RawArrayBuf, RawDocument, RawDocumentBuf,
    raw::{CStr, cstr},
};

use super::{Store, StoreError, error::one_line};

/// Statements in one command. More do not make it faster (the cost is in mongod, per document), and a command that is
/// refused as a whole costs more to take apart.
pub(super) const STATEMENTS_MAX: usize = 100;

/// A write command of MongoDB.
#[derive(Clone, Copy, Debug)]
pub(super) enum WriteCommand {
    /// Its statements are documents. Refused is what exists already.
    Insert,
    /// Its statements are `{q, u, upsert}`.
    Update,
}

impl WriteCommand {
    /// Its name, and that of the list of its statements.
    fn names(self) -> (&'static CStr, &'static CStr) {
        match self {
            Self::Insert => (cstr!("insert"), cstr!("documents")),
            Self::Update => (cstr!("update"), cstr!("updates")),
        }
    }

    /// What happened to a statement of which the reply says nothing.
    fn unsaid(self) -> Answer {
        match self {
            Self::Insert => Answer::Inserted,
            Self::Update => Answer::Matched,
        }
    }
}

/// MongoDB's answer to one statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There was no such document; it was inserted.
    Inserted,
    /// A document met the filter and is now as the statement says.
    Matched,
    /// The statement failed, and only it.
    Refused(StatementError),
}

/// Why one statement failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StatementError {
    code: i32,
    message: String,
    /// For a duplicate key, the fields of the index.
    keys: Vec<String>,
}

impl StatementError {
    /// Whether a unique index refused the statement (E11000).
    pub(super) fn is_clash(&self) -> bool {
        self.code == code::DUPLICATE_KEY
    }

    /// Whether that index can be the one on `fields`. A server that does not name it is believed to mean this one.
    pub(super) fn is_clash_on(&self, fields: &[&str]) -> bool {
        let same =
            self.keys.len() == fields.len() && fields.iter().all(|field| self.keys.iter().any(|key| key == field));
        self.is_clash() && (self.keys.is_empty() || same)
    }

    /// Whether the same statement may succeed later. What the document itself is at fault for stays so until its item
    /// or the rules of the collection change.
    pub(super) fn may_pass_later(&self) -> bool {
        !code::FAULTS_OF_A_DOCUMENT.contains(&self.code)
    }

    /// The error of the call, for a write in which no statement may fail.
    pub(super) fn into_error(self, hosts: &str, doing: &'static str) -> StoreError {
        StoreError::from_server(hosts, doing, self.code, &self.message)
    }

    /// The reason in one short line.
    pub(super) fn reason(&self) -> String {
        one_line(&format!("{} (MongoDB error {})", self.message, self.code))
    }
}

/// Numbers of MongoDB's errors (`src/mongo/base/error_codes.yml` of the server).
mod code {
    pub(super) const DUPLICATE_KEY: i32 = 11000;

    /// Errors of the server's state, not of a document, also where they are reported for a single statement.
    pub(super) const OUTAGES: &[i32] = &[
        6,     // HostUnreachable
        7,     // HostNotFound
        13,    // Unauthorized
        24,    // LockTimeout
        50,    // MaxTimeMSExpired
        64,    // WriteConcernFailed
        89,    // NetworkTimeout
        91,    // ShutdownInProgress
        100,   // UnsatisfiableWriteConcern
        133,   // FailedToSatisfyReadPreference
        134,   // ReadConcernMajorityNotAvailableYet
        189,   // PrimarySteppedDown
        202,   // NetworkInterfaceExceededTimeLimit
        262,   // ExceededTimeLimit
        8000,  // AtlasError, such as a used-up quota
        9001,  // SocketException
        10058, // LegacyNotPrimary
        10107, // NotWritablePrimary
        11600, // InterruptedAtShutdown
        11601, // Interrupted
        11602, // InterruptedDueToReplStateChange
        13388, // StaleConfig
        13435, // NotPrimaryNoSecondaryOk
        13436, // NotPrimaryOrSecondary
        14031, // OutOfDiskSpace
    ];

    /// Errors with which one document makes MongoDB refuse the whole command. Other refusals of a whole command, a
    /// plain BadValue among them, are about the command itself (a write concern the server does not offer) and would
    /// meet every document.
    pub(super) const FAULTS_IN_A_COMMAND: &[i32] = &[
        15,    // Overflow: nested too deeply
        22,    // InvalidBSON
        10334, // BSONObjectTooLarge
        17419, // the resulting document is too large
        17420, // the same, for another kind of update
    ];

    /// Errors of one statement that its document causes by what it contains.
    pub(super) const FAULTS_OF_A_DOCUMENT: &[i32] = &[
        2,     // BadValue
        9,     // FailedToParse
        14,    // TypeMismatch
        15,    // Overflow: nested too deeply
        22,    // InvalidBSON
        28,    // PathNotViable
        52,    // DollarPrefixedFieldName
        56,    // EmptyFieldName
        57,    // DottedFieldName
        66,    // ImmutableField
        121,   // DocumentValidationFailure: a validator someone has set on the collection
        10334, // BSONObjectTooLarge
        11000, // DuplicateKey, on an index that is not ours
        17280, // KeyTooLong
        17419, // the resulting document is too large
        17420, // the same, for another kind of update
    ];
}

impl Store {
    /// Sends `statements` to `collection` and returns an answer for each, in their order.
    ///
    /// The statements are unordered: one that fails stops no other. A command that MongoDB refuses as a whole for what
    /// one statement contains is sent again in two halves, until the one at fault is alone. At most
    /// [`STATEMENTS_MAX`] statements and one BSON document (16 MiB) in all.
    ///
    /// # Errors
    /// An outage, also one that is reported for a statement, and a write concern that was not met.
    pub(super) async fn send(
        &self,
        doing: &'static str,
        command: WriteCommand,
        collection: &str,
        statements: &[RawDocumentBuf],
    ) -> Result<Vec<Answer>, StoreError> {
        let mut answers = Vec::with_capacity(statements.len());
        let mut parts = vec![statements];
        while let Some(part) = parts.pop() {
            match self.send_once(doing, command, collection, part).await {
                Ok(part_answers) => answers.extend(part_answers),
                Err(StoreError::Refused { cause, .. })
                    if cause.code().is_some_and(|code| code::FAULTS_IN_A_COMMAND.contains(&code)) =>
                {
                    if let [_] = part {
                        let code = cause.code().unwrap_or_default();
                        answers.push(Answer::Refused(StatementError {
                            code,
                            message: cause.message(),
                            keys: Vec::new(),
                        }));
                    } else {
                        // Taken from the end, so the first half comes next and the answers stay in order.
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }

    async fn send_once(
        &self,
        doing: &'static str,
        command: WriteCommand,
        collection: &str,
        statements: &[RawDocumentBuf],
    ) -> Result<Vec<Answer>, StoreError> {
        if statements.is_empty() {
            return Ok(Vec::new());
        }
        let list: RawArrayBuf = statements.iter().map(|statement| -> &RawDocument { statement }).collect();
        let (name, name_of_list) = command.names();
        let mut message = RawDocumentBuf::new();
        message.append(name, collection);
        message.append(name_of_list, list);
        message.append(cstr!("ordered"), false);
        message.append(cstr!("writeConcern"), &*self.write_concern);
        let reply = self.call(doing, self.database.run_raw_command(message)).await?;
        read_reply(&self.hosts, doing, command, &reply, statements.len())
    }
}

/// Reads the reply to an unordered command of `statements` statements.
fn read_reply(
    hosts: &str,
    doing: &'static str,
    command: WriteCommand,
    reply: &Document,
    statements: usize,
) -> Result<Vec<Answer>, StoreError> {
    let unreadable = |detail: &str| StoreError::Answer { doing, detail: detail.to_owned() };
    if let Some(error) = reply.get("writeConcernError") {
        let error = error.as_document().ok_or_else(|| unreadable("its writeConcernError is no document"))?;
        return Err(refused(hosts, doing, error));
    }
    let mut answers: Vec<Answer> = std::iter::repeat_with(|| command.unsaid()).take(statements).collect();
    let mut answer_to = |element: &Document, answer: Answer| {
        let index = number(element.get("index")).and_then(|index| usize::try_from(index).ok());
        let slot = index.and_then(|index| answers.get_mut(index)).ok_or_else(|| unreadable("an index out of range"))?;
        *slot = answer;
        Ok(())
    };
    let mut failed = 0;
    for element in documents(reply, "upserted").ok_or_else(|| unreadable("its upserted is no list"))? {
        answer_to(element, Answer::Inserted)?;
    }
    for element in documents(reply, "writeErrors").ok_or_else(|| unreadable("its writeErrors is no list"))? {
        let error = statement_error(element).ok_or_else(|| unreadable("a write error without code"))?;
        if code::OUTAGES.contains(&error.code) {
            return Err(refused(hosts, doing, element));
        }
        failed += 1;
        answer_to(element, Answer::Refused(error))?;
    }
    // `n` counts what was matched or inserted. If it does not add up, a statement was left out without an error,
    // and taking it for written would lose its item.
    let written = number(reply.get("n")).and_then(|n| usize::try_from(n).ok());
    if written.map(|written| written + failed) != Some(statements) {
        return Err(unreadable(&format!("{written:?} of {statements} statements written and {failed} failed")));
    }
    Ok(answers)
}

fn refused(hosts: &str, doing: &'static str, error: &Document) -> StoreError {
    let code = number(error.get("code")).and_then(|code| i32::try_from(code).ok()).unwrap_or_default();
    StoreError::from_server(hosts, doing, code, error.get_str("errmsg").unwrap_or_default())
}

/// The documents of a list in the reply: none if the list is absent, `None` if it is something else.
fn documents<'a>(reply: &'a Document, list: &str) -> Option<Vec<&'a Document>> {
    match reply.get(list) {
        None => Some(Vec::new()),
        Some(Bson::Array(elements)) => elements.iter().map(Bson::as_document).collect(),
        Some(_) => None,
    }
}

fn statement_error(element: &Document) -> Option<StatementError> {
    let code = number(element.get("code")).and_then(|code| i32::try_from(code).ok())?;
    let message = element.get_str("errmsg").unwrap_or("without a text").to_owned();
    let keys = element.get_document("keyPattern").map(|keys| keys.keys().cloned().collect()).unwrap_or_default();
    Some(StatementError { code, message, keys })
}

/// A whole number in whichever of BSON's types a server or another program has put it.
pub(super) fn number(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    fn read(reply: &Document, statements: usize) -> Result<Vec<Answer>, StoreError> {
        read_reply("db:27017", "a write", WriteCommand::Update, reply, statements)
    }

    #[test]
    fn an_insert_that_is_not_refused_has_inserted() {
        let reply = doc! { "n": 1, "writeErrors": [{ "index": 0, "code": 11000, "errmsg": "E11000" }] };
        let answers = read_reply("db:27017", "a write", WriteCommand::Insert, &reply, 2).unwrap();
        assert!(matches!(&answers[0], Answer::Refused(error) if error.is_clash()));
        assert_eq!(answers[1], Answer::Inserted);
    }

    #[test]
    fn each_statement_gets_its_own_answer() {
        let reply = doc! {
            "n": 2, "nModified": 1, "ok": 1.0,
            "upserted": [{ "index": 2, "_id": 7 }],
            "writeErrors": [{ "index": 0, "code": 11000, "errmsg": "E11000", "keyPattern": { "source": 1, "guid": 1 } }],
        };
        let answers = read(&reply, 3).unwrap();
        assert!(matches!(&answers[0], Answer::Refused(error) if error.is_clash_on(&["source", "guid"])));
        assert_eq!(answers[1..], [Answer::Matched, Answer::Inserted]);
    }

    #[test]
    fn a_clash_on_another_index_is_no_clash_on_ours_and_stays() {
        let reply = doc! { "n": 0, "writeErrors": [{ "index": 0, "code": 11000, "keyPattern": { "link": 1 } }] };
        let Answer::Refused(error) = read(&reply, 1).unwrap().remove(0) else { panic!("it was refused") };
        assert!(!error.is_clash_on(&["source", "guid"]) && !error.may_pass_later());
    }

    #[test]
    fn the_state_of_the_server_is_an_outage_also_in_the_error_of_one_statement() {
        for code in [91, 189, 10107, 11600, 11602, 13435, 14031] {
            let reply = doc! { "n": 1, "writeErrors": [{ "index": 1, "code": code, "errmsg": "sorry" }] };
            let error = read(&reply, 2).unwrap_err();
            assert!(error.is_outage(), "{code}");
            assert_eq!(error.to_string(), "MongoDB at db:27017 refused a write");
        }
    }

    #[test]
    fn an_unconfirmed_write_is_an_outage() {
        let reply = doc! { "n": 1, "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } };
        assert!(read(&reply, 1).unwrap_err().is_outage());
    }

    #[test]
    fn a_reply_that_leaves_a_statement_out_is_not_taken_for_a_success() {
        for reply in [
            doc! { "n": 1, "ok": 1.0 },
            doc! { "ok": 1.0 },
            doc! { "n": 2, "upserted": [{ "index": 2 }] },
            doc! { "n": 2, "upserted": "yes" },
            doc! { "n": 1, "writeErrors": [{ "index": 0 }] },
        ] {
            assert!(matches!(read(&reply, 2), Err(StoreError::Answer { .. })), "{reply}");
        }
    }
}
