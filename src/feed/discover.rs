//! Finds the feeds of a web page: its `<link rel="alternate">`. No I/O.

use url::Url;

/// How much of a page is looked at: links stand in its head.
const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Media types of feeds.
const FEED_TYPES: [&str; 6] = [
    "application/rss+xml",
    "application/atom+xml",
    "application/feed+json",
    "application/rdf+xml",
    "application/json",
    "text/xml",
];

/// The addresses of the feeds that a page names, in its order; `page_url` is where it came from.
pub fn feeds_of_page(page: &[u8], page_url: &Url) -> Vec<Url> {
    let text = String::from_utf8_lossy(&page[..page.len().min(PAGE_BYTES_MAX)]);
    let base = tags(&text, "base").find_map(|tag| page_url.join(&attribute(tag, "href")?).ok());
    let base = base.as_ref().unwrap_or(page_url);
    let mut found = Vec::new();
    for tag in tags(&text, "link") {
        let is_alternate = attribute(tag, "rel")
            .is_some_and(|rel| rel.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("alternate")));
        let media_type = attribute(tag, "type").unwrap_or_default().to_ascii_lowercase();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if !is_alternate || !FEED_TYPES.contains(&media_type) {
            continue;
        }
        let url = attribute(tag, "href").and_then(|href| base.join(href.trim()).ok());
        found.extend(url.filter(|url| matches!(url.scheme(), "http" | "https") && !found.contains(url)));
    }
    found
}

/// What stands between `<name` and `>` of each such tag.
fn tags<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.split('<').skip(1).filter_map(move |tag| {
        let rest = tag.get(name.len()..).filter(|_| tag[..name.len()].eq_ignore_ascii_case(name))?;
        rest.starts_with(|c: char| c.is_ascii_whitespace() || c == '/').then(|| end_of_tag(rest))
    })
}

/// A tag ends at the first `>` outside quotes.
fn end_of_tag(rest: &str) -> &str {
    let mut quote = None;
    for (at, c) in rest.char_indices() {
        match (quote, c) {
            (None, '>') => return &rest[..at],
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    rest
}

/// The value of an attribute, with the references undone that addresses have.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let mut rest = tag;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '=' || c == '/').unwrap_or(rest.len());
        if rest.is_empty() {
            return None;
        }
        let (found, behind) = rest.split_at(end);
        let behind = behind.trim_start();
        let Some(value) = behind.strip_prefix('=') else {
            // One without a value. An empty name would not let us go on.
            rest = if end == 0 { &rest[rest.chars().next().map_or(1, char::len_utf8)..] } else { behind };
            continue;
        };
        let value = value.trim_start();
        let (value, behind) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            _ => value.split_at(value.find(|c: char| c.is_ascii_whitespace()).unwrap_or(value.len())),
        };
        if found.eq_ignore_ascii_case(name) {
            return Some(value.replace("&amp;", "&").replace("&#38;", "&"));
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(page: &str) -> Vec<String> {
        let url = "https://a.example/blog/page.html".parse().expect("is a URL");
        feeds_of_page(page.as_bytes(), &url).into_iter().map(String::from).collect()
    }

    #[test]
    fn the_feeds_of_a_page_are_found_however_it_is_written() {
        let page = "<!DOCTYPE html><html><head>
            <LINK REL='alternate' TYPE='application/rss+xml' title='a > b' HREF='feed.xml?a=1&amp;b=2'>
            <link rel=alternate type=application/atom+xml href=/atom />
            <link href=\"//b.example/feed.json\" type=\"application/feed+json; charset=utf-8\" rel=\"home alternate\">
            <link rel=stylesheet type=text/css href=/style.css>
            <link rel=alternate hreflang=de href=/de/>
            <link rel=alternate type=application/rss+xml href='javascript:alert(1)'>
            <link rel=alternate type=application/rss+xml href=/atom>
            <linked rel=alternate type=application/rss+xml href=/no></head>";
        let expected =
            ["https://a.example/blog/feed.xml?a=1&b=2", "https://a.example/atom", "https://b.example/feed.json"];
        assert_eq!(found(page), expected);
        assert_eq!(
            found("<base href='https://c.example/'><link rel=alternate type=text/xml href=x>"),
            ["https://c.example/x"]
        );
        assert!(found("<html><body>nothing here</body></html>").is_empty());
    }

    proptest! {
        #[test]
        fn no_page_is_too_much_for_it(page in "(<|>|link|base|rel=alternate|href=|type=|\"|'|/|=| |ä|\\PC){0,60}") {
            found(&page);
        }
    }
}
