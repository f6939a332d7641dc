//! Lists of feeds as other readers write and read them: OPML 1.0 and 2.0. No I/O.

use std::fmt::Write as _;

use roxmltree::{Document, ParsingOptions};

/// Most outlines that are read; a list of that many is some 20 MB.
const NODES_MAX: u32 = 1_000_000;

/// A feed of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// `xmlUrl`, as it stands there.
    pub url: String,
    /// `title`, else `text`.
    pub title: Option<String>,
}

/// Reads the feeds of a list, in its order, whatever folders they are in.
///
/// # Errors
/// One line that says why it is no OPML.
pub fn read(opml: &str) -> Result<Vec<Outline>, String> {
    let options = ParsingOptions { allow_dtd: true, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let text = opml.trim_start_matches('\u{feff}').trim_start();
    let document = Document::parse_with_options(text, options).map_err(|error| format!("it is no XML: {error}"))?;
    if !document.root_element().tag_name().name().eq_ignore_ascii_case("opml") {
        return Err(format!("it is no OPML: its root is <{}>", document.root_element().tag_name().name()));
    }
    let outlines = document.descendants().filter(|node| node.tag_name().name().eq_ignore_ascii_case("outline"));
    let outline = outlines.filter_map(|node| {
        let attribute = |name: &str| {
            let found = node.attributes().find(|attribute| attribute.name().eq_ignore_ascii_case(name));
            found.map(|attribute| attribute.value().trim()).filter(|value| !value.is_empty()).map(str::to_owned)
        };
        Some(Outline { url: attribute("xmlUrl")?, title: attribute("title").or_else(|| attribute("text")) })
    });
    Ok(outline.collect())
}

/// Writes a list.
pub fn write<'a>(outlines: impl IntoIterator<Item = &'a Outline>) -> String {
    let mut opml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<opml version=\"2.0\">\n  <head><title>feedmill</title></head>\n  <body>\n",
    );
    for Outline { url, title } in outlines {
        let (url, title) = (escaped(url), escaped(title.as_deref().unwrap_or(url)));
        // Writing to a String cannot fail.
        let _ = writeln!(opml, "    <outline type=\"rss\" text=\"{title}\" title=\"{title}\" xmlUrl=\"{url}\"/>");
    }
    opml + "  </body>\n</opml>\n"
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(url: &str, title: Option<&str>) -> Outline {
        Outline { url: url.to_owned(), title: title.map(str::to_owned) }
    }

    #[test]
    fn feeds_are_found_in_folders_and_without_a_title() {
        let opml = "\u{feff}<?xml version=\"1.0\"?><!DOCTYPE opml><opml version=\"1.1\"><body>
            <outline text=\"News\"><outline type=\"rss\" text=\"A &amp; B\" xmlUrl=\" http://a.example/?x=1&amp;y=2 \"/>
            <outline text=\"deeper\"><outline TITLE=\"C\" text=\"c\" xmlurl=\"http://c.example/\"/></outline></outline>
            <outline xmlUrl=\"http://d.example/\"/><outline text=\"no feed\" htmlUrl=\"http://e.example/\"/></body></opml>";
        let found = [
            outline("http://a.example/?x=1&y=2", Some("A & B")),
            outline("http://c.example/", Some("C")),
            outline("http://d.example/", None),
        ];
        assert_eq!(read(opml), Ok(found.to_vec()));
    }

    #[test]
    fn what_was_written_is_read_again() {
        let outlines =
            [outline("http://a.example/?x=\"1\"&y=<2>", Some("Grüße & \"mehr\"")), outline("http://b.example/", None)];
        let read = read(&write(&outlines)).expect("is OPML");
        assert_eq!(read[0], outlines[0]);
        assert_eq!(read[1], outline("http://b.example/", Some("http://b.example/")));
    }

    #[test]
    fn what_is_no_opml_is_refused_in_one_line() {
        for (text, reason) in [("", "no XML"), ("<rss/>", "its root is <rss>"), ("a list", "no XML")] {
            let refused = read(text).expect_err(text);
            assert!(refused.contains(reason) && !refused.contains('\n'), "{refused}");
        }
    }
}
