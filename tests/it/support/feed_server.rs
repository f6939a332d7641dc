//! A web server whose pages a test sets, changes and breaks, and which remembers what it was asked for.
//!
//! A page has an `ETag` made of its body and answers 304 to who knows it, unless the test says otherwise. The server
//! runs on a thread of its own, so that a test that blocks its runtime (starting a server) does not stop the feeds.

use std::{
    collections::HashMap,
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use feedmill::demo::GeneratedFeed;
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

/// One answer of the server.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    status: u16,
    body: Arc<[u8]>,
    headers: Vec<(&'static str, String)>,
    has_etag: bool,
    delay: Duration,
    end: End,
}

/// How a body ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Whole,
    /// The connection stays open, and nothing more comes.
    Stalls,
    /// It begins anew for ever.
    Never,
    /// The connection breaks before what was announced has come.
    BreaksOff,
}

impl Page {
    /// A page with status 200.
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        let body: Vec<u8> = body.into();
        Self {
            status: 200,
            body: body.into(),
            headers: Vec::new(),
            has_etag: true,
            delay: Duration::ZERO,
            end: End::Whole,
        }
    }

    /// An error of the server.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, has_etag: false, ..Self::new("no feed here") }
    }

    /// A redirect.
    pub(crate) fn redirect(status: u16, to: &str) -> Self {
        Self { headers: vec![("location", to.to_owned())], ..Self::status(status) }
    }

    /// An RSS feed of items with a guid and a title.
    pub(crate) fn rss(items: &[(&str, &str)]) -> Self {
        Self::new(rss(items))
    }

    /// A generated feed of many items.
    pub(crate) fn generated(feed: GeneratedFeed) -> Self {
        let mut rss = Vec::new();
        feed.write_to(&mut rss).unwrap();
        Self::new(rss)
    }

    /// Its body, as it is now.
    pub(crate) fn body(&self) -> Vec<u8> {
        self.body.to_vec()
    }

    /// The answer has this header.
    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// An HTML page with a link.
    pub(crate) fn html(link: &str) -> Self {
        Self::new(format!("<!doctype html><html><head><title>Jobs</title>{link}</head><body>none</body></html>"))
    }

    /// The body, packed by `pack`, with its `Content-Encoding`.
    pub(crate) fn packed(self, encoding: &str, pack: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        Self { body: pack(&self.body).into(), ..self }.with_header("content-encoding", encoding)
    }

    /// Its `ETag` is not its own.
    pub(crate) fn without_etag(self) -> Self {
        Self { has_etag: false, ..self }
    }

    /// Nothing comes after the body, and the connection stays open.
    pub(crate) fn stalling(self) -> Self {
        Self { end: End::Stalls, ..self }
    }

    /// The body begins anew for ever.
    pub(crate) fn endless(self) -> Self {
        Self { end: End::Never, ..self }
    }

    /// The connection breaks in the middle of the body.
    pub(crate) fn breaking_off(self) -> Self {
        Self { end: End::BreaksOff, ..self }
    }

    /// The answer comes after `delay`.
    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.body.hash(&mut hasher);
        format!("\"{:x}\"", hasher.finish())
    }
}

/// An RSS feed of items with a guid and a title.
pub(crate) fn rss(items: &[(&str, &str)]) -> String {
    let mut rss = String::from("<rss version=\"2.0\"><channel><title>test</title>");
    for (guid, title) in items {
        write!(rss, "<item><guid isPermaLink=\"false\">{guid}</guid><title>{title}</title></item>").unwrap();
    }
    rss + "</channel></rss>"
}

/// A small generated feed: `items` items of about 1 KiB with this seed.
pub(crate) fn small_items(items: usize, seed: u64) -> GeneratedFeed {
    GeneratedFeed { item_bytes: 0, seed, ..GeneratedFeed::new(items) }
}

/// A request the server got.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Path it was for.
    pub(crate) path: String,
    /// Whether it knew an earlier answer.
    pub(crate) is_conditional: bool,
    /// When it came.
    pub(crate) at: Instant,
    /// Status of the answer.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: HeaderMap,
}

#[derive(Default)]
struct Site {
    pages: HashMap<String, Page>,
    asked: Vec<Asked>,
    /// Requests under way, and the most there were at a time, by host.
    busy: HashMap<String, (usize, usize)>,
}

/// The server; it ends when it is dropped.
pub(crate) struct FeedServer {
    address: SocketAddr,
    site: Arc<Mutex<Site>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl FeedServer {
    /// Starts it on a free port, without pages: every path is 404.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (site, stop) = (Arc::<Mutex<Site>>::default(), CancellationToken::new());
        let (served, stopped) = (site.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let router = Router::new().fallback(answer).with_state(served);
                // A graceful shutdown would wait for keep-alive connections.
                stopped.run_until_cancelled(async { axum::serve(listener, router).await }).await;
            });
        });
        Self { address, site, stop, thread: Some(thread) }
    }

    /// URL of a path (`/feed.xml`).
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts a page at a path, in place of what was there.
    pub(crate) fn put(&self, path: &str, page: Page) {
        self.site.lock().unwrap().pages.insert(path.to_owned(), page);
    }

    /// What it was asked for so far, oldest first.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.site.lock().unwrap().asked.clone()
    }

    /// The most requests that were under way at a time, by the host they were for.
    pub(crate) fn busiest(&self) -> HashMap<String, usize> {
        let site = self.site.lock().unwrap();
        site.busy.iter().map(|(host, (_, most))| (host.clone(), *most)).collect()
    }

    /// What it was asked for at this path.
    pub(crate) fn asked_for(&self, path: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path == path).collect()
    }
}

impl Drop for FeedServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic in it has failed its request, and so the test
        }
    }
}

async fn answer(State(site): State<Arc<Mutex<Site>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap().to_owned()).unwrap_or_default();
    let (page, response) = {
        let mut site = site.lock().unwrap();
        let page = site.pages.get(&path).cloned().unwrap_or_else(|| Page::status(404));
        let response = response(&page, request.headers());
        let is_conditional = request.headers().contains_key(header::IF_NONE_MATCH);
        let (status, headers) = (response.status().as_u16(), request.headers().clone());
        site.asked.push(Asked { path, is_conditional, at: Instant::now(), status, headers });
        let (now, most) = site.busy.entry(host.clone()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        (page, response)
    };
    tokio::time::sleep(page.delay).await;
    site.lock().unwrap().busy.get_mut(&host).unwrap().0 -= 1;
    response
}

fn response(page: &Page, asked: &HeaderMap) -> Response {
    let etag = page.etag();
    let is_known = page.has_etag && asked.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag.as_str());
    let mut response = Response::builder();
    if page.has_etag {
        response = response.header(header::ETAG, etag);
    }
    for (name, value) in &page.headers {
        response = response.header(*name, value);
    }
    let (status, body) =
        if is_known { (StatusCode::NOT_MODIFIED.as_u16(), Vec::new()) } else { (page.status, page.body.to_vec()) };
    let chunk = Bytes::from(body);
    let begun = stream::once(std::future::ready(Ok(chunk.clone())));
    let body = match page.end {
        End::Whole => Body::from(chunk),
        End::Stalls => Body::from_stream(begun.chain(stream::pending::<Result<Bytes, io::Error>>())),
        End::Never => Body::from_stream(stream::repeat_with(move || Ok::<_, io::Error>(chunk.clone()))),
        End::BreaksOff => Body::from_stream(begun.chain(stream::iter([Err(io::Error::other("it breaks off"))]))),
    };
    response.status(status).body(body).unwrap()
}
