//! The parser as a whole: pairs of a feed and what is read from it, refusals, and input nobody wrote.

use std::error::Error as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Format, Hints, ParseError, ParsedFeed, parse};

/// Where the fixtures are said to come from.
const BASE_URL: &str = "https://feeds.example/dir/feed.xml";

/// `name.xml` or `name.jsonfeed` of each pair in `tests/fixtures/feeds`. Adding a pair is all a new case takes.
fn fixtures() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/feeds");
    let files = fs::read_dir(folder).expect("the fixtures are there").map(|file| file.expect("can be listed").path());
    let mut feeds: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "xml" || end == "jsonfeed")).collect();
    feeds.sort();
    assert!(!feeds.is_empty(), "no fixture in {folder}");
    feeds
}

fn parse_here(body: &[u8]) -> Result<ParsedFeed, ParseError> {
    let base_url = BASE_URL.parse().expect("is a URL");
    parse(body, &Hints { base_url: Some(&base_url), ..Hints::default() })
}

/// What a fixture's `.json` holds.
fn as_json(feed: &ParsedFeed) -> Value {
    json!({
        "format": feed.format.to_string(),
        "recovered": feed.recovered.as_ref().map(ToString::to_string),
        "title": feed.title,
        "unreadable_dates": feed.unreadable_dates,
        "items": feed.items,
    })
}

#[test]
fn each_fixture_is_read_as_its_json_says() {
    for path in fixtures() {
        let feed = parse_here(&fs::read(&path).expect("can be read")).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let expected = fs::read_to_string(path.with_extension("json")).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let expected: Value = serde_json::from_str(&expected).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let actual = as_json(&feed);
        assert_eq!(actual, expected, "{path:?} is read as\n{actual:#}");
    }
}

#[test]
fn items_get_their_source_feed_and_identity() {
    let rss = "<rss><channel><item><guid>1</guid></item><item><link>https://a.example/2</link></item>\
               <item><title>x</title></item></channel></rss>";
    let items = parse_here(rss.as_bytes()).expect("is a feed").into_items("s", "f");
    assert!(items.iter().all(|item| item.source == "s" && item.feed.as_deref() == Some("f")));
    assert_eq!(items[0].guid, "1");
    assert_eq!(items[1].guid, "https://a.example/2");
    assert!(items[2].guid.starts_with("hash:"), "{}", items[2].guid);
}

#[test]
fn a_feed_without_items_is_a_feed() {
    for (text, format) in [
        ("<rss/>", Format::Rss20),
        ("\n\n<?xml version='1.0'?><rss version='0.91'><channel/></rss>", Format::Rss091),
        ("<rss version='0.93'/>", Format::Rss092),
        ("<r:RDF xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#'/>", Format::Rss10),
        (
            "<r:RDF xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>\
             <channel xmlns='http://my.netscape.com/rdf/simple/0.9/'/></r:RDF>",
            Format::Rss090,
        ),
        ("<feed xmlns='http://www.w3.org/2005/Atom'/>", Format::Atom10),
        ("<feed xmlns='http://purl.org/atom/ns#'/>", Format::Atom03),
        ("{\"version\": \"https://jsonfeed.org/version/1\", \"items\": []}", Format::JsonFeed10),
        ("{\"version\": \"https://jsonfeed.org/version/1.1\", \"items\": []}", Format::JsonFeed11),
        (
            "<!DOCTYPE rss PUBLIC '-//Netscape Communications//DTD RSS 0.91//EN' 'http://x/rss-0.91.dtd'><rss/>",
            Format::Rss20,
        ),
        (
            "<!DOCTYPE rss [<!ENTITY nbsp '&#160;'>]><rss><channel><title>a&nbsp;b</title></channel></rss>",
            Format::Rss20,
        ),
    ] {
        let feed = parse_here(text.as_bytes()).expect(text);
        assert_eq!((feed.format, feed.items.len()), (format, 0), "{text}");
    }
}

