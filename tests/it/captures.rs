//! Captures of real feeds, which are not part of the repository: with `FEEDMILL_CAPTURES` set to a folder that has them,
//! each is read as the table says. `.ci/run` sets it where the folder is.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// What a capture holds: guid, date and title of its first and last item.
struct Capture {
    file: &'static str,
    items: usize,
    first: [Option<&'static str>; 3],
    last: [Option<&'static str>; 3],
}

const CAPTURES: &[Capture] = &[
    Capture {
        file: "bbc_news_2024.rss",
        items: 33,
        first: [
            Some("https://www.bbc.com/news/articles/cp81l0e1eg5o#0"),
            Some("2026-02-17T18:55:33Z"),
            Some("US civil rights leader Jesse Jackson dies aged 84"),
        ],
        last: [
            Some("https://www.bbc.com/news/videos/c80jvkem8lro#3"),
            Some("2026-02-14T06:00:21Z"),
            Some("Watch: 'I am a survivor' Gisèle Pelicot tells BBC Newsnight"),
        ],
    },
    Capture {
        file: "deutsche_welle.rdf",
        items: 141,
        first: [
            Some(
                "https://www.dw.com/en/france-arrests-nine-in-right-wing-activist-s-death/a-75995188?maca=en-rss-en-all-1573-rdf",
            ),
            Some("2026-02-18T00:15:00Z"),
            Some("France arrests nine in right-wing activist's death"),
        ],
        last: [
            Some(
                "https://www.dw.com/en/how-bringing-back-a-humble-algae-to-arctic-waters-makes-all-the-difference/a-75182003?maca=en-rss-en-all-1573-rdf",
            ),
            Some("2026-01-20T10:31:00Z"),
            Some("How bringing back a humble algae to Arctic waters makes all the difference"),
        ],
    },
    Capture {
        file: "github_commits.atom",
        items: 20,
        first: [
            Some("tag:github.com,2008:Grit::Commit/6d97f8b4582414b6ce69467656824690057d4793"),
            None,
            Some("Parse podcast categories"),
        ],
        last: [
            Some("tag:github.com,2008:Grit::Commit/111e3f2106646cd29f7f74c0102f2a570c598e2e"),
            None,
            Some("Reuse a Reader instead of copying to a buffer when parsing an atom feed"),
        ],
    },
    Capture {
        file: "golem_latin1.rss",
        items: 40,
        first: [
            Some("https://www.golem.de/1810/137358-rss.html"),
            Some("2018-10-28T12:48:00Z"),
            Some("Red Dead Redemption 2: Hinweise auf PC-Umsetzung in App von Rockstar Games"),
        ],
        last: [
            Some("https://www.golem.de/1810/137319-rss.html"),
            Some("2018-10-25T10:49:00Z"),
            Some("Xiaomi: Das Mi Mix 3 hat keine Notch und eine versteckte Frontkamera"),
        ],
    },
    Capture {
        file: "guardian.rss",
        items: 55,
        first: [
            Some(
                "https://www.theguardian.com/us-news/2018/jan/31/donald-trump-state-of-the-union-address-unity-discord",
            ),
            Some("2018-01-31T07:26:05Z"),
            Some("Trump State of the Union address promised unity but emphasized discord"),
        ],
        last: [
            Some("https://www.theguardian.com/artanddesign/gallery/2018/jan/31/earths-ultimate-yogis-in-pictures-yoga"),
            Some("2018-01-31T07:00:20Z"),
            Some("Earth's ultimate yogis – in pictures"),
        ],
    },
    Capture {
        file: "heise.atom",
        items: 60,
        first: [
            Some("https://heise.de/-3351148"),
            Some("2016-10-15T16:03:00Z"),
            Some("Politiker-Fakes: Virtuelle Doppelgänger ärgern die Mächtigen"),
        ],
        last: [
            Some("https://heise.de/-3349185"),
            Some("2016-10-13T13:56:00Z"),
            Some("6000 Online-Shops angeblich mit Kreditkarten-Skimmern verseucht – Tendenz steigend"),
        ],
    },
    Capture {
        file: "jobs_researchcomputing_2026.rss",
        items: 350,
        first: [
            Some("job-3520"),
            Some("2026-02-09T05:00:00Z"),
            Some("Manager, Computational Scientific Programming, Research Computing - Empire AI"),
        ],
        last: [
            Some("job-815"),
            Some("2024-02-03T05:00:00Z"),
            Some("Director for Behavioral Health Research, AI Hub - New York University"),
        ],
    },
    Capture {
        file: "jobs_weworkremotely_2015.rss",
        items: 25,
        first: [
            Some("https://weworkremotely.com/jobs/1080"),
            Some("2014-11-17T05:45:32Z"),
            Some("Kaleo Software: Senior Software Engineer"),
        ],
        last: [
            Some("https://weworkremotely.com/jobs/1047"),
            Some("2014-11-04T21:08:13Z"),
            Some("Monetate: DevOps Engineer"),
        ],
    },
    Capture {
        file: "podcast_podbean.rss",
        items: 50,
        first: [
            Some("http://aroundthebloc.podbean.com/e/s03e11-finding-nemo-rocco/"),
            Some("2014-12-16T12:56:02Z"),
            Some("S03E11: Finding Nemo-rocco"),
        ],
        last: [
            Some("http://aroundthebloc.podbean.com/2013/03/06/episode-17-live-from-the-jerrcave/"),
            Some("2013-03-07T04:57:39Z"),
            Some("Episode 17: Live From the JERRcave"),
        ],
    },
    Capture {
        file: "wordpress_inthedark.rss",
        items: 10,
        first: [
            Some("http://telescoper.blog/?p=81925"),
            Some("2026-02-17T17:27:26Z"),
            Some("Fat Tuesday – Bourbon Street Parade"),
        ],
        last: [Some("http://telescoper.blog/?p=81822"), Some("2026-02-09T13:34:52Z"), Some("Take Note!")],
    },
    Capture {
        file: "xakep_windows1251.rss",
        items: 25,
        first: [
            Some("http://www.xakep.ru/post/61360/default.asp"),
            Some("2013-10-03T23:34:59Z"),
            Some("Руководители разведки США шутят об убийстве Сноудена"),
        ],
        last: [
            Some("http://www.xakep.ru/post/61336/default.asp"),
            Some("2013-09-30T14:28:24Z"),
            Some("Смартфон на столе рядом с клавиатурой может регистрировать вибрации от нажатий клавиш"),
        ],
    },
    Capture {
        file: "youtube_channel.atom",
        items: 15,
        first: [
            Some("yt:video:AFA8ZtMwrvc"),
            Some("2017-01-20T16:00:00Z"),
            Some("Zukunft von Vertretern I Kernfusion I Musikgeschäft #ASKTHEPUNK 71"),
        ],
        last: [
            Some("yt:video:Y8UhlmvEzIM"),
            Some("2016-11-11T16:00:03Z"),
            Some("Einstieg in den Aktienmarkt I Scheidung I SpaceX Mars - Programm #ASKTHEPUNK 61"),
        ],
    },
];

fn parsed(path: &PathBuf) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_feedmill")).arg("parse").arg(path).output().expect("feedmill starts");
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("is UTF-8");
    lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn each_capture_is_read_as_the_table_says() {
    let Some(folder) = std::env::var_os("FEEDMILL_CAPTURES").map(PathBuf::from) else {
        return;
    };
    for capture in CAPTURES {
        let items = parsed(&folder.join(capture.file));
        let shown = |item: Option<&Value>| {
            let item = item.expect("has items");
            ["guid", "published", "title"].map(|field| item[field].as_str().map(str::to_owned))
        };
        let file = capture.file;
        assert_eq!(items.len(), capture.items, "{file}");
        assert_eq!(shown(items.first()), capture.first.map(|text| text.map(str::to_owned)), "first of {file}");
        assert_eq!(shown(items.last()), capture.last.map(|text| text.map(str::to_owned)), "last of {file}");
    }
}
