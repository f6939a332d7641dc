//! The second try: text that is no well-formed XML → text that is, and what was wrong with it.
//!
//! One pass over the text that writes it anew, well-formed whatever comes in. What can be told is kept: markup that is
//! none becomes text, an element left open is closed where the one around it ends, and of a feed that was cut off there
//! are the items that are whole.
//!
//! *Not here:* reading. What comes out is checked and parsed like any other text.

use std::collections::BTreeMap;
use std::fmt;

use memchr::{memchr, memchr2, memmem};

use super::guard::{self, ATTRIBUTES_MAX, DEPTH_MAX, REFERENCES_MAX, XMLNS_IN_SCOPE_MAX};
use super::{ParseError, entities, namespaces};

/// Names of root elements, with which a feed starts behind whatever junk is before it.
const ROOTS: &[&str] = &["rss", "feed", "RDF"];
/// Names of items: one that stands inside another was not closed.
const ITEMS: &[&str] = &["item", "entry"];
/// HTML elements that never have an end tag. `link`, `source` and `base` are not here: feeds mean something else.
const VOID: &[&str] = &["area", "br", "col", "embed", "hr", "img", "input", "meta", "param", "wbr"];
/// HTML elements whose end tag may be left out before the next of their kind.
const ENDED_BY_NEXT: &[&str] = &["dd", "dt", "li", "option", "p", "td", "th", "tr"];
/// Fields that hold a text and no element: one that has a field inside was not closed.
const TEXT_FIELDS: &[&str] =
    &["title", "link", "guid", "pubDate", "category", "comments", "id", "updated", "published", "issued", "modified"];
/// Fields that may hold HTML, which has elements called `title`, `link` and `source` too.
const HTML_FIELDS: &[&str] = &["description", "summary", "content"];
/// Fields whose names are no elements of HTML.
const OTHER_FIELDS: &[&str] = &[
    "guid",
    "pubDate",
    "category",
    "comments",
    "enclosure",
    "author",
    "id",
    "updated",
    "published",
    "issued",
    "modified",
];
/// Prefixes of fields.
const FIELD_PREFIXES: &[&str] = &["content", "dc", "dcterms", "feedburner", "itunes", "media", "slash", "wfw"];
/// What fields are in.
const HOLDERS: &[&str] = &["item", "entry", "channel", "feed"];
/// How large a document may become when it is written anew. Each `&` alone becomes five bytes.
const WRITTEN_MAX_BYTES: usize = 64 * 1024 * 1024;
/// What an undeclared prefix that is not a usual one is declared as, followed by itself.
const UNDECLARED_START: &str = "undeclared:";

/// What was wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Defect {
    /// It ends before the feed does. The items that are whole were read.
    CutOff,
    /// Text before the root element.
    JunkBefore,
    /// Text behind the root element.
    JunkAfter,
    /// A control character, which XML does not allow.
    ControlCharacter,
    /// `&` that starts no reference.
    BareAmpersand,
    /// A reference to an entity that is not declared. One of HTML is understood.
    UndefinedEntity,
    /// `<` that starts no tag, or `]]>` outside of CDATA.
    BareBracket,
    /// An element without an end tag.
    UnclosedElement,
    /// An end tag without an element.
    StrayEndTag,
    /// An attribute without quotes, without a value, or given twice.
    BrokenAttribute,
    /// A prefix without a namespace.
    UndeclaredPrefix,
    /// A declaration, comment or instruction in a form it may not have, or something else about the feed's outer form.
    BrokenDeclaration,
}

