//! Why MongoDB did not do what was asked, and whether that is an outage.
//!
//! Texts of the server can be long and can repeat the command, with the content of items in it; that is left out, and
//! they are cut and put on one line before they leave this folder. The driver's own texts contain no credentials once a
//! URI is parsed; its error about a URI that holds any is replaced.

use std::{fmt, time::Duration};

use mongodb::error::ErrorKind;

/// The longest text of the server that is passed on, in characters: enough for what, where and one value.
const TEXT_CHARS_MAX: usize = 300;

/// What can go wrong between feedmill and MongoDB.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The URI is not one of MongoDB's.
    #[error("the MongoDB URI begins with {found}; accepted: mongodb://host:port and mongodb+srv://host")]
    Scheme {
        /// The scheme that was given, `none` without one.
        found: String,
    },

    /// The URI has the right scheme and cannot be used.
    #[error("the MongoDB URI cannot be used: {detail}")]
    Uri {
        /// What is wrong with it; never a part of it that may be secret.
        detail: String,
    },

    /// MongoDB has no such database names.
    #[error("{name:?} cannot be the name of a MongoDB database: use 1 to 63 bytes without spaces and /\\.\"$*<>:|?")]
    DatabaseName {
        /// The name that was given.
        name: String,
    },

    /// No server answers at the address.
    #[error("cannot reach MongoDB at {hosts}; start it, or set MONGODB_URI to where it runs")]
    Unreachable {
        /// `host:port`, several with commas.
        hosts: String,
        /// What the driver says.
        #[source]
        cause: DriverError,
    },

    /// The server does not let us in.
    #[error("MongoDB at {hosts} refused the login; check user, password and authSource in MONGODB_URI")]
    Login {
        /// `host:port`, several with commas.
        hosts: String,
        /// What the server says.
        #[source]
        cause: DriverError,
    },

    /// The server took the call and said nothing in time. Whether it will still do it is unknown.
    #[error("MongoDB at {hosts} did not answer {doing} within {after:?}; check its load and the network")]
    NoAnswer {
        /// `host:port`, several with commas.
        hosts: String,
        /// The call.
        doing: &'static str,
        /// How long we waited.
        after: Duration,
    },

    /// The server answered a whole call with an error, or confirmed it with less than the write concern asks for.
    #[error("MongoDB at {hosts} refused {doing}")]
    Refused {
        /// `host:port`, several with commas.
        hosts: String,
        /// The call.
        doing: &'static str,
        /// What the server says.
        #[source]
        cause: DriverError,
    },

    /// The server's answer has not the form that its protocol promises.
    #[error("MongoDB's answer to {doing} cannot be read: {detail}")]
    Answer {
        /// The call.
        doing: &'static str,
        /// What is missing or wrong.
        detail: String,
    },

    /// The server's version is not supported.
    #[error("MongoDB {version} at {hosts} is too old; feedmill needs 4.4 or later")]
    TooOld {
        /// `host:port`, several with commas.
        hosts: String,
        /// What the server calls itself.
        version: String,
    },

    /// Documents that exist already make a unique index impossible.
    #[error(
        "cannot build the unique index {{{keys}}} on the collection {collection:?}: several documents have the same \
         values ({example}); delete or change all but one of each and start again"
    )]
    Duplicates {
        /// Collection of the index.
        collection: &'static str,
        /// Fields of the index.
        keys: &'static str,
        /// One value that occurs more than once, as the server prints it.
        example: String,
    },

    /// An index of the same fields exists that does something else.
    #[error(
        "the index {name:?} on the collection {collection:?} conflicts with one that feedmill needs ({wanted}); drop \
         it with db.{collection}.dropIndex({name:?}) and start again"
    )]
    IndexConflict {
        /// Collection of the index.
        collection: &'static str,
        /// Name of the existing index.
        name: String,
        /// What is needed.
        wanted: &'static str,
    },
}

impl StoreError {
    /// Whether the store as a whole cannot be used now, and the same call may work later without being changed.
    ///
    /// Holds for everything that is no fault of a single document: network, time-outs, fail-over, shutdown, login and
    /// rights, a full disk, unconfirmed writes. Nothing may be assumed about what such a call has done. Does not hold
    /// for settings and data that someone must change first.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Login { .. }
            | Self::NoAnswer { .. }
            | Self::Refused { .. }
            | Self::Answer { .. } => true,
            Self::Scheme { .. }
            | Self::Uri { .. }
            | Self::DatabaseName { .. }
            | Self::TooOld { .. }
            | Self::Duplicates { .. }
            | Self::IndexConflict { .. } => false,
        }
    }

    /// The number of the server's error, if the server refused the call.
    pub(super) fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { cause, .. } => cause.code(),
            _ => None,
        }
    }

    /// Judges an error of the driver; the only place that does.
    pub(super) fn from_driver(hosts: &str, doing: &'static str, error: mongodb::error::Error) -> Self {
        let hosts = hosts.to_owned();
        match *error.kind {
            ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. } => Self::Unreachable { hosts, cause: DriverError::Driver(error) },
            ErrorKind::Authentication { .. } => Self::Login { hosts, cause: DriverError::Driver(error) },
            _ => Self::Refused { hosts, doing, cause: DriverError::Driver(error) },
        }
    }

    /// An error the server reports inside the reply to a call.
    pub(super) fn from_server(hosts: &str, doing: &'static str, code: i32, message: &str) -> Self {
        Self::Refused {
            hosts: hosts.to_owned(),
            doing,
            cause: DriverError::Server { code, message: message.to_owned() },
        }
    }

    /// Judges an error about the URI itself.
    pub(super) fn from_uri(uri: &str, error: mongodb::error::Error) -> Self {
        if matches!(*error.kind, ErrorKind::DnsResolve { .. }) {
            return Self::Unreachable { hosts: host_of(uri).to_owned(), cause: DriverError::Driver(error) };
        }
        // The driver quotes the piece it stumbled over, and with an unescaped character in a password that piece is
        // the password.
        let detail = if uri.contains('@') {
            "it is malformed; escape special characters in user and password (@ as %40, : as %3A, / as %2F)".to_owned()
        } else {
            one_line(&match *error.kind {
                ErrorKind::InvalidArgument { message, .. } => message,
                kind => kind.to_string(),
            })
        };
        Self::Uri { detail }
    }
}

