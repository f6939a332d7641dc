//! Serves a folder of feeds, and generated feeds, over HTTP as a well-behaved publisher does: with a media type, an
//! ETag and a Last-Modified, and 304 for what the client has.
//!
//! ```text
//!   GET /jobboard.rss                             the file of that name, as it is on disk now
//!   GET /generated/20000.rss?seed=7&bytes=3000    a feed of 20,000 items, streamed
//! ```
//!
//! *Not here:* sub-folders and listings. A name is looked up in one folder and may not lead out of it.

use std::{fmt::Write as _, io, path::Path, path::PathBuf, str::FromStr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{self, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use jiff::{Timestamp, Unit, fmt::rfc2822};
use url::form_urlencoded;
use xxhash_rust::xxh3::xxh3_64;

use super::GeneratedFeed;

/// Most items of a generated feed. The response is streamed; this bounds what one typing error can send.
const ITEMS_MAX: usize = 1_000_000;
/// Largest item of a generated feed: each is made in memory.
const ITEM_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Serves the files of `folder`, and generated feeds, until `shutdown` completes.
///
/// A file is read at each request, so an edit shows at the next fetch. Requests under way when `shutdown` completes
/// are answered to their end.
///
/// | request | answer |
/// |---|---|
/// | `/NAME` | the file, media type by its extension, ETag from its bytes, Last-Modified from the file system |
/// | `/generated/N.rss` | [`GeneratedFeed`] of N items; `?bytes=` per item, `?seed=`, `?edited=` (number of an item, from 0) |
/// | with `If-None-Match` or `If-Modified-Since` | 304 if that is what we have; the first is the one that counts (RFC 9110 §13.2.2) |
/// | anything else | 404, or 400 with a line that says what is accepted |
///
/// # Errors
/// Never in practice: `axum` handles failed connections itself.
pub async fn serve(
    listener: tokio::net::TcpListener,
    folder: PathBuf,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let app = Router::new().route("/{name}", get(file)).route("/generated/{name}", get(generated)).with_state(Arc::<
        Path,
    >::from(
        folder
    ));
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await
}

async fn file(
    State(folder): State<Arc<Path>>,
    extract::Path(name): extract::Path<String>,
    headers: HeaderMap,
) -> Result<Response, DemoError> {
    if !is_plain_name(&name) {
        return Err(DemoError::NoSuchFile { name });
    }
    let path = folder.join(&name);
    let read = async {
        // The date first: if the file is written in between, the next request asks again and gets the new bytes.
        let modified = tokio::fs::metadata(&path).await?.modified()?;
        Ok::<_, io::Error>((modified, tokio::fs::read(&path).await?))
    };
    let (modified, bytes) = read.await.map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => DemoError::NoSuchFile { name: name.clone() },
        _ => DemoError::Unreadable { name: name.clone(), cause },
    })?;
    let validators = Validators {
        etag: format!("\"{:016x}\"", xxh3_64(&bytes)),
        // HTTP dates have no fractions; one kept here would make every date of a client look older.
        modified: Timestamp::try_from(modified).ok().and_then(|modified| {
            modified.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Trunc)).ok()
        }),
    };
    Ok(validators.answer(&headers, media_type(&name), || Body::from(bytes)))
}

async fn generated(
    extract::Path(name): extract::Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, DemoError> {
    let feed = requested_feed(&name, query.as_deref().unwrap_or_default())?;
    let GeneratedFeed { items, item_bytes, seed, edited } = feed;
    let mut etag = format!("\"generated-{}-{items}-{item_bytes}-{seed}", env!("CARGO_PKG_VERSION"));
    if let Some(edited) = edited {
        write!(etag, "-{edited}").expect("a String takes everything");
    }
    etag.push('"');
    let validators = Validators { etag, modified: None };
    Ok(validators
        .answer(&headers, media_type(&name), || Body::from_stream(stream::iter(feed.parts().map(Ok::<_, io::Error>)))))
}

/// What a client may send back to ask whether it has the newest version.
struct Validators {
    etag: String,
    /// To the second.
    modified: Option<Timestamp>,
}

impl Validators {
    /// The body, or 304 when the client's headers show that it has this version.
    fn answer(self, request: &HeaderMap, media_type: &'static str, body: impl FnOnce() -> Body) -> Response {
        let modified = self
            .modified
            .and_then(|modified| rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&modified).ok());
        let mut response = if self.match_client(request) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, media_type)], body()).into_response()
        };
        for (name, value) in [(header::ETAG, Some(self.etag)), (header::LAST_MODIFIED, modified)] {
            if let Some(value) = value.and_then(|value| value.parse().ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    fn match_client(&self, request: &HeaderMap) -> bool {
        if let Some(tags) = request.get(header::IF_NONE_MATCH) {
            let Ok(tags) = tags.to_str() else { return false };
            return tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == self.etag);
        }
        let since = request.get(header::IF_MODIFIED_SINCE).and_then(|since| since.to_str().ok());
        let since = since.and_then(|since| rfc2822::DateTimeParser::new().parse_timestamp(since).ok());
        matches!((since, self.modified), (Some(since), Some(modified)) if modified <= since)
    }
}