impl Defect {
    fn describe(self, count: usize) -> &'static str {
        let (one, several) = match self {
            Self::CutOff => ("cut off before its end", "cut off before its end"),
            Self::JunkBefore => ("text before the feed", "text before the feed"),
            Self::JunkAfter => ("text behind the feed", "text behind the feed"),
            Self::ControlCharacter => ("control character", "control characters"),
            Self::BareAmpersand => ("unescaped &", "unescaped &"),
            Self::UndefinedEntity => ("undefined entity", "undefined entities"),
            Self::BareBracket => ("unescaped < or ]]>", "unescaped < or ]]>"),
            Self::UnclosedElement => ("unclosed element", "unclosed elements"),
            Self::StrayEndTag => ("end tag without an element", "end tags without an element"),
            Self::BrokenAttribute => ("broken attribute", "broken attributes"),
            Self::UndeclaredPrefix => ("undeclared prefix", "undeclared prefixes"),
            Self::BrokenDeclaration => ("broken declaration", "broken declarations"),
        };
        if count == 1 { one } else { several }
    }

    /// Whether it is there or not, however often.
    fn is_once(self) -> bool {
        matches!(self, Self::CutOff | Self::JunkBefore | Self::JunkAfter)
    }
}

/// What a document was recovered from: each defect, and how often it was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery(BTreeMap<Defect, usize>);

impl Recovery {
    /// Each defect with its count, the worst first.
    pub fn defects(&self) -> impl Iterator<Item = (Defect, usize)> + '_ {
        self.0.iter().map(|(defect, count)| (*defect, *count))
    }

    /// Whether the feed ends before its end, so that items may be missing.
    pub fn is_cut_off(&self) -> bool {
        self.0.contains_key(&Defect::CutOff)
    }

    pub(super) fn note(&mut self, defect: Defect) {
        *self.0.entry(defect).or_default() += 1;
    }
}

/// `cut off before its end, 3 unescaped &, 1 undefined entity`.
impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (defect, count)) in self.defects().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            if defect.is_once() {
                write!(f, "{comma}{}", defect.describe(count))?;
            } else {
                write!(f, "{comma}{count} {}", defect.describe(count))?;
            }
        }
        Ok(())
    }
}

/// Writes `text` anew as well-formed XML. `None` when there is no root element of a feed in it.
///
/// Takes time and memory in proportion to the text.
///
/// # Errors
/// [`ParseError::TooComplex`] when elements are nested too deep, one has too many attributes, or there is so much to mend
/// that the document becomes larger than [`WRITTEN_MAX_BYTES`].
pub(super) fn recover(text: &str) -> Result<Option<(String, Recovery)>, ParseError> {
    let Some(root) = root_start(text) else { return Ok(None) };
    let mut writer = Writer::new(text, root);
    writer.declared = declared_entities(&text[..root]);
    if has_junk(&text[..root]) {
        writer.recovery.note(Defect::JunkBefore);
    }
    writer.write_all()?;
    Ok(Some(writer.finish()))
}

/// Where the first root element of a feed starts.
fn root_start(text: &str) -> Option<usize> {
    memchr::memchr_iter(b'<', text.as_bytes()).find(|at| {
        let name = name_at(text, at + 1);
        let local = name.rsplit(':').next().unwrap_or(name);
        ROOTS.iter().any(|root| local.eq_ignore_ascii_case(root))
    })
}

/// Whether there is more before the root than declarations, instructions and comments.
fn has_junk(before: &str) -> bool {
    let mut rest = before.trim_start();
    while rest.starts_with("<?") || rest.starts_with("<!") {
        let end = match rest {
            comment if comment.starts_with("<!--") => comment.find("-->").map(|end| end + 3),
            doctype if doctype.contains('[') => doctype.find("]>").or_else(|| doctype.find('>')).map(|end| end + 2),
            other => other.find('>').map(|end| end + 1),
        };
        rest = end.and_then(|end| rest.get(end..)).unwrap_or_default().trim_start();
    }
    !rest.is_empty()
}

