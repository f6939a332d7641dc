//! Makes an RSS feed of any number of items, the same for the same seed, with what real job boards put in theirs:
//! HTML, namespaced fields, several languages, identities that are URLs.
//!
//! Each item is made from the seed and its number alone. So a feed is written without ever being held as a whole,
//! and an edit of one item leaves every byte of the others as it was.

use std::io;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimePrinter};

/// Size of an item when none is asked for: about what job boards send.
pub const ITEM_BYTES_DEFAULT: usize = 3000;

const MINUTES_PER_YEAR: usize = 525_600;

/// An RSS 2.0 feed to be generated.
///
/// The same values give the same bytes, on every machine, as long as the version of feedmill is the same.
///
/// ```
/// use feedmill::demo::GeneratedFeed;
///
/// let feed = GeneratedFeed { seed: 7, ..GeneratedFeed::new(1000) };
/// let mut rss = Vec::new();
/// feed.write_to(&mut rss)?;
/// assert!(rss.starts_with(b"<?xml"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GeneratedFeed {
    /// How many items it has.
    pub items: usize,
    /// Size of the XML of one item in bytes. An item is never shorter than this and at most 1 KiB longer, but an item
    /// without any text takes about 1 KiB itself.
    pub item_bytes: usize,
    /// Chooses the words, and is part of every guid: feeds of different seeds share no item.
    pub seed: u64,
    /// Number of the item (from 0) whose title is another one than in the feed without an edit.
    pub edited: Option<usize>,
}

impl GeneratedFeed {
    /// A feed of `items` items of [`ITEM_BYTES_DEFAULT`] bytes with seed 0 and no edit.
    pub fn new(items: usize) -> Self {
        Self { items, item_bytes: ITEM_BYTES_DEFAULT, seed: 0, edited: None }
    }

    /// Writes the whole feed as UTF-8 XML, item by item.
    ///
    /// # Errors
    /// What `out` answers; a part of the feed has been written then.
    pub fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        self.parts().try_for_each(|part| out.write_all(part.as_bytes()))
    }

    /// The feed in pieces of about one item each, made as they are asked for. Joined, they are the feed.
    pub fn parts(&self) -> impl Iterator<Item = String> + Send + use<> {
        let feed = *self;
        std::iter::once(feed.opening())
            .chain((0..feed.items).map(move |index| feed.item(index)))
            .chain(std::iter::once(CLOSING.to_owned()))
    }

    fn opening(&self) -> String {
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0"
  xmlns:content="http://purl.org/rss/1.0/modules/content/"
  xmlns:dc="http://purl.org/dc/elements/1.1/"
  xmlns:job_listing="https://jobs.example/ns/job_listing">
<channel>
<title>Generated jobs, seed {}</title>
<link>https://jobs.example/</link>
<description>{} positions that nobody offers</description>
"#,
            self.seed, self.items
        )
    }

    fn item(&self, index: usize) -> String {
        let mut rng = Rng::with_seed(mixed(self.seed, index));
        let number = index + 1;
        let seed = self.seed;
        let role = pick(&mut rng, ROLES);
        let edit = if self.edited == Some(index) { " (edited)" } else { "" };
        let company = pick(&mut rng, COMPANIES);
        let city = pick(&mut rng, CITIES);
        let kind = pick(&mut rng, JOB_TYPES);
        let salary_from = rng.usize(35..90) * 1000;
        let salary_to = salary_from + rng.usize(5..30) * 1000;
        let teaser = pick(&mut rng, SENTENCES);
        let published = published(index);

        let mut xml = format!(
            "<item>
<title>{role}, {city}{edit}</title>
<link>https://jobs.example/job/{seed}/{number}</link>
<guid isPermaLink=\"false\">https://jobs.example/?feed=generated&amp;seed={seed}#{number}</guid>
<pubDate>{published}</pubDate>
<dc:creator>{company}</dc:creator>
<category>{kind}</category>
<category>{city}</category>
<description>&lt;p&gt;{teaser}&lt;/p&gt;</description>
<job_listing:company>{company}</job_listing:company>
<job_listing:location>{city}</job_listing:location>
<job_listing:job_type>{kind}</job_listing:job_type>
<job_listing:salary>{salary_from}–{salary_to} EUR</job_listing:salary>
<content:encoded><![CDATA[<h2>{role} at {company}</h2>
"
        );
        while xml.len() + ITEM_CLOSING.len() < self.item_bytes {
            xml.push_str("<p>");
            for _ in 0..3 {
                xml.push_str(pick(&mut rng, SENTENCES));
                xml.push(' ');
            }
            xml.push_str("</p>\n");
        }
        xml.push_str(ITEM_CLOSING);
        xml
    }
}

/// One seed per item. Multiplying by a large odd number keeps neighbouring seeds and numbers from meeting.
fn mixed(seed: u64, index: usize) -> u64 {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64)
}

fn pick(rng: &mut Rng, words: &'static [&'static str]) -> &'static str {
    words[rng.usize(..words.len())]
}

/// Newest first, a minute apart; after a year's worth of items the dates begin again.
fn published(index: usize) -> String {
    let newest = Timestamp::constant(1_767_225_600, 0);
    let age = SignedDuration::from_mins((index % MINUTES_PER_YEAR) as i64);
    DateTimePrinter::new().timestamp_to_rfc9110_string(&(newest - age)).expect("a date in 2025 has four digits")
}