#[test]
fn the_http_charset_reaches_the_text() {
    let hints = Hints { content_type: Some("text/xml; charset=iso-8859-1"), ..Hints::default() };
    let feed = parse(b"<rss><channel><title>caf\xE9</title></channel></rss>", &hints).expect("is a feed");
    assert_eq!(feed.title.as_deref(), Some("café"));
}

#[test]
fn what_is_no_feed_is_refused_in_one_line_that_says_what_it_is() {
    let bomb = format!("<!DOCTYPE r [<!ENTITY a '{}'>]><rss>&a;</rss>", "x".repeat(99));
    let deep = "<a>".repeat(200_000);
    let items = format!("<rss>{}</rss>", "<item/>".repeat(100_001));
    let unclosed = format!("<!-- x --><html>{}", "<br>".repeat(300));
    let nodes = format!("<rss>{}</rss>", "<a/>".repeat(1_000_000));
    for (body, start) in [
        ("", "the document is empty"),
        (" \n\u{feff}", "the document is empty"),
        ("<!DOCTYPE html><html><p>x", "not a feed: it looks like HTML; use the address of the feed itself"),
        ("<HTML lang=en><body>", "not a feed: it looks like HTML"),
        ("<!-- x --><html><br></html>", "not a feed: it looks like HTML"),
        ("<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'/>", "not a feed: it looks like HTML"),
        ("<opml/>", "not a feed: its root element is <opml>, not <rss>, <feed> or <rdf:RDF>"),
        ("Not found", "not a feed: it is text"),
        ("{\"error\": \"not found\"}", "not a feed: it is JSON, but no JSON Feed"),
        ("{\"version\": \"https://jsonfeed.org/version/1.1\", \"items\": [", "not a readable JSON Feed: EOF"),
        ("<rss><channel>", "not well-formed XML"),
        ("<rss><channel><description><![CDATA[<html>]]>", "not well-formed XML"),
        ("<opml><x></opml>", "not well-formed XML"),
        (bomb.as_str(), "declares an XML entity"),
        (deep.as_str(), "has more than 256 elements inside each other"),
        (unclosed.as_str(), "not a feed: it looks like HTML"),
        (items.as_str(), "has more than 100000 items"),
        (nodes.as_str(), "has more than 1000000 XML nodes"),
    ] {
        let error = parse_here(body.as_bytes()).expect_err("is no feed");
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let line = format!("{error}{cause}");
        assert!(line.starts_with(start) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn what_is_written_once_is_not_multiplied() {
    let long = "x".repeat(100_000);
    let entries = "<entry><link href='y'/><o xmlns='urn:o'/><o xmlns='urn:o' a='1' b='2'>z</o></entry>".repeat(1000);
    let feed = format!(
        "<feed xmlns='http://www.w3.org/2005/Atom' xml:base='http://h.example/{long}/' xmlns:{long}='urn:o'>\
         <author><name>{long}</name></author>{entries}</feed>"
    );
    let feed = parse_here(feed.as_bytes()).expect("is a feed");
    let bytes = serde_json::to_string(&feed.items).expect("can be written").len();
    assert!(bytes < 1_000_000, "{bytes} bytes");
    assert_eq!(feed.items[0].extensions["o"], "z");
}

#[test]
fn a_cut_fixture_gives_its_first_items_and_says_that_it_is_cut_off() {
    for path in fixtures().into_iter().filter(|path| path.extension().is_some_and(|end| end == "xml")) {
        let body = fs::read(&path).expect("can be read");
        let whole = parse_here(&body).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        for length in (0..body.len()).step_by(5) {
            let Ok(cut) = parse_here(&body[..length]) else { continue };
            let what = format!("{path:?} cut at {length}");
            assert!(cut.items.len() <= whole.items.len(), "{what}");
            // The guid tells that an item is whole: a later author of the feed may be missing.
            assert!(cut.items.iter().zip(&whole.items).all(|(cut, whole)| cut.guid == whole.guid), "{what}");
            if cut.items.len() < whole.items.len() {
                assert!(cut.recovered.is_some_and(|recovery| recovery.is_cut_off()), "{what}");
            }
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_here(&bytes);
        let inside = [b"<rss><channel><item><pubDate>".as_slice(), &bytes, b"</pubDate></item></channel></rss>"].concat();
        let _ = parse_here(&inside);
    }

    #[test]
    fn no_text_of_markup_panics(
        text in "(<|>|</|/>|<!--|-->|<!\\[CDATA\\[|\\]\\]>|<!DOCTYPE r \\[|<!ENTITY a '|<\\?|\\?>|&|;|#x|'|\"|=| |xmlns:|item|rss|a|é){0,60}",
    ) {
        let _ = parse_here(text.as_bytes());
        let _ = parse_here(format!("<rss><item>{text}</item></rss>").as_bytes());
    }

    #[test]
    fn no_date_panics(text in "[0-9A-Za-z:+,. é-]{0,40}") {
        let _ = super::date::parse(&text);
    }
}

/// Mutants of the fixtures, for `FEEDMILL_FUZZ_SECONDS` (1 unless set): no panic, one line of error, and items in
/// proportion to the bytes they came from.
#[test]
fn mutants_of_the_fixtures_are_read_or_refused_within_bounds() {
    const BYTES_PER_BYTE_MAX: usize = 64;
    const TIME_MAX: Duration = Duration::from_secs(5);
    const WORDS: &[&str] = &[
        "<item>",
        "</item>",
        "<entry>",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<?",
        "&",
        "&amp;",
        "&#0;",
        "&nbsp;",
        "<",
        ">",
        "\"",
        "'",
        "</",
        "/>",
        " xmlns:a='b'",
        " xml:base='/x/'",
        "<!DOCTYPE r [<!ENTITY a 'b'>]>",
        "&a;",
        "\0",
        "\u{ffff}",
        "é",
        "{",
        "}",
        "[",
        "]",
        ",",
        "<media:group>",
        "<p>",
        "<br>",
        "xmlns",
        "encoding='utf-16'",
        "\u{1f}\u{8b}",
    ];
    let seconds = std::env::var("FEEDMILL_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(seconds);
    let feeds: Vec<Vec<u8>> = fixtures().iter().map(|path| fs::read(path).expect("can be read")).collect();
    let mut round = 0;
    while Instant::now() < end {
        // A finding is found again by its round.
        let mut random = fastrand::Rng::with_seed(round);
        let mut body = feeds[random.usize(..feeds.len())].clone();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..=body.len());
            let to = random.usize(at..=body.len().min(at + 200));
            match random.u8(..5) {
                0 => drop(body.drain(at..to)),
                1 => {
                    let piece = body[at..to].repeat(random.usize(1..50));
                    body.splice(at..at, piece);
                }
                2 => {
                    let word = WORDS[random.usize(..WORDS.len())].repeat(random.usize(1..300));
                    body.splice(at..at, word.into_bytes());
                }
                3 => body[at..to].iter_mut().for_each(|byte| *byte = random.u8(..)),
                _ => {
                    let other = &feeds[random.usize(..feeds.len())];
                    let from = random.usize(..=other.len());
                    body.splice(at..to, other[from..].iter().copied());
                }
            }
        }
        let started = Instant::now();
        match parse_here(&body) {
            Ok(feed) => {
                let bytes = serde_json::to_string(&feed.items).expect("can be written").len();
                // Each item has some 200 bytes of names.
                let bound = body.len() * BYTES_PER_BYTE_MAX + feed.items.len() * 200;
                assert!(bytes <= bound, "round {round}: {bytes} bytes from {}", body.len());
            }
            Err(error) => assert!(!error.to_string().contains('\n'), "round {round}: {error}"),
        }
        assert!(started.elapsed() < TIME_MAX, "round {round} took {:?}", started.elapsed());
        round += 1;
    }
}