/// The entities that the document type declares, as far as they are harmless.
fn declared_entities(before: &str) -> BTreeMap<&str, &str> {
    let declarations = before.split("<!ENTITY").skip(1);
    let read = |declaration| {
        let declaration: &str = declaration;
        let (name, rest) = declaration.trim_start().split_once(|c: char| c.is_ascii_whitespace())?;
        let rest = rest.trim_start();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (value, _) = rest[1..].split_once(quote)?;
        guard::is_harmless(value.as_bytes()).then_some((name, value))
    };
    declarations.filter_map(read).collect()
}

/// An element that is open.
struct Open<'a> {
    name: &'a str,
    /// Where it starts in what was written.
    start: usize,
    /// Prefixes declared on it.
    n_prefixes: usize,
}

struct Writer<'a> {
    text: &'a str,
    /// Where reading goes on.
    at: usize,
    out: String,
    open: Vec<Open<'a>>,
    /// Which of the open elements have fields inside.
    holders: Vec<usize>,
    /// Prefixes in force, innermost last.
    prefixes: Vec<&'a str>,
    /// Prefixes used and never declared, for the root element.
    undeclared: Vec<&'a str>,
    /// Where the root's declarations go.
    root_name_end: usize,
    declared: BTreeMap<&'a str, &'a str>,
    /// References to them.
    n_expanded: usize,
    recovery: Recovery,
}

impl<'a> Writer<'a> {
    fn new(text: &'a str, root: usize) -> Self {
        Self {
            text,
            at: root,
            out: String::with_capacity(text.len() - root + 1024),
            open: Vec::new(),
            holders: Vec::new(),
            prefixes: Vec::new(),
            undeclared: Vec::new(),
            root_name_end: 0,
            declared: BTreeMap::new(),
            n_expanded: 0,
            recovery: Recovery::default(),
        }
    }

    fn write_all(&mut self) -> Result<(), ParseError> {
        let bytes = self.text.as_bytes();
        while self.at < bytes.len() {
            if self.root_name_end > 0 && self.open.is_empty() {
                if !self.text[self.at..].trim().is_empty() {
                    self.recovery.note(Defect::JunkAfter);
                }
                return Ok(());
            }
            let rest = &bytes[self.at..];
            if rest[0] != b'<' {
                let end = memchr(b'<', rest).unwrap_or(rest.len());
                self.text_until(self.at + end);
            } else if rest.starts_with(b"<![CDATA[") {
                self.cdata();
            } else if rest.starts_with(b"<!") || rest.starts_with(b"<?") {
                self.declaration();
            } else if rest.starts_with(b"</") {
                self.end_tag();
            } else {
                self.start_tag()?;
            }
            guard::limit(self.out.len(), WRITTEN_MAX_BYTES, "bytes once mended")?;
        }
        Ok(())
    }

    /// Closes what is open, or cuts it off.
    fn finish(mut self) -> (String, Recovery) {
        let item = self.open.iter().position(|open| is_one_of(open.name, ITEMS));
        // Behind the end of a channel only `</rss>` is missing.
        let is_behind_channel = self.open.len() == 1
            && local(self.open[0].name).eq_ignore_ascii_case("rss")
            && self.out.trim_end().ends_with("</channel>");
        if let Some(item) = item {
            self.out.truncate(self.open[item].start);
            self.open.truncate(item);
        }
        if !self.open.is_empty() {
            self.recovery.note(if is_behind_channel { Defect::UnclosedElement } else { Defect::CutOff });
        }
        while let Some(open) = self.open.pop() {
            write_end_tag(&mut self.out, open.name);
        }
        let mut declarations = String::new();
        for prefix in &self.undeclared {
            let (start, uri) = namespaces::usual_namespace(prefix).map_or((UNDECLARED_START, *prefix), |uri| ("", uri));
            declarations.extend([" xmlns:", prefix, "=\"", start, uri, "\""]);
            self.recovery.note(Defect::UndeclaredPrefix);
        }
        self.out.insert_str(self.root_name_end, &declarations);
        if self.recovery.0.is_empty() {
            // What the parser objected to was before the root, and is not here any more.
            self.recovery.note(Defect::BrokenDeclaration);
        }
        (self.out, self.recovery)
    }

