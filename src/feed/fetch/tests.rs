//! Against a real HTTP server on a free port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

use super::{
    Cause, Credentials, FetchError, FetchLimits, FetchRequest, Fetched, Fetcher, Kept, Network, Networks, Next, Proxy,
    Validators, fresh_for, is_same_host, retry_after,
};

const DOCUMENT: &str = "<rss><channel><title>Grüße</title></channel></rss>";

/// Serves `routes` until the test ends.
async fn serve(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

fn request(address: SocketAddr, path: &str) -> FetchRequest {
    FetchRequest {
        url: format!("http://{address}{path}").parse().expect("is a URL"),
        moved_to: None,
        headers: BTreeMap::new(),
        credentials: None,
        validators: Validators::default(),
        allow_private: true,
        proxy: None,
    }
}

fn fetcher(limits: FetchLimits) -> Fetcher {
    Fetcher::new(limits).expect("a client")
}

async fn fetch(address: SocketAddr, path: &str) -> Result<Fetched, FetchError> {
    fetcher(FetchLimits::default()).fetch(&request(address, path)).await
}

async fn body(address: SocketAddr, path: &str) -> Vec<u8> {
    match fetch(address, path).await.expect(path) {
        Fetched::Body { bytes, .. } => bytes.to_vec(),
        Fetched::NotModified { .. } => panic!("{path} is not modified"),
    }
}

/// Where the feed ended up, as paths: of the answer, and of the new address.
async fn journey(address: SocketAddr, path: &str) -> (String, Option<String>) {
    match fetch(address, path).await.expect(path) {
        Fetched::Body { final_url, moved_to, .. } => {
            (final_url.path().to_owned(), moved_to.map(|url| url.path().to_owned()))
        }
        Fetched::NotModified { .. } => panic!("{path} is not modified"),
    }
}

fn redirect(status: StatusCode, location: &'static str) -> Response {
    (status, [(header::LOCATION, location)]).into_response()
}

#[tokio::test]
async fn a_body_comes_with_type_validators_and_our_name() {
    let routes = Router::new().route(
        "/feed",
        get(|headers: HeaderMap| async move {
            assert!(headers[header::USER_AGENT].to_str().expect("is text").starts_with("feedmill/"));
            assert!(headers[header::ACCEPT].to_str().expect("is text").contains("application/atom+xml"));
            assert_eq!(headers["x-token"], "s3cret");
            assert!(!headers.contains_key(header::IF_NONE_MATCH));
            let answer = [
                (header::CONTENT_TYPE, "application/rss+xml; charset=utf-8"),
                (header::ETAG, "W/\"1\""),
                (header::LAST_MODIFIED, "Sat, 01 Nov 2025 08:30:15 GMT"),
            ];
            (answer, DOCUMENT)
        }),
    );
    let mut request = request(serve(routes).await, "/feed");
    request.headers.insert("X-Token".to_owned(), "s3cret".to_owned());
    let fetched = fetcher(FetchLimits::default()).fetch(&request).await.expect("a body");
    let validators = Validators {
        etag: Some("W/\"1\"".to_owned()),
        last_modified: Some("Sat, 01 Nov 2025 08:30:15 GMT".to_owned()),
    };
    assert_eq!(
        fetched,
        Fetched::Body {
            bytes: DOCUMENT.into(),
            content_type: Some("application/rss+xml; charset=utf-8".to_owned()),
            validators,
            final_url: request.url,
            moved_to: None,
            fresh_for: None,
            status: 200,
        }
    );
}

#[tokio::test]
async fn a_304_keeps_the_validators_it_does_not_replace() {
    let routes = Router::new().route(
        "/feed",
        get(|headers: HeaderMap| async move {
            assert_eq!(headers[header::IF_NONE_MATCH], "\"1\"");
            assert_eq!(headers[header::IF_MODIFIED_SINCE], "yesterday");
            (StatusCode::NOT_MODIFIED, [(header::ETAG, "\"2\"")])
        }),
    );
    let mut request = request(serve(routes).await, "/feed");
    request.validators = Validators { etag: Some("\"1\"".to_owned()), last_modified: Some("yesterday".to_owned()) };
    let fetched = fetcher(FetchLimits::default()).fetch(&request).await.expect("an answer");
    let validators = Validators { etag: Some("\"2\"".to_owned()), last_modified: Some("yesterday".to_owned()) };
    assert_eq!(fetched, Fetched::NotModified { validators, final_url: request.url, moved_to: None, fresh_for: None });
}

#[tokio::test]
async fn a_304_nobody_asked_for_is_an_error_that_is_retried() {
    let address = serve(Router::new().route("/feed", get(|| async { StatusCode::NOT_MODIFIED }))).await;
    let error = fetch(address, "/feed").await.expect_err("no document");
    assert!(matches!(error, FetchError::Status { status: 304, .. }));
    assert_eq!(error.next(), Next::Retry);
}

#[tokio::test]
async fn the_permanent_redirects_a_chain_begins_with_are_remembered() {
    let routes = Router::new()
        .route("/feed", get(|| async { DOCUMENT }))
        .route("/gone", get(|| async { Redirect::permanent("/feed") }))
        .route("/older", get(|| async { redirect(StatusCode::MOVED_PERMANENTLY, "gone") }))
        .route("/today", get(|| async { redirect(StatusCode::FOUND, "/feed") }))
        .route("/moved-then-today", get(|| async { redirect(StatusCode::MOVED_PERMANENTLY, "/today#x") }))
        .route("/today-then-moved", get(|| async { Redirect::temporary("/older") }));
    let address = serve(routes).await;
    let expect = |end: &str, moved: Option<&str>| (end.to_owned(), moved.map(str::to_owned));
    assert_eq!(journey(address, "/gone").await, expect("/feed", Some("/feed")));
    assert_eq!(journey(address, "/older").await, expect("/feed", Some("/feed")));
    assert_eq!(journey(address, "/today").await, expect("/feed", None));
    assert_eq!(journey(address, "/moved-then-today").await, expect("/feed", Some("/today")));
    assert_eq!(journey(address, "/today-then-moved").await, expect("/feed", None));
}

#[tokio::test]
async fn the_credentials_of_the_address_go_along_within_its_host() {
    let routes = Router::new().route("/feed", get(|| async { Redirect::permanent("/feed/") })).route(
        "/feed/",
        get(|headers: HeaderMap| async move {
            // "ada:p@ss"
            assert_eq!(headers[header::AUTHORIZATION], "Basic YWRhOnBAc3M=");
            DOCUMENT
        }),
    );
    let mut request = request(serve(routes).await, "/feed");
    request.url.set_username("ada").expect("an http URL");
    request.url.set_password(Some("p@ss")).expect("an http URL");
    let fetched = fetcher(FetchLimits::default()).fetch(&request).await.expect("a body");
    assert!(matches!(fetched, Fetched::Body { status: 200, .. }));
}

#[tokio::test]
async fn headers_of_a_feed_do_not_follow_it_to_where_it_has_moved() {
    let routes = Router::new().route(
        "/new",
        get(|headers: HeaderMap| async move {
            assert!(!headers.contains_key("x-token"), "it is for the host of the configured address");
            DOCUMENT
        }),
    );
    let moved_to = request(serve(routes).await, "/new").url;
    let mut request = request(serve(Router::new()).await, "/feed");
    request.headers.insert("X-Token".to_owned(), "s3cret".to_owned());
    request.moved_to = Some(moved_to.clone());
    match fetcher(FetchLimits::default()).fetch(&request).await.expect("a body from the new address") {
        Fetched::Body { final_url, .. } => assert_eq!(final_url, moved_to),
        Fetched::NotModified { .. } => panic!("nothing was conditional"),
    }
}

#[tokio::test]
async fn a_redirect_loop_ends_at_the_limit_and_for_good() {
    let address = serve(Router::new().route("/loop", get(|| async { Redirect::temporary("/loop") }))).await;
    let error = fetch(address, "/loop").await.expect_err("no document");
    assert_eq!(error.to_string(), format!("http://{address}/loop redirects more than 5 times"));
    assert_eq!(error.next(), Next::Fail);
}

#[tokio::test]
async fn the_headers_of_a_feed_do_not_leave_its_host() {
    let other = serve(
        Router::new()
            .route("/feed", get(|headers: HeaderMap| async move { format!("{}", headers.contains_key("x-token")) })),
    )
    .await;
    let home = serve(
        Router::new()
            .route("/away", get(move || async move { Redirect::temporary(&format!("http://{other}/feed")) }))
            .route("/near", get(|| async { Redirect::temporary("/echo") }))
            .route("/echo", get(|headers: HeaderMap| async move { format!("{}", headers.contains_key("x-token")) })),
    )
    .await;
    for (path, arrives) in [("/away", "false"), ("/near", "true")] {
        let mut request = request(home, path);
        request.headers.insert("x-token".to_owned(), "s3cret".to_owned());
        let fetched = fetcher(FetchLimits::default()).fetch(&request).await.expect(path);
        assert!(matches!(fetched, Fetched::Body { bytes, .. } if *bytes == *arrives.as_bytes()), "{path}");
    }
}

#[test]
fn an_upgrade_to_https_is_the_same_host() {
    let url = |text: &str| text.parse::<Url>().expect("is a URL");
    assert!(is_same_host(&url("http://a.example/x"), &url("https://a.example/y")));
    assert!(!is_same_host(&url("https://a.example/x"), &url("http://a.example/y")));
    assert!(!is_same_host(&url("http://a.example/x"), &url("http://a.example:81/y")));
    assert!(!is_same_host(&url("http://a.example/x"), &url("http://b.example/x")));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

fn encoded(encoding: &'static str, bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))], bytes).into_response()
}

#[tokio::test]
async fn every_content_encoding_is_undone() {
    let routes = Router::new()
        .route("/gzip", get(|| async { encoded("gzip", gzip(DOCUMENT.as_bytes())) }))
        .route(
            "/deflate",
            get(|| async {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(DOCUMENT.as_bytes()).expect("into memory");
                encoded("deflate", encoder.finish().expect("into memory"))
            }),
        )
        .route(
            "/raw-deflate",
            get(|| async {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(DOCUMENT.as_bytes()).expect("into memory");
                encoded("deflate", encoder.finish().expect("into memory"))
            }),
        )
        .route(
            "/br",
            get(|| async {
                let mut bytes = Vec::new();
                let mut encoder = brotli::CompressorWriter::new(&mut bytes, 4096, 5, 22);
                encoder.write_all(DOCUMENT.as_bytes()).expect("into memory");
                drop(encoder);
                encoded("br", bytes)
            }),
        )
        .route(
            "/zstd",
            get(|| async { encoded("zstd", zstd::encode_all(DOCUMENT.as_bytes(), 3).expect("into memory")) }),
        );
    let address = serve(routes).await;
    for path in ["/gzip", "/deflate", "/raw-deflate", "/br", "/zstd"] {
        assert_eq!(body(address, path).await, DOCUMENT.as_bytes(), "{path}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not_and_packed_or_not() {
    let routes = Router::new()
        .route("/fits", get(|| async { "x".repeat(1000) }))
        .route("/announced", get(|| async { "x".repeat(1001) }))
        .route(
            "/endless",
            get(|| async { Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>("x".repeat(100)))) }),
        )
        // 64 MiB of nothing in 64 KiB.
        .route("/bomb", get(|| async { encoded("gzip", gzip(&vec![0; 64 * 1024 * 1024])) }))
        .route(
            "/deflate-bomb",
            get(|| async {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(&vec![0; 500_000]).expect("into memory");
                encoded("deflate", encoder.finish().expect("into memory"))
            }),
        );
    let address = serve(routes).await;
    let fetcher = fetcher(FetchLimits { body_max_bytes: 1000, ..FetchLimits::default() });
    fetcher.fetch(&request(address, "/fits")).await.expect("just fits");
    for path in ["/announced", "/endless", "/bomb", "/deflate-bomb"] {
        let error = fetcher.fetch(&request(address, path)).await.expect_err(path);
        assert_eq!(
            error.to_string(),
            format!("http://{address}{path} is larger than 1000 bytes, the limit set by fetch.body_max")
        );
        assert_eq!(error.next(), Next::Fail);
    }
}

#[tokio::test]
async fn a_body_that_stalls_meets_the_total_timeout() {
    let stalled = || async {
        let start = stream::once(async { Ok::<_, Infallible>("<rss>") });
        Body::from_stream(start.chain(stream::pending()))
    };
    let address = serve(Router::new().route("/stalled", get(stalled))).await;
    let limits = FetchLimits { total_timeout: Duration::from_millis(100), ..FetchLimits::default() };
    let error = fetcher(limits).fetch(&request(address, "/stalled")).await.expect_err("never ends");
    assert_eq!(error.to_string(), format!("fetching http://{address}/stalled took longer than 100ms"));
    assert_eq!(error.next(), Next::Retry);
}

/// Announces more than it sends.
async fn serve_half() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        // The request is read first: closing a socket with unread bytes resets it and may take the answer along.
        let request_bytes = client.read(&mut [0; 4096]).await.expect("a request");
        assert!(request_bytes > 0);
        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n<rss/>").await.expect("is read");
    });
    address
}

