//! Credentials of a feed: where they are kept, and what is sent. They are read for each fetch, so that a token that is
//! replaced counts from the next one on.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a feed is asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and a password (RFC 7617).
    Basic {
        /// The user name, without a colon.
        user: String,
        /// Where the password is.
        password: Kept,
    },
    /// A token (RFC 6750).
    Bearer(Kept),
}

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In this variable of the environment.
    Env(String),
    /// In this file, as its whole content but for white space at the end.
    File(PathBuf),
}

impl Kept {
    /// The secret.
    ///
    /// # Errors
    /// One line that names the variable or the file.
    async fn read(&self) -> Result<String, String> {
        let secret = match self {
            Self::Env(name) => std::env::var(name).map_err(|_| format!("the variable {name} is not set"))?,
            Self::File(path) => tokio::fs::read_to_string(path)
                .await
                .map_err(|error| format!("the file {} cannot be read: {error}", path.display()))?,
        };
        Ok(secret.trim_end().to_owned())
    }
}

impl Credentials {
    /// The value of `Authorization`.
    ///
    /// # Errors
    /// One line that names what is missing.
    pub(super) async fn authorization(&self) -> Result<String, String> {
        Ok(match self {
            Self::Basic { user, password } => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.read().await?)))
            }
            Self::Bearer(token) => format!("Bearer {}", token.read().await?),
        })
    }
}