    /// Character data up to `end`.
    fn text_until(&mut self, end: usize) {
        let text = &self.text[self.at..end];
        self.at = end;
        // Outside the root there may be none.
        if !self.open.is_empty() {
            self.escape(text, false);
        }
    }

    /// Writes `text`, in which references are kept or understood, and what XML does not allow is left out.
    fn escape(&mut self, text: &str, in_attribute: bool) {
        let mut rest = text;
        // Over it, the caller gives up.
        while self.out.len() <= WRITTEN_MAX_BYTES {
            let bytes = rest.as_bytes();
            let special = bytes.iter().position(|byte| matches!(byte, b'&' | b'<' | b'>' | b'"' | 0..=0x1f | 0xef));
            let Some(at) = special else {
                self.out.push_str(rest);
                return;
            };
            self.out.push_str(&rest[..at]);
            let mut length = 1;
            match bytes[at] {
                b'&' => length = self.reference(&rest[at..]),
                b'<' => {
                    self.out.push_str("&lt;");
                    self.recovery.note(Defect::BareBracket);
                }
                b'>' if rest[..at].ends_with("]]") && !in_attribute => {
                    self.out.push_str("&gt;");
                    self.recovery.note(Defect::BareBracket);
                }
                b'"' if in_attribute => self.out.push_str("&quot;"),
                b'\t' | b'\n' | b'\r' | b'>' | b'"' => self.out.push(char::from(bytes[at])),
                0xef => {
                    length = 3;
                    match &rest[at..at + 3] {
                        "\u{fffe}" | "\u{ffff}" => self.recovery.note(Defect::ControlCharacter),
                        other => self.out.push_str(other),
                    }
                }
                _ => self.recovery.note(Defect::ControlCharacter),
            }
            rest = &rest[at + length..];
        }
    }

