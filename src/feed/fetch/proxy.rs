//! By which way a feed is asked: directly, or through an HTTP proxy.
//!
//! A proxy looks names up itself, so what a name leads to there cannot be seen from here. The name is looked up here
//! too, and refused if it leads to a private address or to nothing; a proxy in a network with secrets must refuse such
//! addresses itself all the same, for a name may change in between.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::secret::mask_url;

/// Variables of the environment that the HTTP client takes proxies from.
const VARIABLES: [&str; 6] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The way to a server.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// What `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// None, whatever the environment says.
    Direct,
    /// This one. May hold a user name and password.
    Via(Url),
}

impl Proxy {
    /// The hosts of the proxies that may be used; none is: the connection is direct.
    pub(super) fn hosts(&self) -> Vec<String> {
        let host = |url: Url| url.host_str().map(str::to_owned);
        match self {
            Self::Direct => Vec::new(),
            Self::Via(url) => host(url.clone()).into_iter().collect(),
            Self::Environment => {
                let set = VARIABLES.iter().filter_map(|name| std::env::var(name).ok()).filter(|text| !text.is_empty());
                let url = |text: String| text.parse().or_else(|_| format!("http://{text}").parse()).ok();
                set.filter_map(url).filter_map(host).collect()
            }
        }
    }
}

/// `"environment"`, `"none"`, or the URL of a proxy.
impl FromStr for Proxy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "environment" => Ok(Self::Environment),
            "none" => Ok(Self::Direct),
            _ => match text.parse::<Url>() {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Self::Via(url)),
                _ => Err(()),
            },
        }
    }
}

/// Without credentials.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::Direct => f.write_str("none"),
            Self::Via(url) => f.write_str(&mask_url(url.as_str())),
        }
    }
}
