//! Whether MongoDB is set up to keep items: its version and kind, indexes, write concern, how fast it answers.

use std::time::{Duration, Instant};

use mongodb::bson::{Bson, doc};

use super::{Store, StoreError};
use crate::check::Check;

/// Round trips that latency is measured with.
const PINGS: usize = 15;
/// A median from which writes are noticeably slower.
const SLOW: Duration = Duration::from_millis(20);

impl Store {
    /// Checks the server and what is set up on it. What is in the way of the unique index is for
    /// [`Store::find_obstacles`].
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn checks(&self) -> Result<Vec<Check>, StoreError> {
        Ok(vec![
            self.server_check().await?,
            self.indexes_check().await?,
            self.write_concern_check(),
            self.latency_check().await?,
        ])
    }

    async fn server_check(&self) -> Result<Check, StoreError> {
        const DOING: &str = "a question for what it is";
        let info = self.call(DOING, self.database.run_command(doc! { "buildInfo": 1 })).await?;
        let hello = self.call(DOING, self.database.run_command(doc! { "hello": 1 })).await?;
        let version = info.get_str("version").unwrap_or("of unknown version");
        let kind = match (hello.get_str("setName"), hello.get_str("msg")) {
            (Ok(set), _) => format!("the replica set {set}"),
            (_, Ok("isdbgrid")) => "a sharded cluster".to_owned(),
            _ => "one server".to_owned(),
        };
        let found = format!("MongoDB {version} at {}, {kind}, database {}", self.hosts, self.database.name());
        Ok(if hello.get_bool("isWritablePrimary").unwrap_or(true) {
            Check::ok("server", found)
        } else {
            Check::error(
                "server",
                format!("{found}; there is no primary that takes writes"),
                "name all members in MONGODB_URI, and look at rs.status()",
            )
        })
    }

    async fn indexes_check(&self) -> Result<Check, StoreError> {
        let missing = self.missing_indexes().await?;
        Ok(if missing.is_empty() {
            Check::ok("indexes", "all that are needed are there")
        } else {
            Check::warning(
                "indexes",
                format!("missing: {}", missing.join(", ")),
                "feedmill doctor --fix makes them, and so does every worker when it starts",
            )
        })
    }

    fn write_concern_check(&self) -> Check {
        let w = self.write_concern.get("w").ok().flatten().and_then(|w| Bson::try_from(w).ok());
        let journal = self.write_concern.get_bool("j").unwrap_or(true);
        let fix = "take w and journal out of MONGODB_URI: majority with journal is what is used without them";
        match w {
            Some(Bson::Int32(0) | Bson::Int64(0)) => Check::error(
                "writes",
                "write concern w=0: nobody notices a write that failed, and its job is done all the same",
                fix,
            ),
            Some(Bson::Int32(1) | Bson::Int64(1)) => Check::warning(
                "writes",
                "write concern w=1: a fail-over may take back documents whose jobs are done",
                fix,
            ),
            _ if !journal => Check::warning(
                "writes",
                "without journal: a power cut may take back documents whose jobs are done",
                fix,
            ),
            Some(w) => Check::ok(
                "writes",
                format!("write concern {}", w.as_str().map_or_else(|| w.to_string(), str::to_owned)),
            ),
            None => Check::ok("writes", "write concern as the server has it"),
        }
    }

    async fn latency_check(&self) -> Result<Check, StoreError> {
        let mut took = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let asked = Instant::now();
            self.ping().await?;
            took.push(asked.elapsed());
        }
        took.sort_unstable();
        let (median, slowest) = (took[PINGS / 2], took[PINGS - 1]);
        let detail = format!("a round trip takes {median:.1?}, the slowest of {PINGS} {slowest:.1?}");
        Ok(if median > SLOW {
            Check::warning("latency", detail, "look at the network, and at its load: mongostat, db.currentOp()")
        } else {
            Check::ok("latency", detail)
        })
    }
}