    /// Writes the reference that `text` starts with, or its `&` alone. Returns how long what was read is.
    fn reference(&mut self, text: &str) -> usize {
        const NAME_MAX_BYTES: usize = 32;
        let name_end =
            text[1..].bytes().take(NAME_MAX_BYTES).position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'#'));
        let name = &text[1..=name_end.unwrap_or(0)];
        let is_closed = text.as_bytes().get(1 + name.len()) == Some(&b';');
        let length = name.len() + usize::from(is_closed) + 1;
        let number = name.strip_prefix('#').and_then(|number| match number.strip_prefix(['x', 'X']) {
            Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok(),
            None => number.parse().ok(),
        });
        if let Some(number) = number.filter(|_| is_closed) {
            let character = char::from_u32(number).filter(|c| is_allowed(*c));
            match character {
                Some(c @ ('&' | '<' | '>' | '"' | '\'')) => self.out.extend(["&#", &u32::from(c).to_string(), ";"]),
                Some(c) => self.out.push(c),
                None => self.recovery.note(Defect::ControlCharacter),
            }
            return length;
        }
        if is_closed {
            if matches!(name, "amp" | "lt" | "gt" | "quot" | "apos") {
                self.out.push_str(&text[..length]);
                return length;
            }
            if let Some(value) = self.declared.get(name).filter(|_| self.n_expanded < REFERENCES_MAX) {
                self.n_expanded += 1;
                self.out.push_str(value);
                return length;
            }
            if let Some(character) = entities::character(name) {
                self.out.push(character);
                self.recovery.note(Defect::UndefinedEntity);
                return length;
            }
        }
        self.recovery.note(Defect::BareAmpersand);
        self.out.push_str("&amp;");
        1
    }

    fn cdata(&mut self) {
        const START: &str = "<![CDATA[";
        let inside = &self.text[self.at + START.len()..];
        let end = memmem::find(inside.as_bytes(), b"]]>");
        let content = &inside[..end.unwrap_or(inside.len())];
        self.at += START.len() + content.len() + if end.is_some() { 3 } else { 0 };
        if self.open.is_empty() {
            return;
        }
        self.out.push_str(START);
        if content.chars().all(is_allowed) {
            self.out.push_str(content);
        } else {
            self.recovery.note(Defect::ControlCharacter);
            self.out.extend(content.chars().filter(|c| is_allowed(*c)));
        }
        self.out.push_str("]]>");
    }

    /// Comments, instructions and document types say nothing that is read.
    fn declaration(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let (end, is_broken) = match rest {
            [b'<', b'!', b'-', b'-', inside @ ..] => {
                let end = memmem::find(inside, b"-->");
                let is_broken = end.is_none_or(|end| memmem::find(&inside[..end], b"--").is_some());
                (end.map(|end| end + 7), is_broken)
            }
            [b'<', b'?', inside @ ..] => (
                memmem::find(inside, b"?>").map(|end| end + 4),
                inside.starts_with(b"xml ") || inside.starts_with(b"?"),
            ),
            _ => (memchr(b'>', rest).map(|end| end + 1), true),
        };
        if is_broken || end.is_none() {
            self.recovery.note(Defect::BrokenDeclaration);
        }
        self.at = end.map_or(self.text.len(), |end| self.at + end);
    }

    fn end_tag(&mut self) {
        let rest = &self.text[self.at..];
        let name = name_at(self.text, self.at + 2);
        let end = memchr2(b'>', b'<', &rest.as_bytes()[2..]).map_or(rest.len(), |end| end + 2);
        let is_closed = rest.as_bytes().get(end) == Some(&b'>');
        self.at += end + usize::from(is_closed);
        if end == rest.len() {
            // Cut off inside of it.
            return;
        }
        match self.open.iter().rposition(|open| open.name.eq_ignore_ascii_case(name)) {
            Some(depth) => {
                while self.open.len() > depth + 1 {
                    self.recovery.note(Defect::UnclosedElement);
                    self.close_one();
                }
                self.close_one();
            }
            None => self.recovery.note(Defect::StrayEndTag),
        }
    }

    fn close_one(&mut self) {
        if let Some(open) = self.open.pop() {
            write_end_tag(&mut self.out, open.name);
            self.prefixes.truncate(self.prefixes.len() - open.n_prefixes);
            self.holders.pop_if(|depth| *depth == self.open.len());
        }
    }

    fn start_tag(&mut self) -> Result<(), ParseError> {
        let name = name_at(self.text, self.at + 1);
        if self.at + 1 + name.len() == self.text.len() {
            // Cut off inside of a name.
            self.at = self.text.len();
            return Ok(());
        }
        if !is_qualified(name) {
            if !self.open.is_empty() {
                self.out.push_str("&lt;");
            }
            self.recovery.note(Defect::BareBracket);
            self.at += 1;
            return Ok(());
        }
        let tag = Tag::read(self.text, self.at, name)?;
        self.at = tag.end;
        if tag.is_cut {
            // Nothing of it may be there.
            return Ok(());
        }
        if is_one_of(name, ITEMS)
            && let Some(depth) = self.open.iter().rposition(|open| open.name.eq_ignore_ascii_case(name))
        {
            while self.open.len() > depth {
                self.recovery.note(Defect::UnclosedElement);
                self.close_one();
            }
        }
        let ends_previous = ENDED_BY_NEXT.contains(&name) && self.open.last().is_some_and(|open| open.name == name);
        if ends_previous {
            self.recovery.note(Defect::UnclosedElement);
            self.close_one();
        }
        if let Some(depth) = self.unclosed_field(name) {
            while self.open.len() > depth {
                self.recovery.note(Defect::UnclosedElement);
                self.close_one();
            }
        }
        let start = self.out.len();
        self.out.push('<');
        self.out.push_str(name);
        if self.root_name_end == 0 {
            self.root_name_end = self.out.len();
        }
        let n_prefixes_before = self.prefixes.len();
        let declared = tag.attributes.iter().filter_map(|attribute| attribute.name.strip_prefix("xmlns:"));
        self.prefixes.extend(declared);
        guard::limit(self.prefixes.len(), XMLNS_IN_SCOPE_MAX, "namespace declarations in force at one place")?;
        self.need_prefix(name);
        for _ in 0..tag.n_broken {
            self.recovery.note(Defect::BrokenAttribute);
        }
        for attribute in tag.attributes {
            self.need_prefix(attribute.name);
            self.out.push(' ');
            self.out.push_str(attribute.name);
            self.out.push_str("=\"");
            self.escape(attribute.value, true);
            self.out.push('"');
        }
        let is_void = VOID.iter().any(|void| name.eq_ignore_ascii_case(void));
        if is_void && !tag.is_empty {
            self.recovery.note(Defect::UnclosedElement);
        }
        if is_void || tag.is_empty {
            self.out.push_str("/>");
            self.prefixes.truncate(n_prefixes_before);
        } else {
            self.out.push('>');
            if is_one_of(name, HOLDERS) {
                self.holders.push(self.open.len());
            }
            self.open.push(Open { name, start, n_prefixes: self.prefixes.len() - n_prefixes_before });
            guard::limit(self.open.len(), DEPTH_MAX, "elements inside each other")?;
        }
        Ok(())
    }

    /// Where the field that `name` starts inside of is open, if `name` is a field too, so that its end tag is missing.
    fn unclosed_field(&self, name: &str) -> Option<usize> {
        let depth = self.holders.last()? + 1;
        let field = self.open.get(depth)?.name;
        let is_any = |name: &str, known: &[&str]| known.iter().any(|known| name.eq_ignore_ascii_case(known));
        let is_prefixed = || name.split_once(':').is_some_and(|(prefix, _)| FIELD_PREFIXES.contains(&prefix));
        let is_field = is_any(name, OTHER_FIELDS) || is_prefixed();
        let is_unclosed = if is_any(field, TEXT_FIELDS) {
            is_field || is_any(name, TEXT_FIELDS) || is_any(name, HTML_FIELDS)
        } else {
            is_field && is_any(field, HTML_FIELDS)
        };
        is_unclosed.then_some(depth)
    }

    /// Sees to it that the prefix of `name` is declared.
    fn need_prefix(&mut self, name: &'a str) {
        let Some((prefix, _)) = name.split_once(':') else { return };
        let is_known = matches!(prefix, "xml" | "xmlns") || self.prefixes.contains(&prefix);
        if !is_known && !self.undeclared.contains(&prefix) && self.undeclared.len() < XMLNS_IN_SCOPE_MAX {
            self.undeclared.push(prefix);
        }
    }
}