/// The host of a well-formed URI, without user and password.
pub(super) fn host_of(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// What the driver or the server says, printed as one short line.
#[non_exhaustive]
pub enum DriverError {
    /// An error of the driver, or one with which the server answered a whole call.
    Driver(mongodb::error::Error),
    /// An error inside a reply that the driver takes for a success.
    Server {
        /// Number of the error.
        code: i32,
        /// The server's text.
        message: String,
    },
}

impl DriverError {
    /// The number of the server's error, if it is one of the server's.
    pub(super) fn code(&self) -> Option<i32> {
        match self {
            Self::Driver(error) => match &*error.kind {
                ErrorKind::Command(error) => Some(error.code),
                _ => None,
            },
            Self::Server { code, .. } => Some(*code),
        }
    }

    /// The text without the number, and without the command that MongoDB repeats when it lacks the rights for it.
    pub(super) fn message(&self) -> String {
        let message = match self {
            Self::Driver(error) => match &*error.kind {
                ErrorKind::Command(error) => error.message.clone(),
                ErrorKind::ServerSelection { message, .. } => selection_reasons(message),
                kind => kind.to_string(),
            },
            Self::Server { message, .. } => message.clone(),
        };
        message.split(" to execute command {").next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = one_line(&self.message());
        match self.code() {
            Some(code) => write!(f, "{message} (MongoDB error {code})"),
            None => f.write_str(&message),
        }
    }
}

impl fmt::Debug for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's own debug output holds the server's whole reply, and with it the content of items.
        write!(f, "DriverError({self})")
    }
}

impl std::error::Error for DriverError {}

/// What the driver found at each address, out of its description of all it knows about the servers.
///
/// An address where something else than MongoDB listens has no error; nor has one that is silent.
fn selection_reasons(message: &str) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    for part in message.split(", Error: ").skip(1) {
        let part = part.strip_prefix("Kind: ").unwrap_or(part);
        let end = [", labels: ", " }, {", " } ]"].iter().filter_map(|end| part.find(end)).min().unwrap_or(part.len());
        if !reasons.contains(&&part[..end]) {
            reasons.push(&part[..end]);
        }
    }
    if !reasons.is_empty() {
        reasons.join("; ")
    } else if message.contains("Type: Unknown") {
        "no answer that is MongoDB's came in time".to_owned()
    } else {
        message.split(" Topology: ").next().unwrap_or_default().trim_end_matches('.').to_owned()
    }
}

/// Puts a text on one line and cuts it to a length that a log, a job or a document can carry.
pub(super) fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_uri_is_shown_without_user_and_password() {
        assert_eq!(host_of("mongodb+srv://ada:s3cret@db.example.org/feeds?w=1"), "db.example.org");
        assert_eq!(host_of("mongodb://db:27017"), "db:27017");
    }

    #[test]
    fn of_the_servers_that_the_driver_looked_for_only_the_reasons_are_told() {
        let server = |address: &str, reason: &str| {
            format!(
                "{{ Address: {address}, Type: Unknown, Error: Kind: I/O error: {reason}, labels: \
                 {{\"RetryableError\"}}, source: None, server response: None }}"
            )
        };
        let servers = [server("a:1", "refused (os error 111)"), server("b:1", "refused (os error 111)")].join(", ");
        let intro = "Server selection timeout: No available servers.";
        let message = format!("{intro} Topology: {{ Type: Unknown, Servers: [ {servers} ] }}");
        assert_eq!(selection_reasons(&message), "I/O error: refused (os error 111)");
        let silent = format!("{intro} Topology: {{ Type: Unknown, Servers: [ {{ Address: a:1, Type: Unknown }} ] }}");
        assert_eq!(selection_reasons(&silent), "no answer that is MongoDB's came in time");
        let no_primary = "Server selection timeout: No writable servers. Topology: { Type: ReplicaSetNoPrimary }";
        assert_eq!(selection_reasons(no_primary), "Server selection timeout: No writable servers");
    }

    #[test]
    fn a_text_of_the_server_is_cut_and_stays_on_one_line() {
        assert_eq!(one_line("a\nb"), "a b");
        let long = one_line(&"ß".repeat(1000));
        assert_eq!(long.chars().count(), TEXT_CHARS_MAX + 1);
        assert!(long.ends_with('…'));
    }
}
