//! The HTTP request for a feed: conditional, and limited in time, size and redirects.
//!
//! ```text
//!  FetchRequest ──GET──▶ 304 ─────────────────────▶ Fetched::NotModified
//!     ▲                  2xx ──body, decoded──────▶ Fetched::Body
//!     └──Location────── 3xx
//!                        other, or over a limit ──▶ FetchError, which knows what is next
//! ```
//!
//! Redirects are followed here and not by the HTTP client, for two reasons: which of them were permanent decides whether
//! the feed has moved, and the headers of a feed, which may hold a token, go to its own host only.
//!
//! Unless a feed may be on a private network, only addresses of the public internet are connected to, at each redirect
//! ([`address`]).
//!
//! Called by the fetch handler. *Not here:* when to fetch, retries, and everything about the document itself.

mod address;
mod body;
mod credentials;
mod error;
mod proxy;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use reqwest::dns::{Name, Resolve};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, redirect};
use url::{Host, Url};

pub use address::{Network, Networks, PrivateAddress};
pub use body::{Body, Room};
pub use credentials::{Credentials, Kept};
pub(crate) use error::shown;
pub use error::{Cause, FetchError, Next};
pub use proxy::Proxy;

use super::parse::date;
use address::{PublicNames, SystemNames};
use body::{Inflating, Rooms};

/// What the fetcher says it accepts: the formats it reads first, then what servers mislabel feeds as.
const ACCEPT: &str = "application/rss+xml, application/atom+xml, application/xml;q=0.9, text/xml;q=0.9, */*;q=0.1";

/// Limits of every fetch, and the name it goes by.
#[derive(Clone, Debug)]
pub struct FetchLimits {
    /// Time for name look-up, connection and TLS handshake of one request. Default 10 s.
    pub connect_timeout: Duration,
    /// Time for everything, redirects and body included. Default 30 s.
    pub total_timeout: Duration,
    /// How many redirects are followed. Default 5.
    pub redirects_max: usize,
    /// Size of the decoded body; a compressed one is counted as it unpacks. Default 32 MiB.
    pub body_max_bytes: u64,
    /// `User-Agent`. Default `feedmill/<version> (+<repository>)`, so that a publisher can find out who asks.
    pub user_agent: String,
    /// Networks that every feed may be on, beside the public internet. Default none.
    pub networks: Networks,
    /// The way to servers, for feeds that say nothing of it. Default: as the environment says.
    pub proxy: Proxy,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(30),
            redirects_max: 5,
            body_max_bytes: 32 * 1024 * 1024,
            user_agent: concat!("feedmill/", env!("CARGO_PKG_VERSION"), " (+", env!("CARGO_PKG_REPOSITORY"), ")")
                .to_owned(),
            networks: Networks::default(),
            proxy: Proxy::default(),
        }
    }
}

/// What a server said to tell the next version of a document from this one (RFC 9110, 8.8). Kept byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`, quotes and `W/` included.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
}

impl Validators {
    /// Whether there is nothing to make a request conditional with.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    fn of(headers: &HeaderMap) -> Self {
        let text = |name| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Self { etag: text(header::ETAG), last_modified: text(header::LAST_MODIFIED) }
    }
}

/// One fetch to make.
#[derive(Clone)]
pub struct FetchRequest {
    /// The configured address. A user name and password in it are sent as basic authentication.
    pub url: Url,
    /// Where to ask instead: an earlier fetch learned that the feed has moved for good.
    pub moved_to: Option<Url>,
    /// Sent to the host of `url` only, not to one it redirects to or has moved to.
    pub headers: BTreeMap<String, String>,
    /// Sent as these are.
    pub credentials: Option<Credentials>,
    /// Those of the version we have; empty makes the request unconditional.
    pub validators: Validators,
    /// Whether addresses of private networks may be asked, by it and by what it redirects to.
    pub allow_private: bool,
    /// The way to its server; `None` is that of all feeds.
    pub proxy: Option<Proxy>,
}

/// Without headers and credentials, which are secrets.
impl fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = error::shown(&self.url);
        f.debug_struct("FetchRequest").field("url", &url).field("validators", &self.validators).finish_non_exhaustive()
    }
}

