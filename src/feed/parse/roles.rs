//! Which elements of an item fill which field: one table for all the XML formats, which share their words.

use super::namespaces::Vocabulary;

/// The field that an element fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Guid,
    Title,
    Link,
    Published,
    Updated,
    Summary,
    Content,
    Author,
    Category,
    /// A list of categories, between commas.
    Keywords,
    Enclosure,
    /// Where an Atom entry was taken from.
    Source,
}

/// How early an element is asked for its field: that of a lower rank that says something goes first.
pub(super) type Rank = u8;

/// The last rank below.
pub(super) const LAST_RANK: Rank = 3;

/// The longest name below.
const NAME_MAX_BYTES: usize = 16;

/// The field of the element `name` of `vocabulary`. Names are compared without regard to case: feeds write `pubdate`.
pub(super) fn role(vocabulary: Vocabulary, name: &str) -> Option<(Role, Rank)> {
    use Vocabulary::{Content, Core, Dc, DcTerms, Itunes, Media, Xhtml};

    let mut lower = [0; NAME_MAX_BYTES];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    let role = match (vocabulary, &*lower) {
        (Core, b"guid" | b"id") => (Role::Guid, 0),

        (Core, b"title") => (Role::Title, 0),
        (Dc, b"title") => (Role::Title, 1),
        (Media, b"title") => (Role::Title, 2),

        (Core, b"link") => (Role::Link, 0),

        // `issued` and `created` are of Atom 0.3.
        (Core, b"pubdate" | b"published" | b"issued") => (Role::Published, 0),
        (DcTerms, b"issued") => (Role::Published, 1),
        (Dc, b"date") => (Role::Published, 2),
        (Core | DcTerms, b"created") => (Role::Published, 3),

        // `modified` is of Atom 0.3.
        (Core, b"updated" | b"modified" | b"lastbuilddate") => (Role::Updated, 0),
        (DcTerms, b"modified") => (Role::Updated, 1),

        (Core, b"description" | b"summary") => (Role::Summary, 0),
        (Itunes, b"summary") => (Role::Summary, 1),
        (Dc, b"description") => (Role::Summary, 2),
        (Media, b"description") => (Role::Summary, 3),

        (Content, b"encoded") | (Core, b"content") => (Role::Content, 0),
        (Core | Xhtml, b"body") | (Core, b"fullitem") => (Role::Content, 1),

        (Dc, b"creator" | b"author") => (Role::Author, 0),
        (Core, b"author") => (Role::Author, 1),
        (Itunes, b"author") => (Role::Author, 2),

        (Core | Itunes | Media, b"category") | (Dc, b"subject") => (Role::Category, 0),

        (Itunes | Media, b"keywords") | (Core, b"tags") => (Role::Keywords, 0),

        (Core, b"enclosure") => (Role::Enclosure, 0),

        (Core, b"source") => (Role::Source, 0),
        _ => return None,
    };
    Some(role)
}