/// A name that stays in the folder on every system: no separator, no `..`, no hidden file.
fn is_plain_name(name: &str) -> bool {
    !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Without a charset: it would overrule the encoding that the document itself declares.
fn media_type(name: &str) -> &'static str {
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("rss") => "application/rss+xml",
        Some("atom") => "application/atom+xml",
        Some("rdf") => "application/rdf+xml",
        Some("xml" | "opml") => "application/xml",
        Some("json") => "application/feed+json",
        Some("html") => "text/html",
        _ => "application/octet-stream",
    }
}

fn requested_feed(name: &str, query: &str) -> Result<GeneratedFeed, DemoError> {
    let items = name.strip_suffix(".rss").ok_or_else(|| DemoError::NoSuchFeed { name: name.to_owned() })?;
    let mut feed = GeneratedFeed::new(at_most(ITEMS_MAX, "the number of items", items)?);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "bytes" => feed.item_bytes = at_most(ITEM_BYTES_MAX, "bytes", &value)?,
            "seed" => feed.seed = number("seed", &value)?,
            "edited" => feed.edited = Some(number("edited", &value)?),
            _ => return Err(DemoError::UnknownParameter { key: key.into_owned() }),
        }
    }
    Ok(feed)
}

fn number<T: FromStr>(key: &'static str, value: &str) -> Result<T, DemoError> {
    value.parse().map_err(|_| DemoError::NotANumber { key, value: value.to_owned() })
}

fn at_most(limit: usize, key: &'static str, value: &str) -> Result<usize, DemoError> {
    let parsed = number(key, value)?;
    if parsed > limit { Err(DemoError::TooLarge { key, value: parsed, limit }) } else { Ok(parsed) }
}