/// What came of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The version we have is the newest.
    NotModified {
        /// To be sent next time: those of this answer, else those that were sent.
        validators: Validators,
        /// Where the answer came from.
        final_url: Url,
        /// Where the feed is from now on, if it has moved.
        moved_to: Option<Url>,
        /// How long the version we have is the newest, as the server says.
        fresh_for: Option<Duration>,
    },
    /// A document.
    Body {
        /// Its bytes, content encoding undone.
        bytes: Body,
        /// `Content-Type` as received.
        content_type: Option<String>,
        /// To be sent next time.
        validators: Validators,
        /// Where it came from: the base of its relative links.
        final_url: Url,
        /// Where the feed is from now on, if it has moved: the end of the permanent redirects (301, 308) that the chain
        /// begins with. What is behind a temporary one is not remembered.
        moved_to: Option<Url>,
        /// How long this version is the newest, as the server says.
        fresh_for: Option<Duration>,
        /// The status, 2xx.
        status: u16,
    },
}

/// Fetches feeds. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Fetcher {
    limits: FetchLimits,
    names: Arc<dyn Resolve>,
    ways: Arc<Mutex<HashMap<(bool, Proxy), Way>>>,
    rooms: Rooms,
}

/// One way to ask servers: a client with its connections. A feed that may be on a private network shares none with one
/// that may not, or what the first connected to would be open to the second.
#[derive(Clone)]
struct Way {
    client: Client,
    /// Looks up, before the request, the names that a proxy will look up by itself; `None` where the client does it.
    names: Option<Arc<PublicNames>>,
    /// The addresses that may be asked; `None` is any.
    networks: Option<Networks>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Until when a fetch must be through. What it waits for us does not count.
struct Deadline {
    at: Instant,
    url: String,
    limit: Duration,
}

impl Deadline {
    async fn within<T>(&self, step: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
        match tokio::time::timeout_at(self.at, step).await {
            Ok(result) => result,
            Err(_elapsed) => Err(FetchError::Timeout { url: self.url.clone(), limit: self.limit }),
        }
    }
}

impl Fetcher {
    /// Sets up the HTTP client, and rustls with its ring provider if the process has none yet.
    ///
    /// # Errors
    /// [`FetchError::SetUp`] when the user agent is no header value or TLS has no root certificates.
    pub fn new(limits: FetchLimits) -> Result<Self, FetchError> {
        Self::with_names(limits, Arc::new(SystemNames))
    }

    /// As [`Self::new`], with another look-up of host names than the system's.
    ///
    /// # Errors
    /// [`FetchError::SetUp`], as [`Self::new`].
    pub fn with_names(limits: FetchLimits, names: Arc<dyn Resolve>) -> Result<Self, FetchError> {
        crate::tls::install_provider();
        let fetcher = Self { limits, names, ways: Arc::default(), rooms: Rooms::new() };
        // What all ways have in common is wrong at start, or never.
        fetcher.way(false, None)?;
        Ok(fetcher)
    }

