//! Why a fetch failed, and what is next.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use url::Url;

use super::address::PrivateAddress;
use crate::secret::mask_url;

/// Longest wait that a `Retry-After` is believed; servers send days by mistake, and an hour is also the cap of the
/// backoff between attempts.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// What to do after a failed fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again after the usual backoff.
    Retry,
    /// Try again after this wait, which the server asked for.
    RetryAfter(Duration),
    /// Trying again would not help now.
    Fail,
    /// It is gone for good, its server says: it is not to be asked again by itself.
    Stop,
}

/// What a request got stuck at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The host name was not found.
    Dns,
    /// No connection.
    Connect,
    /// No encrypted connection: a certificate that is not trusted, no common protocol.
    Tls,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// The connection broke, or what came was not HTTP.
    Http,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "its host name was not found",
            Self::Connect => "no connection",
            Self::Tls => "the TLS handshake failed",
            Self::ConnectTimeout => "no connection in time",
            Self::Http => "the connection broke before an answer came",
        })
    }
}

/// Why a feed could not be fetched. URLs are shown without user name and password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    SetUp(#[source] reqwest::Error),
    /// The URL, or one it redirects to, cannot be fetched.
    #[error("cannot fetch {url}: {reason}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is on a private network, or redirects to one, and may not be.
    #[error("cannot fetch {url}: {cause}; only a feed of streams.toml with allow_private = true may be there")]
    Private {
        /// The URL.
        url: String,
        /// Where it would have led.
        #[source]
        cause: PrivateAddress,
    },
    /// A configured header is no HTTP header. Its value may be a secret and is not shown.
    #[error("header {name:?} for {url} is not a valid HTTP header; names are letters, digits and -, values one line")]
    BadHeader {
        /// The URL.
        url: String,
        /// The header's name.
        name: String,
    },
    /// Its password or token is not where it should be.
    #[error("cannot fetch {url}: {reason}")]
    Credentials {
        /// The URL.
        url: String,
        /// What is missing.
        reason: String,
    },
    /// No answer came.
    #[error("cannot reach {url}: {cause}")]
    Unreachable {
        /// The URL.
        url: String,
        /// How far the request got.
        cause: Cause,
        /// What the HTTP client says.
        #[source]
        source: reqwest::Error,
    },
    /// The whole took longer than it may.
    #[error("fetching {url} took longer than {limit:?}")]
    Timeout {
        /// The URL.
        url: String,
        /// The total timeout.
        limit: Duration,
    },
    /// The answer is neither a document nor "not modified".
    #[error("{url} answered {status}")]
    Status {
        /// The URL that answered.
        url: String,
        /// The HTTP status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// It redirects too often, or in a circle.
    #[error("{url} redirects more than {limit} times")]
    TooManyRedirects {
        /// The URL.
        url: String,
        /// How many redirects are followed.
        limit: usize,
    },
    /// The decoded body is over the limit.
    #[error("{url} is larger than {limit_bytes} bytes, the limit set by fetch.body_max")]
    TooLarge {
        /// The URL.
        url: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The body is neither of the two things that servers call deflate.
    #[error("cannot unpack the body of {url}: it is not what deflate means")]
    Deflate {
        /// The URL.
        url: String,
    },
    /// The body broke off or could not be unpacked.
    #[error("cannot read the body of {url}")]
    Body {
        /// The URL.
        url: String,
        /// What the HTTP client says.
        #[source]
        source: reqwest::Error,
    },
}

impl FetchError {
    /// Says what to do next; the only place that judges failed fetches.
    ///
    /// A wait of zero is the usual backoff, so that no server makes us come back at once for ever.
    pub fn next(&self) -> Next {
        match self {
            Self::Status { status: 429 | 503, retry_after: Some(wait), .. } if !wait.is_zero() => {
                Next::RetryAfter(RETRY_AFTER_MAX.min(*wait))
            }
            Self::Status { status: 410, .. } => Next::Stop,
            // 408 is the server's own timeout; a 304 nobody asked for is a confused cache, which comes to itself.
            Self::Status { status: 304 | 408 | 429 | 500.., .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Deflate { .. }
            | Self::Body { .. } => Next::Retry,
            Self::SetUp(_)
            | Self::BadUrl { .. }
            | Self::Private { .. }
            | Self::BadHeader { .. }
            | Self::Credentials { .. }
            | Self::Status { .. }
            | Self::TooManyRedirects { .. }
            | Self::TooLarge { .. } => Next::Fail,
        }
    }

    /// `error`, which came instead of an answer from `url`.
    pub(super) fn unreachable(url: &Url, error: reqwest::Error) -> Self {
        if let Some(cause) = private_address(&error) {
            return Self::Private { url: shown(url), cause };
        }
        let cause = if error.is_dns() {
            Cause::Dns
        } else if is_tls(&error) {
            Cause::Tls
        } else if error.is_timeout() {
            Cause::ConnectTimeout
        } else if error.is_connect() {
            Cause::Connect
        } else {
            Cause::Http
        };
        Self::Unreachable { url: shown(url), cause, source: error.without_url() }
    }

    /// `error`, which came in the middle of the body of `url`.
    pub(super) fn body(url: &Url, error: reqwest::Error) -> Self {
        Self::Body { url: shown(url), source: error.without_url() }
    }
}

/// The private address that the look-up of the name met.
fn private_address(error: &reqwest::Error) -> Option<PrivateAddress> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<PrivateAddress>() {
            return Some(found.clone());
        }
        cause = error.source();
    }
    None
}

/// Whether a TLS error is among the causes. An I/O error carries its cause inside, and leaves it out when asked for it.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}

/// Whether what was packed ends in the middle or is broken, and not the connection: that one's error would be inside.
pub(super) fn is_of_packing(error: &reqwest::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.get_ref().is_none_or(|inner| !inner.is::<reqwest::Error>()))
}

/// A URL as errors show it and as it may be stored: without user and password, parameters named like secrets masked.
pub(crate) fn shown(url: &Url) -> String {
    mask_url(without_user(url).as_str())
}

/// The URL without user name and password.
pub(super) fn without_user(url: &Url) -> Url {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}