/// Why a request is not answered with a feed.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("there is no file {name:?} in the folder that is served")]
    NoSuchFile { name: String },

    #[error("cannot read {name:?}")]
    Unreadable {
        name: String,
        #[source]
        cause: io::Error,
    },

    #[error("no generated feed {name:?}; ask for a number of items, as in /generated/1000.rss")]
    NoSuchFeed { name: String },

    #[error("{key} must be a whole number, not {value:?}")]
    NotANumber { key: &'static str, value: String },

    #[error("{key} must be at most {limit}, not {value}")]
    TooLarge { key: &'static str, value: usize, limit: usize },

    #[error("unknown parameter {key:?}; accepted: bytes, seed, edited")]
    UnknownParameter { key: String },
}

impl IntoResponse for DemoError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NoSuchFile { .. } | Self::NoSuchFeed { .. } => StatusCode::NOT_FOUND,
            Self::Unreadable { name, cause } => {
                tracing::warn!(file = name, error = %cause, "cannot read {name:?}: {cause}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::NotANumber { .. } | Self::TooLarge { .. } | Self::UnknownParameter { .. } => StatusCode::BAD_REQUEST,
        };
        (status, format!("{self}\n")).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::SocketAddr};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    /// A server on a free port over a folder of its own, stopped by [`Server::stop`].
    struct Server {
        address: SocketAddr,
        folder: tempfile::TempDir,
        stop: oneshot::Sender<()>,
        task: JoinHandle<io::Result<()>>,
    }

    impl Server {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("jobs.rss"), "<rss>one</rss>").unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, stopped) = oneshot::channel();
            let task = tokio::spawn(serve(listener, folder.path().to_owned(), async { stopped.await.unwrap() }));
            Self { address, folder, stop, task }
        }

        /// Sends one GET as it is written, for a client library would tidy up the paths, and returns the answer.
        async fn get(&self, path: &str, headers: &str) -> Answer {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            Answer { head: head.to_owned(), body: body.to_owned() }
        }

        async fn stop(self) {
            self.stop.send(()).unwrap();
            self.task.await.unwrap().unwrap();
        }
    }

    struct Answer {
        head: String,
        body: String,
    }

    impl Answer {
        fn status(&self) -> &str {
            self.head.split(' ').nth(1).unwrap()
        }

        fn header(&self, name: &str) -> &str {
            let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).unwrap_or_else(|| panic!("no {name}")).1
        }
    }

    #[tokio::test]
    async fn a_file_comes_with_media_type_and_validators() {
        let server = Server::start().await;
        let answer = server.get("/jobs.rss", "").await;
        assert_eq!(answer.status(), "200");
        assert_eq!(answer.body, "<rss>one</rss>");
        assert_eq!(answer.header("content-type"), "application/rss+xml");
        assert!(answer.header("etag").starts_with('"'));
        assert!(answer.header("last-modified").ends_with(" GMT"));
        server.stop().await;
    }

    #[tokio::test]
    async fn a_client_that_has_the_file_gets_a_304_until_the_file_is_edited() {
        let server = Server::start().await;
        let first = server.get("/jobs.rss", "").await;
        let by_tag = format!("If-None-Match: \"other\", W/{}\r\n", first.header("etag"));
        let by_date = format!("If-Modified-Since: {}\r\n", first.header("last-modified"));
        for headers in [&by_tag, &by_date] {
            let answer = server.get("/jobs.rss", headers).await;
            assert_eq!((answer.status(), answer.body.as_str()), ("304", ""));
            assert_eq!(answer.header("etag"), first.header("etag"));
        }
        fs::write(server.folder.path().join("jobs.rss"), "<rss>two</rss>").unwrap();
        // Both edits may fall into one second, which the date cannot tell apart; the tag must, and it comes first.
        let answer = server.get("/jobs.rss", &format!("{by_tag}{by_date}")).await;
        assert_eq!((answer.status(), answer.body.as_str()), ("200", "<rss>two</rss>"));
        server.stop().await;
    }

    #[tokio::test]
    async fn no_path_leads_out_of_the_folder() {
        let server = Server::start().await;
        let outside = server.folder.path().with_extension("outside");
        fs::write(&outside, "secret").unwrap();
        let name = outside.file_name().unwrap().to_str().unwrap();
        fs::write(server.folder.path().join(".hidden"), "secret").unwrap();
        fs::create_dir(server.folder.path().join("folder")).unwrap();
        let up = format!("/../{name}");
        let escaped = format!("/..%2f{name}");
        for path in [up.as_str(), &escaped, "/.hidden", "/folder", "/folder/", "/..", "/", "/a/b.rss", "/missing.rss"] {
            let answer = server.get(path, "").await;
            assert_eq!(answer.status(), "404", "{path}");
            assert!(!answer.body.contains("secret"));
        }
        fs::remove_file(outside).unwrap();
        server.stop().await;
    }

    #[tokio::test]
    async fn a_generated_feed_is_served_whole_and_with_a_304() {
        let server = Server::start().await;
        let path = "/generated/40.rss?seed=3&bytes=2000&edited=5";
        let answer = server.get(path, "").await;
        assert_eq!(answer.status(), "200");
        assert_eq!(answer.body.matches("<item>").count(), 40);
        assert_eq!(answer.body.matches("(edited)").count(), 1);
        let known = format!("If-None-Match: {}\r\n", answer.header("etag"));
        assert_eq!(server.get(path, &known).await.status(), "304");
        let other = server.get("/generated/40.rss?seed=3&bytes=2000&edited=6", &known).await;
        assert_eq!(other.status(), "200");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_wrong_request_for_a_generated_feed_is_told_what_is_accepted() {
        let server = Server::start().await;
        for (path, status, told) in [
            ("/generated/many.rss", "400", "the number of items must be a whole number, not \"many\""),
            ("/generated/9.xml", "404", "/generated/1000.rss"),
            ("/generated/9.rss?seed=-1", "400", "seed must be a whole number, not \"-1\""),
            ("/generated/9.rss?bytes=99999999", "400", "bytes must be at most 4194304, not 99999999"),
            ("/generated/9.rss?sed=1", "400", "accepted: bytes, seed, edited"),
        ] {
            let answer = server.get(path, "").await;
            assert_eq!(answer.status(), status, "{path}");
            assert!(answer.body.contains(told), "{path}: {}", answer.body);
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn shutdown_ends_the_server() {
        let server = Server::start().await;
        let address = server.address;
        server.stop().await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