#[tokio::test]
async fn a_packed_body_that_is_cut_off_gives_what_there_is_and_says_so() {
    let half = |bytes: Vec<u8>| bytes[..bytes.len() - 12].to_vec();
    let deflated = || {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(DOCUMENT.as_bytes()).expect("into memory");
        encoder.finish().expect("into memory")
    };
    let routes = Router::new()
        .route("/gzip", get(move || async move { encoded("gzip", half(gzip(DOCUMENT.as_bytes()))) }))
        .route("/deflate", get(move || async move { encoded("deflate", half(deflated())) }))
        .route("/whole", get(|| async { encoded("gzip", gzip(DOCUMENT.as_bytes())) }));
    let address = serve(routes).await;
    for (path, is_cut_off) in [("/gzip", true), ("/deflate", true), ("/whole", false)] {
        let Fetched::Body { bytes, .. } = fetch(address, path).await.expect(path) else { panic!("{path}") };
        assert_eq!(bytes.is_cut_off(), is_cut_off, "{path}");
        assert!(!bytes.is_empty() && DOCUMENT.as_bytes().starts_with(&bytes), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_no_short_document() {
    let packed = serve(Router::new().route("/", get(|| async { encoded("gzip", b"this is no gzip".to_vec()) }))).await;
    for address in [serve_half().await, packed] {
        let error = fetch(address, "/").await.expect_err("no document");
        assert_eq!(error.to_string(), format!("cannot read the body of http://{address}/"));
        assert_eq!(error.next(), Next::Retry);
    }
}

#[tokio::test]
async fn a_status_says_whether_to_come_back_and_when() {
    let busy = |wait: &'static str| move || async move { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", wait)]) };
    let routes = Router::new()
        .route("/seconds", get(busy("120")))
        .route("/days", get(busy("864000")))
        .route("/now", get(busy("0")))
        .route("/past", get(busy("Sun, 06 Nov 1994 08:49:37 GMT")))
        .route("/future", get(busy("Tue, 31 Dec 2999 23:59:59 GMT")))
        .route("/nonsense", get(busy("soon")))
        .route("/unavailable", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "7")]) }))
        .route("/error", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/slow", get(|| async { StatusCode::REQUEST_TIMEOUT }))
        .route("/forbidden", get(|| async { (StatusCode::FORBIDDEN, [("retry-after", "7")]) }))
        .route("/away", get(|| async { StatusCode::GONE }))
        .route("/nowhere", get(|| async { StatusCode::FOUND }));
    let address = serve(routes).await;
    for (path, next) in [
        ("/seconds", Next::RetryAfter(Duration::from_mins(2))),
        ("/days", Next::RetryAfter(Duration::from_hours(1))),
        ("/now", Next::Retry),
        ("/past", Next::Retry),
        ("/future", Next::RetryAfter(Duration::from_hours(1))),
        ("/nonsense", Next::Retry),
        ("/unavailable", Next::RetryAfter(Duration::from_secs(7))),
        ("/error", Next::Retry),
        ("/slow", Next::Retry),
        ("/forbidden", Next::Fail),
        ("/away", Next::Stop),
        ("/nowhere", Next::Fail),
        ("/not-there", Next::Fail),
    ] {
        let error = fetch(address, path).await.expect_err(path);
        assert!(matches!(error, FetchError::Status { .. }), "{path}: {error}");
        assert_eq!(error.next(), next, "{path}");
    }
}