    /// The way of feeds that may, or may not, be on a private network.
    fn way(&self, allow_private: bool, proxy: Option<&Proxy>) -> Result<Way, FetchError> {
        let key = (allow_private, proxy.unwrap_or(&self.limits.proxy).clone());
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = ways.get(&key) {
            return Ok(way.clone());
        }
        let proxies = key.1.hosts();
        let (is_proxied, networks) = (!proxies.is_empty(), self.limits.networks.clone());
        let mut client = Client::builder()
            .user_agent(&self.limits.user_agent)
            .connect_timeout(self.limits.connect_timeout)
            .redirect(redirect::Policy::none())
            // Not asked for, because servers mean two things by it; see `body::inflated`.
            .deflate(false)
            .default_headers(HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(ACCEPT))]));
        client = match &key.1 {
            Proxy::Environment => client,
            Proxy::Direct => client.no_proxy(),
            Proxy::Via(url) => client.proxy(reqwest::Proxy::all(url.as_str()).map_err(FetchError::SetUp)?),
        };
        let names = self.names.clone();
        client = if allow_private {
            client.dns_resolver(names.clone())
        } else {
            let (names, networks) = (names.clone(), networks.clone());
            client.dns_resolver(Arc::new(PublicNames { names, networks, exempt: proxies }))
        };
        let way = Way {
            client: client.build().map_err(FetchError::SetUp)?,
            names: (is_proxied && !allow_private)
                .then(|| Arc::new(PublicNames { names, networks: networks.clone(), exempt: Vec::new() })),
            networks: (!allow_private).then_some(networks),
        };
        ways.insert(key, way.clone());
        Ok(way)
    }

    /// Makes one fetch, following redirects.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::next`] says what to do about it. A status other than 2xx and 304 is an error, and so
    /// is a 304 to a request that had no validators.
    ///
    /// # Cancel safety
    /// Safe: dropping it closes the connection.
    pub async fn fetch(&self, request: &FetchRequest) -> Result<Fetched, FetchError> {
        let limit = self.limits.total_timeout;
        let deadline = Deadline { at: Instant::now() + limit, url: error::shown(&request.url), limit };
        self.follow(request, deadline).await
    }

    /// Requests the URL, then where it redirects to, until something else comes.
    async fn follow(&self, request: &FetchRequest, deadline: Deadline) -> Result<Fetched, FetchError> {
        let headers = own_headers(request).await?;
        let way = self.way(request.allow_private, request.proxy.as_ref())?;
        let mut url = request.moved_to.as_ref().unwrap_or(&request.url).clone();
        let mut moved_to = None;
        let mut is_permanent = true;
        for _ in 0..=self.limits.redirects_max {
            let response = deadline.within(way.get(&url, &headers, request)).await?;
            let Some(target) = redirect_target(&response, &url)? else {
                return self.read(response, url, moved_to, request, deadline).await;
            };
            is_permanent &= matches!(response.status(), StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT);
            if is_permanent {
                moved_to = Some(target.clone());
            }
            url = target;
        }
        Err(FetchError::TooManyRedirects { url: error::shown(&request.url), limit: self.limits.redirects_max })
    }

    /// The answer at the end of the redirects.
    async fn read(
        &self,
        response: Response,
        final_url: Url,
        moved_to: Option<Url>,
        request: &FetchRequest,
        deadline: Deadline,
    ) -> Result<Fetched, FetchError> {
        let status = response.status();
        let validators = Validators::of(response.headers());
        let fresh_for = fresh_for(response.headers());
        if status == StatusCode::NOT_MODIFIED && !request.validators.is_empty() {
            let sent = request.validators.clone();
            let validators = Validators {
                etag: validators.etag.or(sent.etag),
                last_modified: validators.last_modified.or(sent.last_modified),
            };
            return Ok(Fetched::NotModified { validators, final_url, moved_to, fresh_for });
        }
        if !status.is_success() {
            return Err(FetchError::Status {
                url: error::shown(&final_url),
                status: status.as_u16(),
                retry_after: response.headers().get(header::RETRY_AFTER).and_then(retry_after),
            });
        }
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let bytes = self.body(response, &final_url, deadline).await?;
        Ok(Fetched::Body { bytes, content_type, validators, final_url, moved_to, fresh_for, status: status.as_u16() })
    }

    /// The decoded body, up to the limit. A chunk comes from the decoder's small buffer, so a bomb is met early.
    async fn body(&self, mut response: Response, url: &Url, mut deadline: Deadline) -> Result<Body, FetchError> {
        let limit_bytes = self.limits.body_max_bytes;
        let too_large = || FetchError::TooLarge { url: error::shown(url), limit_bytes };
        // Known only where nothing has to be unpacked.
        let announced = response.content_length().unwrap_or(0);
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        let is_deflated = encoding.is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"deflate"));
        if announced > limit_bytes {
            return Err(too_large());
        }
        let mut body = Body::with_capacity(usize::try_from(announced).unwrap_or(0));
        loop {
            // All came that was sent, and does not unpack to its end: the next fetch would get no more.
            let read = async {
                match response.chunk().await {
                    Err(error) if error::is_of_packing(&error) && !body.is_empty() => Ok(Err(())),
                    read => read.map(Ok).map_err(|error| FetchError::body(url, error)),
                }
            };
            let Ok(chunk) = deadline.within(read).await? else { return Ok(body.cut_off()) };
            let Some(chunk) = chunk else {
                if is_deflated {
                    return body.inflated(limit_bytes).map_err(|error| match error {
                        Inflating::TooLarge => too_large(),
                        Inflating::Broken => FetchError::Deflate { url: error::shown(url) },
                    });
                }
                return Ok(body);
            };
            if (body.len() + chunk.len()) as u64 > limit_bytes {
                return Err(too_large());
            }
            if body.needs_room_for(chunk.len()) {
                let waits_from = Instant::now();
                body.wait_for_room(&self.rooms).await;
                deadline.at += waits_from.elapsed();
            }
            body.push(&chunk);
        }
    }
}