fn write_end_tag(out: &mut String, name: &str) {
    out.extend(["</", name, ">"]);
}

struct Attribute<'a> {
    name: &'a str,
    value: &'a str,
}

/// A start tag.
struct Tag<'a> {
    attributes: Vec<Attribute<'a>>,
    n_broken: usize,
    is_empty: bool,
    /// The text ends inside of it.
    is_cut: bool,
    /// Where it ends in the text.
    end: usize,
}

impl<'a> Tag<'a> {
    /// Reads the tag `name` at `start`. It ends at a `>`, or before a `<`, outside of quotes.
    fn read(text: &'a str, start: usize, name: &'a str) -> Result<Self, ParseError> {
        let bytes = text.as_bytes();
        let mut tag = Self { attributes: Vec::new(), n_broken: 0, is_empty: false, is_cut: false, end: text.len() };
        let mut at = start + 1 + name.len();
        loop {
            match bytes.get(at) {
                None => {
                    tag.is_cut = true;
                    return Ok(tag);
                }
                Some(b'>') => {
                    tag.end = at + 1;
                    return Ok(tag);
                }
                Some(b'<') => {
                    tag.n_broken += 1;
                    tag.end = at;
                    return Ok(tag);
                }
                Some(b'/') => {
                    tag.is_empty = bytes.get(at + 1) == Some(&b'>');
                    at += 1;
                }
                Some(byte) if byte.is_ascii_whitespace() => at += 1,
                Some(_) => {
                    let name = name_at(text, at);
                    at = tag.attribute(text, at, name);
                    guard::limit(tag.attributes.len(), ATTRIBUTES_MAX, "attributes on one element")?;
                }
            }
        }
    }