#[test]
fn retry_after_is_read_as_seconds_and_as_a_date() {
    assert_eq!(retry_after(&HeaderValue::from_static(" 5 ")), Some(Duration::from_secs(5)));
    let in_a_minute = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(1);
    let date = jiff::fmt::rfc2822::to_string(&in_a_minute.to_zoned(jiff::tz::TimeZone::UTC)).expect("is a date");
    let wait = retry_after(&HeaderValue::try_from(date).expect("is a header")).expect("is a wait");
    assert!(wait > Duration::from_secs(55) && wait <= Duration::from_mins(1), "{wait:?}");
    assert_eq!(retry_after(&HeaderValue::from_static("-5")), None);
}

#[test]
fn how_long_an_answer_is_fresh_is_read_from_its_headers() {
    let minutes = |minutes: u64| Some(Duration::from_mins(minutes));
    let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    for (headers, fresh) in [
        (vec![], None),
        (vec![("cache-control", "public, Max-Age=600")], minutes(10)),
        (vec![("cache-control", "max-age=600, no-store")], None),
        (vec![("cache-control", "no-cache"), date, ("expires", "Sun, 06 Nov 1994 09:49:37 GMT")], None),
        (vec![date, ("expires", "Sun, 06 Nov 1994 09:49:37 GMT")], minutes(60)),
        (vec![("cache-control", "max-age=60"), date, ("expires", "Sun, 06 Nov 1994 09:49:37 GMT")], minutes(1)),
        (vec![date, ("expires", "Sun, 06 Nov 1994 07:49:37 GMT")], None),
        (vec![("expires", "0")], None),
        (vec![("cache-control", "max-age=soon")], None),
    ] {
        let map = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        assert_eq!(fresh_for(&map.collect()), fresh, "{headers:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    drop(listener);
    let error = fetch(address, "/feed").await.expect_err("nobody listens");
    assert!(matches!(error, FetchError::Unreachable { cause: Cause::Connect, .. }), "{error:?}");
    assert_eq!(error.next(), Next::Retry);

    let mut unknown = request(address, "/feed");
    unknown.url = "http://no-such-host.invalid/feed".parse().expect("is a URL");
    let error = fetcher(FetchLimits::default()).fetch(&unknown).await.expect_err("is reserved as unknown");
    assert!(matches!(error, FetchError::Unreachable { cause: Cause::Dns, .. }), "{error:?}");

    let plain = serve(Router::new()).await;
    let mut encrypted = request(plain, "/feed");
    encrypted.url.set_scheme("https").expect("http and https may be exchanged");
    let error = fetcher(FetchLimits::default()).fetch(&encrypted).await.expect_err("the server speaks no TLS");
    assert!(matches!(error, FetchError::Unreachable { cause: Cause::Tls, .. }), "{error:?}");
}

#[tokio::test]
async fn credentials_do_not_appear_in_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    drop(listener);
    let mut request = request(address, "/feed");
    request.url = format!("http://ann:s3cret@{address}/feed").parse().expect("is a URL");
    let error = fetcher(FetchLimits::default()).fetch(&request).await.expect_err("nobody listens");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");

    request.headers.insert("x token".to_owned(), "s3cret".to_owned());
    assert!(!format!("{request:?}").contains("s3cret"), "{request:?}");
    let error = fetcher(FetchLimits::default()).fetch(&request).await.expect_err("no header name");
    assert!(error.to_string().starts_with("header \"x token\""), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    assert_eq!(error.next(), Next::Fail);
}

#[tokio::test]
async fn only_http_is_fetched_and_only_http_is_followed() {
    let address =
        serve(Router::new().route("/file", get(|| async { Redirect::temporary("file:///etc/passwd") }))).await;
    let error = fetch(address, "/file").await.expect_err("no web address");
    assert_eq!(error.to_string(), "cannot fetch file:///etc/passwd: its scheme is file, it must be http or https");
    let mut ftp = request(address, "/");
    ftp.url = "ftp://a.example/feed".parse().expect("is a URL");
    let error = fetcher(FetchLimits::default()).fetch(&ftp).await.expect_err("no web address");
    assert_eq!(error.next(), Next::Fail);
}

#[tokio::test]
async fn a_large_body_waits_for_room_and_the_wait_does_not_count() {
    let large = || async { "x".repeat(2 * 1024 * 1024) };
    let request = request(serve(Router::new().route("/feed", get(large))).await, "/feed");
    let limit = Duration::from_millis(500);
    let fetcher = fetcher(FetchLimits { total_timeout: limit, ..FetchLimits::default() });
    let mut in_memory = Vec::new();
    for _ in 0..super::body::rooms() {
        in_memory.push(fetcher.fetch(&request).await.expect("there is room"));
    }
    let next = fetcher.fetch(&request);
    tokio::pin!(next);
    let waited = tokio::time::timeout(2 * limit, &mut next).await;
    assert!(waited.is_err(), "one more is in memory, or the wait has counted");
    in_memory.pop();
    next.await.expect("there is room again");
}

/// Every name but one leads to `address`.
struct Names(SocketAddr);

impl reqwest::dns::Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let found = if name.as_str() == "unknown.example" { vec![] } else { vec![self.0] };
        Box::pin(async move { Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs) })
    }
}