impl Way {
    /// One request. Validators go along to wherever it leads; the feed's own headers do not leave its host.
    async fn get(&self, url: &Url, headers: &HeaderMap, request: &FetchRequest) -> Result<Response, FetchError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::BadUrl {
                url: error::shown(url),
                reason: format!("its scheme is {}, it must be http or https", url.scheme()),
            });
        }
        self.check(url).await?;
        let mut get = self.client.get(url.clone());
        if is_same_host(&request.url, url) {
            get = get.headers(headers.clone());
            // A redirect does not repeat the credentials of the address it is about.
            if !request.url.username().is_empty() && url.username().is_empty() {
                get = get.basic_auth(decoded(request.url.username()), request.url.password().map(decoded));
            }
        }
        if let Some(etag) = &request.validators.etag {
            get = get.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(last_modified) = &request.validators.last_modified {
            get = get.header(header::IF_MODIFIED_SINCE, last_modified);
        }
        get.send().await.map_err(|error| FetchError::unreachable(url, error))
    }

    /// Refuses an address that may not be asked, if it is known before the client connects.
    async fn check(&self, url: &Url) -> Result<(), FetchError> {
        let private = |cause| FetchError::Private { url: error::shown(url), cause };
        if let Some(networks) = &self.networks {
            networks.check_host(url).map_err(private)?;
        }
        let (Some(names), Some(Host::Domain(host))) = (&self.names, url.host()) else { return Ok(()) };
        let unknown = || FetchError::BadUrl {
            url: error::shown(url),
            reason: "its host name is not known here, so that it cannot be told what the proxy would connect to"
                .to_owned(),
        };
        let name = Name::from_str(host).map_err(|_| unknown())?;
        match names.resolve(name).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.downcast_ref::<PrivateAddress>().cloned().map_or_else(unknown, private)),
        }
    }
}

/// The feed's own headers, checked.
async fn own_headers(request: &FetchRequest) -> Result<HeaderMap, FetchError> {
    let mut headers = HeaderMap::new();
    let authorization = match &request.credentials {
        Some(credentials) => Some(
            credentials
                .authorization()
                .await
                .map_err(|reason| FetchError::Credentials { url: error::shown(&request.url), reason })?,
        ),
        None => None,
    };
    let authorization = authorization.map(|value| (header::AUTHORIZATION.to_string(), value));
    for (name, value) in request.headers.iter().chain(authorization.iter().map(|(name, value)| (name, value))) {
        let bad = || FetchError::BadHeader { url: error::shown(&request.url), name: name.clone() };
        let header_name = HeaderName::try_from(name).map_err(|_| bad())?;
        let mut header_value = HeaderValue::try_from(value).map_err(|_| bad())?;
        header_value.set_sensitive(true);
        headers.append(header_name, header_value);
    }
    Ok(headers)
}

/// Where a redirect leads, without a fragment; `None` for anything that is no redirect. A user name in a `Location` is
/// dropped: it would be sent as a password that somebody else chose.
fn redirect_target(response: &Response, url: &Url) -> Result<Option<Url>, FetchError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(header::LOCATION) else { return Ok(None) };
    let bad = |reason| FetchError::BadUrl { url: error::shown(url), reason };
    let location = std::str::from_utf8(location.as_bytes()).map_err(|_| bad("it redirects to no text".to_owned()))?;
    let target = url.join(location).map_err(|error| bad(format!("it redirects to a broken address: {error}")))?;
    let mut target = error::without_user(&target);
    target.set_fragment(None);
    Ok(Some(target))
}

/// Whether `to` is the server that `from` names, or its encrypted side.
fn is_same_host(from: &Url, to: &Url) -> bool {
    let is_upgrade = from.scheme() == "http" && to.scheme() == "https" && from.port().is_none() && to.port().is_none();
    from.host() == to.host() && (from.origin() == to.origin() || is_upgrade)
}

/// User name and password of a URL are percent-encoded.
fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3). One in the past is no wait.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait = date::parse(text)?.duration_since(jiff::Timestamp::now());
    Some(wait.try_into().unwrap_or_default())
}

/// How long an answer is fresh: `Cache-Control: max-age`, else the time from `Date` (or now) to `Expires` (RFC 9111, 4.2.1).
/// What must not be kept at all says nothing about how often it changes.
fn fresh_for(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let directives = || text(header::CACHE_CONTROL).into_iter().flat_map(|value| value.split(',')).map(str::trim);
    if directives().any(|directive| ["no-store", "no-cache"].iter().any(|no| directive.eq_ignore_ascii_case(no))) {
        return None;
    }
    let max_age = directives().find_map(|directive| {
        let (name, seconds) = directive.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| seconds.trim_matches('"').parse().ok())?
    });
    if let Some(seconds) = max_age {
        return Some(Duration::from_secs(seconds));
    }
    let expires = date::parse(text(header::EXPIRES)?)?;
    let sent = text(header::DATE).and_then(date::parse).unwrap_or_else(jiff::Timestamp::now);
    expires.duration_since(sent).try_into().ok()
}

#[cfg(test)]
mod tests;