    /// Reads an attribute whose name starts at `start`. Returns where it ends.
    fn attribute(&mut self, text: &'a str, start: usize, name: &'a str) -> usize {
        let bytes = text.as_bytes();
        let skip_space = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
            at
        };
        if name.is_empty() {
            // Something that starts no name: over to the next space or end.
            self.n_broken += 1;
            let rest = &bytes[start + 1..];
            let end = rest.iter().position(|byte| matches!(byte, b'>' | b'<' | b'/') || byte.is_ascii_whitespace());
            return end.map_or(bytes.len(), |end| start + 1 + end);
        }
        let after_name = skip_space(start + name.len());
        if bytes.get(after_name) != Some(&b'=') {
            self.n_broken += 1;
            return start + name.len();
        }
        let value_start = skip_space(after_name + 1);
        let (value, end) = if let Some(quote @ (b'"' | b'\'')) = bytes.get(value_start) {
            let inside = &bytes[value_start + 1..];
            // Quotes that are not closed end at the first bracket.
            let length = memchr(*quote, inside).or_else(|| memchr2(b'>', b'<', inside)).unwrap_or(inside.len());
            let end = value_start + 1 + length;
            let is_closed = bytes.get(end) == Some(quote);
            self.n_broken += usize::from(!is_closed);
            (&text[value_start + 1..end], end + usize::from(is_closed))
        } else {
            self.n_broken += 1;
            let inside = &bytes[value_start..];
            let end = inside.iter().position(|byte| matches!(byte, b'>' | b'<') || byte.is_ascii_whitespace());
            let end = value_start + end.unwrap_or(inside.len());
            (&text[value_start..end], end)
        };
        let is_twice = self.attributes.iter().any(|attribute| attribute.name == name);
        let is_no_declaration = name.starts_with("xmlns:") && value.trim().is_empty() || is_reserved(name);
        if is_twice || is_no_declaration || !is_qualified(name) {
            self.n_broken += 1;
        } else {
            self.attributes.push(Attribute { name, value });
        }
        end
    }
}

/// Declarations that XML reserves.
fn is_reserved(name: &str) -> bool {
    matches!(name, "xmlns:xml" | "xmlns:xmlns")
}

/// The name that starts at `at`, which may be none.
fn name_at(text: &str, at: usize) -> &str {
    let rest = text.get(at..).unwrap_or_default();
    let is_inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-' | b'.');
    let length = rest.bytes().take_while(is_inside).count();
    &rest[..length]
}

/// Whether `name` may be the name of an element or attribute: `name` or `prefix:name`.
fn is_qualified(name: &str) -> bool {
    let mut parts = name.split(':');
    let is_name = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    parts.by_ref().take(2).all(is_name) && parts.next().is_none()
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| local(name).eq_ignore_ascii_case(known))
}

