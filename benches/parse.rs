//! Bytes a second of the parser beside those of feed-rs, over feeds of 100 KB, 1 MB and 10 MB: `cargo bench --bench parse`.
//! And those of the XML tree alone, which the parser reads: the share of our time that is not ours.
//!
//! Each figure is the best of several runs, which is the one least disturbed by whatever else the machine does.

#![expect(clippy::print_stdout, reason = "a table for people")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use feedmill::feed::parse::{self, Hints};

/// Sizes of the feeds in bytes.
const SIZES: [usize; 3] = [100_000, 1_000_000, 10_000_000];
/// How long each parser is measured on each feed.
const MEASURED: Duration = Duration::from_secs(3);

/// A feed like that of a news site, of about `bytes` bytes.
fn rss(bytes: usize) -> String {
    let item = |n: usize| {
        format!(
            "<item><title>Headline number {n} &amp; what comes of it</title><link>https://news.example/{n}?from=rss</link>\
             <guid isPermaLink=\"false\">https://news.example/{n}</guid><pubDate>Sat, 01 Nov 2025 08:30:15 GMT</pubDate>\
             <dc:creator>Ann Lee</dc:creator><category>world</category><category>weather</category>\
             <description>&lt;p&gt;{text}&lt;/p&gt;</description>\
             <content:encoded><![CDATA[<p>{text}</p><p>{text}{text}</p>]]></content:encoded>\
             <media:content url=\"https://news.example/{n}.jpg\" type=\"image/jpeg\" width=\"640\"/></item>\n",
            text = "Some words about what happened, none of them special. ".repeat(8),
        )
    };
    feed(
        bytes,
        "<rss version=\"2.0\" xmlns:dc=\"http://purl.org/dc/elements/1.1/\" \
         xmlns:content=\"http://purl.org/rss/1.0/modules/content/\" xmlns:media=\"http://search.yahoo.com/mrss/\">\
         <channel><title>News</title><link>https://news.example/</link><description>d</description>\n",
        item,
        "</channel></rss>",
    )
}

/// A feed like that of a blog, of about `bytes` bytes.
fn atom(bytes: usize) -> String {
    let entry = |n: usize| {
        format!(
            "<entry><id>tag:blog.example,2025:{n}</id><title>Entry {n}</title>\
             <link rel=\"alternate\" type=\"text/html\" href=\"https://blog.example/{n}\"/>\
             <published>2025-11-01T08:30:15Z</published><updated>2025-11-01T09:30:15+01:00</updated>\
             <author><name>Ann Lee</name></author><category term=\"a\"/>\
             <content type=\"html\">&lt;p&gt;{}&lt;/p&gt;</content></entry>\n",
            "Some words about what happened, none of them special. ".repeat(16),
        )
    };
    let start = "<feed xmlns=\"http://www.w3.org/2005/Atom\"><title>Blog</title><id>tag:blog.example,2025:0</id>\
                 <updated>2025-11-01T08:30:15Z</updated>\n";
    feed(bytes, start, entry, "</feed>")
}

fn feed(bytes: usize, start: &str, item: impl Fn(usize) -> String, end: &str) -> String {
    let mut feed = start.to_owned();
    for n in 0.. {
        if feed.len() >= bytes {
            break;
        }
        feed.push_str(&item(n));
    }
    feed + end
}

/// Megabytes a second of the fastest run of `read` over `feed`.
fn megabytes_a_second(feed: &str, read: impl Fn(&[u8])) -> f64 {
    let end = Instant::now() + MEASURED;
    let mut best = Duration::MAX;
    while Instant::now() < end {
        let started = Instant::now();
        read(black_box(feed.as_bytes()));
        best = best.min(started.elapsed());
    }
    feed.len() as f64 / 1e6 / best.as_secs_f64()
}

fn main() {
    // A test runner that takes this for tests is told that there are none.
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    println!(
        "{:<8}{:>10}{:>15}{:>11}{:>12}{:>14}{:>8}",
        "format", "bytes", "feedmill MB/s", "tree MB/s", "tree share", "feed-rs MB/s", "ratio"
    );
    for (format, make) in [("RSS 2.0", rss as fn(usize) -> String), ("Atom", atom)] {
        for size in SIZES {
            let feed = make(size);
            let ours = megabytes_a_second(&feed, |bytes| {
                black_box(parse::parse(bytes, &Hints::default()).expect("is a feed"));
            });
            let tree = megabytes_a_second(&feed, |bytes| {
                let text = std::str::from_utf8(bytes).expect("is UTF-8");
                black_box(roxmltree::Document::parse(text).expect("is well-formed"));
            });
            let theirs = megabytes_a_second(&feed, |bytes| {
                black_box(feed_rs::parser::parse(bytes).expect("is a feed"));
            });
            println!(
                "{format:<8}{:>10}{ours:>15.0}{tree:>11.0}{:>11.0}%{theirs:>14.0}{:>8.2}",
                feed.len(),
                ours / tree * 100.0,
                ours / theirs
            );
        }
    }
}