/// A request by somebody who may not ask private addresses.
fn outside(url: &str) -> FetchRequest {
    let mut request = request(SocketAddr::from(([127, 0, 0, 1], 1)), "/");
    request.url = url.parse().expect("is a URL");
    request.allow_private = false;
    request
}

#[tokio::test]
async fn a_private_address_is_refused_whether_it_is_a_number_a_name_or_a_redirect() {
    let address = serve(
        Router::new()
            .route("/feed", get(|| async { DOCUMENT }))
            .route("/metadata", get(|| async { redirect(StatusCode::FOUND, "http://169.254.169.254/latest/") }))
            .route("/inside", get(|| async { redirect(StatusCode::FOUND, "http://inside.example/") })),
    )
    .await;
    let port = address.port();
    // By number.
    let fetcher = fetcher(FetchLimits::default());
    for url in [format!("http://{address}/feed"), format!("http://[::1]:{port}/feed"), format!("http://127.1:{port}/")]
    {
        let error = fetcher.fetch(&outside(&url)).await.expect_err("is this machine");
        assert!(matches!(error, FetchError::Private { .. }), "{error:?}");
        assert!(error.to_string().contains("a loopback address; only a feed of streams.toml with allow_private"));
        assert_eq!(error.next(), Next::Fail);
    }
    // By name, of the system and of a hostile name server.
    let hostile = Fetcher::with_names(FetchLimits::default(), Arc::new(Names(address))).expect("a client");
    for (fetcher, url) in
        [(&fetcher, format!("http://localhost:{port}/feed")), (&hostile, format!("http://feeds.example:{port}/feed"))]
    {
        let error = fetcher.fetch(&outside(&url)).await.expect_err("is this machine");
        assert!(matches!(error, FetchError::Private { .. }), "{error:?}");
        let mut allowed = outside(&url);
        allowed.allow_private = true;
        fetcher.fetch(&allowed).await.expect("for those who mean it");
        // The connection that is open now is not for the others.
        fetcher.fetch(&outside(&url)).await.expect_err("is this machine");
    }
    // Behind a redirect of a server that may be asked.
    let networks = Networks::with(vec!["127.0.0.1".parse::<Network>().expect("is one")]);
    let limits = FetchLimits { networks, ..FetchLimits::default() };
    let inside = Fetcher::with_names(limits.clone(), Arc::new(Names(SocketAddr::from(([10, 0, 0, 1], 80)))));
    let inside = inside.expect("a client");
    for (path, kind) in
        [("/metadata", "169.254.169.254, a link-local address"), ("/inside", "10.0.0.1, a private address")]
    {
        let error = inside.fetch(&outside(&format!("http://{address}{path}"))).await.expect_err("is inside");
        assert!(error.to_string().contains(kind), "{error}");
    }
    inside.fetch(&outside(&format!("http://{address}/feed"))).await.expect("its network is allowed");
    let public = Fetcher::with_names(limits, Arc::new(Names(address))).expect("a client");
    public.fetch(&outside(&format!("http://feeds.example:{port}/feed"))).await.expect("its network is allowed");
}