const CLOSING: &str = "</channel>\n</rss>\n";
const ITEM_CLOSING: &str = "]]></content:encoded>\n</item>\n";

// Words are put into XML, CDATA and HTML as they are: none may hold `<`, `&` or `]]>`.

const ROLES: &[&str] = &[
    "Backend Engineer",
    "Senior Data Engineer",
    "Pflegefachkraft (m/w/d)",
    "Elektroniker für Betriebstechnik",
    "Ingénieure réseau",
    "Bäckermeisterin",
    "看護師",
    "ソフトウェアエンジニア",
    "مهندس برمجيات",
    "Инженер-конструктор",
    "Jefa de cocina",
    "Train driver 🚆",
    "Lighthouse keeper",
    "Office manager",
];

const COMPANIES: &[&str] = &[
    "Northwind Harbour Ltd",
    "Müller und Söhne GmbH",
    "Fjordkraft Verft AS",
    "青空システム株式会社",
    "شركة الواحة للتقنية",
    "Café Lumière SARL",
    "Orchard Robotics",
    "Kestrel Mutual",
    "Závody Labe",
    "Cooperativa del Sur",
];

const CITIES: &[&str] =
    &["Bremen", "Zürich", "Kraków", "札幌", "القاهرة", "Lyon", "Tromsø", "Porto", "Galway", "Remote", "São Paulo"];

const JOB_TYPES: &[&str] = &["full-time", "part-time", "contract", "internship", "Ausbildung"];

const SENTENCES: &[&str] = &[
    "You will own the service that turns timetables into seat reservations.",
    "We are a team of nine and answer for what we ship, nights included, in turn and paid.",
    "Bring a few years of practice with queues, databases and the people who call when they are slow.",
    "The post is unlimited, begins in spring and can be shared by two.",
    "Wir bieten eine 36-Stunden-Woche, Zuschüsse für Bus und Bahn und eine Kantine, die diesen Namen verdient.",
    "Ihre Aufgaben reichen von der Planung über den Einbau bis zur Übergabe an den Kunden.",
    "Schicken Sie uns bitte einen Lebenslauf ohne Foto; ein Anschreiben ist nicht nötig.",
    "Le poste est ouvert à toutes et à tous, avec ou sans diplôme.",
    "Se valora experiencia con maquinaria de envasado y carné de conducir.",
    "経験よりも学ぶ意欲を大切にします。週三日の在宅勤務が可能です。",
    "نبحث عن زميل يحب العمل ضمن فريق صغير ويتقن العربية والإنجليزية.",
    "Опыт работы с чертежами обязателен, остальному научим.",
    "Salary is set by a table that everyone in the house can read.",
    "There is a dog in the office on Thursdays 🐕 and cake when a release goes well 🎂.",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn text(feed: GeneratedFeed) -> String {
        feed.parts().collect()
    }

    fn guids(xml: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(xml).unwrap();
        document
            .descendants()
            .filter(|node| node.has_tag_name("guid"))
            .map(|node| node.text().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_generated_feed_is_well_formed_and_has_as_many_items_as_asked_for() {
        for items in [0, 1, 300] {
            let guids = guids(&text(GeneratedFeed::new(items)));
            assert_eq!(guids.len(), items);
            assert_eq!(guids.iter().collect::<HashSet<_>>().len(), items, "every guid is another one");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_other_items() {
        let feed = GeneratedFeed { seed: 7, ..GeneratedFeed::new(20) };
        assert_eq!(text(feed), text(feed));
        let other = GeneratedFeed { seed: 8, ..feed };
        let known: HashSet<_> = guids(&text(feed)).into_iter().collect();
        assert!(guids(&text(other)).iter().all(|guid| !known.contains(guid)));
    }

    #[test]
    fn an_item_is_about_as_large_as_asked_for() {
        for item_bytes in [2000, ITEM_BYTES_DEFAULT, 40_000] {
            let feed = GeneratedFeed { item_bytes, ..GeneratedFeed::new(200) };
            for part in feed.parts().filter(|part| part.starts_with("<item>")) {
                assert!((item_bytes..item_bytes + 1024).contains(&part.len()), "{} of {item_bytes}", part.len());
            }
        }
        let smallest = GeneratedFeed { item_bytes: 0, ..GeneratedFeed::new(200) };
        assert!(smallest.parts().all(|part| part.len() < 1024 + 256));
    }

    #[test]
    fn an_edit_changes_one_item_and_nothing_else() {
        let feed = GeneratedFeed::new(50);
        let edited = GeneratedFeed { edited: Some(17), ..feed };
        let changed: Vec<_> = feed.parts().zip(edited.parts()).filter(|(before, after)| before != after).collect();
        assert_eq!(changed.len(), 1);
        assert!(changed[0].1.contains("#18<") && changed[0].1.contains("(edited)</title>"));
    }

    #[test]
    fn write_to_writes_all_parts() {
        let feed = GeneratedFeed::new(3);
        let mut written = Vec::new();
        feed.write_to(&mut written).unwrap();
        assert_eq!(written, text(feed).as_bytes());
    }
}