/// Whether XML allows the character.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::{Defect, recover};

    /// What `text` becomes, which has to be well-formed, and what was wrong with it.
    fn recovered(text: &str) -> (String, String) {
        let (text, recovery) = recover(text).expect("is not too complex").expect("has a root");
        Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (text, recovery.to_string())
    }

    #[test]
    fn each_defect_is_mended_and_named() {
        for (text, expected, defect) in [
            ("Warning: x <rss>a</rss>", "<rss>a</rss>", "text before the feed"),
            ("<rss>a</rss> <b>", "<rss>a</rss>", "text behind the feed"),
            ("<rss>a\u{8}b\u{ffff}<![CDATA[\0]]></rss>", "<rss>ab<![CDATA[]]></rss>", "3 control characters"),
            ("<rss>a & b&c=1&amp;</rss>", "<rss>a &amp; b&amp;c=1&amp;</rss>", "2 unescaped &"),
            ("<rss>&nbsp;&#x41;&no;</rss>", "<rss>\u{a0}A&amp;no;</rss>", "1 unescaped &, 1 undefined entity"),
            ("<rss>1 < 2 ]]> 3</rss>", "<rss>1 &lt; 2 ]]&gt; 3</rss>", "2 unescaped < or ]]>"),
            ("<rss><p>a<br>b<p>c</rss>", "<rss><p>a<br/>b</p><p>c</p></rss>", "3 unclosed elements"),
            ("<rss>a</b></rss>", "<rss>a</rss>", "1 end tag without an element"),
            (
                "<rss a=1 b c='x<\"' a='2' d='3'e></rss>",
                "<rss a=\"1\" c=\"x&lt;&quot;\" d=\"3\"></rss>",
                "1 unescaped < or ]]>, 4 broken attributes",
            ),
            (
                "<rss><media:x o:y='1'/></rss>",
                "<rss xmlns:media=\"http://www.rssboard.org/media-rss\" xmlns:o=\"undeclared:o\">\
                 <media:x o:y=\"1\"/></rss>",
                "2 undeclared prefixes",
            ),
            ("<rss><!-- a -- b --><!X></rss>", "<rss></rss>", "2 broken declarations"),
            ("<rss><item>a<item>b</item></rss>", "<rss><item>a</item><item>b</item></rss>", "1 unclosed element"),
            (
                "<rss><item><title>a<link>b<guid>c</guid><description>d<title>e</title><dc:x>f</dc:x></item></rss>",
                "<rss xmlns:dc=\"http://purl.org/dc/elements/1.1/\"><item><title>a</title><link>b</link><guid>c</guid>\
                 <description>d<title>e</title></description><dc:x>f</dc:x></item></rss>",
                "3 unclosed elements, 1 undeclared prefix",
            ),
            ("<rss><Title>a</title></rss>", "<rss><Title>a</Title></rss>", "1 broken declaration"),
        ] {
            assert_eq!(recovered(text), (expected.to_owned(), defect.to_owned()), "{text}");
        }
    }

    #[test]
    fn of_a_feed_that_is_cut_off_the_whole_items_are_left() {
        let whole = "<rss><channel><item>a</item></channel></rss>";
        for rest in
            ["", "<", "<it", "<item", "<item>b", "<item><title a='", "<item><![CDATA[x", "<item>b</item", "<!-- "]
        {
            let (text, recovery) =
                recover(&format!("<rss><channel><item>a</item>{rest}")).expect("ok").expect("a root");
            assert_eq!(text, whole, "{rest}");
            assert!(recovery.is_cut_off(), "{rest}");
        }
        let (_, recovery) = recover("<rss><channel><item/></channel>").expect("ok").expect("a root");
        assert_eq!(recovery.defects().collect::<Vec<_>>(), [(Defect::UnclosedElement, 1)]);
    }

    #[test]
    fn harmless_entities_of_the_document_are_kept() {
        let text = "<!DOCTYPE rss [<!ENTITY x 'y'><!ENTITY z '&x;&x;'>]><rss>&x; &z;<br></rss>";
        assert_eq!(recovered(text).0, "<rss>y &amp;z;<br/></rss>");
    }

    #[test]
    fn what_is_no_feed_is_left_alone() {
        assert!(recover("<html><body>&nbsp;").expect("is not too complex").is_none());
        assert!(recover(&format!("<rss>{}", "<a>".repeat(1000))).is_err());
    }
}
