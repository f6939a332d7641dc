//! Documents made to be expensive: each of 32 MiB, the most that is fetched, takes less than 256 MB and 5 seconds to read
//! or refuse, in a process of its own.
//!
//! What counts is the processor time of that process, which other tests do not stretch. A build without optimisation is
//! given [`UNOPTIMISED`] times as much: `cargo nextest run --release -E 'test(/^hostile/)'` measures the bound itself.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    process::{Mill, PATIENCE},
};

const DOCUMENT_BYTES: usize = 32 << 20;
const MEMORY_MAX_BYTES: u64 = 256_000_000;
const TIME_MAX: Duration = Duration::from_secs(5);
/// How much longer the same work takes in a build without optimisation: three to ten times, measured over these documents.
const UNOPTIMISED: u32 = if cfg!(debug_assertions) { 10 } else { 1 };

/// `unit` as often as it fits between `start` and `end`.
fn filled(start: &str, unit: &str, end: &str) -> Vec<u8> {
    let times = (DOCUMENT_BYTES - start.len() - end.len()) / unit.len();
    [start, &unit.repeat(times), end].concat().into_bytes()
}

/// `unit` in the title of an item.
fn title_of(unit: &str) -> Vec<u8> {
    filled("<rss><channel><item><title>", unit, "</title></item></channel></rss>")
}

fn channel_of(unit: &str) -> Vec<u8> {
    filled("<rss><channel>", unit, "</channel></rss>")
}

/// The most memory a process had, and the time it computed.
fn taken(pid: u32) -> (u64, Duration) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let status = read("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap();
    let computed = read("schedstat").split(' ').next().unwrap().parse().unwrap();
    (peak * 1024, Duration::from_nanos(computed))
}

/// Has a process read the document, and says what that took. It then reads a small one, so that its end is known, and
/// waits for a third.
#[expect(clippy::print_stderr, reason = "what was measured is shown by a test that fails, or with --no-capture")]
fn assert_is_bounded(folder: &Path, name: &str, document: &[u8]) {
    assert!(document.len() <= DOCUMENT_BYTES, "{name}");
    let (path, small) = (folder.join(name), folder.join("small.rss"));
    std::fs::write(&path, document).unwrap();
    std::fs::write(&small, "<rss><item><title>the small one</title></item></rss>").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedmill"));
    command.arg("parse").args([&path, &small]).arg("-");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut items = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("the small one") {
        line.clear();
        assert!(items.read_line(&mut line).unwrap() > 0, "{name}: it ended");
    }
    let (peak_bytes, computed) = taken(child.id());
    child.stdin.take().unwrap().write_all(b"<rss/>").unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    child.wait().unwrap();
    std::fs::remove_file(&path).unwrap();
    eprintln!("{name}: {} MB, {computed:?}, {errors}", peak_bytes / 1_000_000);
    assert!(errors.lines().count() <= 1, "{name}: one line: {errors}");
    assert!(peak_bytes < MEMORY_MAX_BYTES, "{name}: {} MB", peak_bytes / 1_000_000);
    assert!(computed < TIME_MAX * UNOPTIMISED, "{name}: {computed:?}");
}

fn assert_each_is_bounded(documents: impl IntoIterator<Item = (&'static str, Vec<u8>)>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, document) in documents {
        assert_is_bounded(folder.path(), name, &document);
    }
}

#[test]
fn entities_do_not_blow_up() {
    let declared = |value: &str| format!("<!DOCTYPE rss [<!ENTITY a \"{value}\">]><rss><channel><item><title>");
    let end = "</title></item></channel></rss>";
    let levels: Vec<String> =
        (1..30).map(|n| format!("<!ENTITY a{n} \"{}\">", format!("&a{};", n - 1).repeat(10))).collect();
    assert_each_is_bounded([
        ("linear", filled(&declared(&"x".repeat(1000)), "&a;", end)),
        ("quadratic", filled(&declared(&"x".repeat(DOCUMENT_BYTES / 2)), "&a;", end)),
        (
            "exponential",
            format!("<!DOCTYPE rss [<!ENTITY a0 \"lol\">{}]><rss>&a29;</rss>", levels.concat()).into_bytes(),
        ),
        ("short", filled(&declared("sixteen letters."), "&a;", end)),
        ("as-many-as-are-let-through", {
            let references = "&a;".repeat(999_000);
            filled(&[&declared("sixteen letters."), references.as_str()].concat(), "x", end)
        }),
        ("short-and-broken", filled(&[&declared("sixteen letters."), "&nbsp;"].concat(), "&a;", end)),
        ("undeclared", title_of("&nbsp;")),
    ]);
}