#[tokio::test]
async fn a_proxy_is_asked_for_public_names_only() {
    let proxied = |headers: HeaderMap| async move { format!("{:?} {:?}", headers.get("host"), headers.get("x-token")) };
    let proxy = serve(Router::new().fallback(get(proxied))).await;
    let proxy = Proxy::Via(format!("http://{proxy}").parse().expect("is a URL"));
    for (address, is_fetched) in [([93, 184, 216, 34], true), ([10, 0, 0, 1], false)] {
        let names = Arc::new(Names(SocketAddr::from((address, 80))));
        let fetcher = Fetcher::with_names(FetchLimits::default(), names).expect("a client");
        let mut request = outside("http://feeds.example/feed");
        request.proxy = Some(proxy.clone());
        match fetcher.fetch(&request).await {
            Ok(Fetched::Body { bytes, .. }) => {
                assert!(is_fetched && bytes.starts_with(b"Some(\"feeds.example\")"), "{bytes:?}");
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(!is_fetched && matches!(error, FetchError::Private { .. }), "{error}"),
        }
        // What the proxy alone knows cannot be judged.
        request.url = "http://unknown.example/feed".parse().expect("is a URL");
        request.allow_private = true;
        fetcher.fetch(&request).await.expect("for those who mean it");
    }
}

#[tokio::test]
async fn a_password_and_a_token_are_read_for_each_fetch() {
    let routes = Router::new().route(
        "/feed",
        get(|headers: HeaderMap| async move { headers[header::AUTHORIZATION].to_str().expect("is text").to_owned() }),
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut request = request(serve(routes).await, "/feed");
    let fetcher = fetcher(FetchLimits::default());
    let kept = || Kept::File(file.path().to_owned());
    for (secret, credentials, sent) in [
        ("p@ss\n", Credentials::Basic { user: "ada".to_owned(), password: kept() }, "Basic YWRhOnBAc3M="),
        ("t0ken", Credentials::Bearer(kept()), "Bearer t0ken"),
        ("another", Credentials::Bearer(kept()), "Bearer another"),
    ] {
        std::fs::write(file.path(), secret).expect("is written");
        request.credentials = Some(credentials);
        match fetcher.fetch(&request).await.expect("a body") {
            Fetched::Body { bytes, .. } => assert_eq!(*bytes, *sent.as_bytes()),
            Fetched::NotModified { .. } => panic!("nothing was conditional"),
        }
    }
    request.credentials = Some(Credentials::Bearer(Kept::Env("FEEDMILL_TEST_IS_NOT_SET".to_owned())));
    let error = fetcher.fetch(&request).await.expect_err("there is no token");
    assert!(error.to_string().ends_with("the variable FEEDMILL_TEST_IS_NOT_SET is not set"), "{error}");
    assert_eq!(error.next(), Next::Fail);
}