#[test]
fn what_has_to_be_mended_does_not_grow_without_bound() {
    let unclosed = channel_of("<item><description><b><i>x");
    assert_each_is_bounded([
        ("ampersands", title_of("&")),
        ("brackets", title_of("< ")),
        ("unclosed", unclosed),
        ("quotes", filled("<rss><channel a='&", "\"", "'/></rss>")),
        ("no-end", filled("<rss><channel>", "<br>", "")),
    ]);
}

#[test]
fn much_of_anything_is_read_or_refused() {
    let attributes: Vec<String> = (0..1_000_000).map(|n| format!(" a{n}=\"1\"")).collect();
    let values = format!("{{\"items\":[{{\"_a\":[{}1]}}]}}", "1,".repeat(1_990_000));
    assert_each_is_bounded([
        ("a-million-attributes", format!("<rss{}/>", attributes.concat()).into_bytes()),
        ("deep", filled("<rss>", "<a>", "")),
        ("nodes", channel_of("<a/>")),
        ("items", channel_of("<item/>")),
        ("namespaces", channel_of("<a xmlns:b=\"c\"/>")),
        ("categories", filled("<rss><item>", "<category>a</category>", "</item></rss>")),
        ("keywords", filled("<rss><item><tags>", "a,", "</tags></item></rss>")),
        ("json-values", values.into_bytes()),
        ("json-depth", filled("{\"items\":", "[", "")),
    ]);
}

#[test]
fn huge_texts_are_read_once() {
    let wide = "<?xml version=\"1.0\"?><rss><channel><item><title>& ".to_owned();
    let wide = [wide.as_str(), &"中".repeat(DOCUMENT_BYTES / 2 - 200), "</title></item></channel></rss>"].concat();
    let wide: Vec<u8> = [0xfeff].into_iter().chain(wide.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let mut latin_1 =
        filled("<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><rss><item><title>", "?", "</title></item></rss>");
    let text = 62..latin_1.len() - 30;
    latin_1[text].fill(0xe9);
    let plain = title_of("x");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..16).for_each(|_| bomb.write_all(&plain).unwrap());
    assert_each_is_bounded([
        ("plain", plain),
        ("one-defect", filled("<rss><item><title>&", "x ", "</title></item></rss>")),
        ("attribute", filled("<rss><item><link href='", "x", "'/></item></rss>")),
        ("utf-16", wide),
        ("latin-1", latin_1),
        ("encoded-twice", title_of("Ã©")),
        ("gzip", packed.finish().unwrap()),
        ("gzip-bomb", bomb.finish().unwrap()),
    ]);
}

#[tokio::test]
async fn a_worker_is_bounded_by_what_servers_send_without_end() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    mill.retry("feed_fetch_queue", 1, "1s");
    mill.set("fetch.timeout", "20s");
    let page = Page::new(title_of("x"));
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        (0..4).for_each(|_| encoder.write_all(bytes).unwrap());
        encoder.finish().unwrap()
    };
    let piece = Page::new(vec![b' '; 64 << 10]);
    for (name, page) in
        [("bomb", page.clone().packed("gzip", gzip)), ("endless", piece.endless()), ("stalls", page.stalling())]
    {
        server.put(&format!("/{name}"), page);
        mill.feed(name, &server.url(&format!("/{name}")), Some(name));
    }
    let worker = mill.worker().await;
    mill.fetch(&["bomb", "endless", "stalls"]).await;
    let store = mill.store().await;
    for (name, wanted) in [("bomb", "larger than"), ("endless", "larger than"), ("stalls", "took longer than 20s")] {
        let error = eventually(name, PATIENCE * 3, async || store.find_feed(name).await.unwrap()?.last_error).await;
        assert!(error.contains(wanted), "{error}");
    }
    let (peak_bytes, _) = taken(worker.pid());
    assert!(peak_bytes < MEMORY_MAX_BYTES, "{} MB", peak_bytes / 1_000_000);
}
