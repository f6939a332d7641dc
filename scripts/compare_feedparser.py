#!/usr/bin/env python3
"""Compares what `feedmill parse` reads with what feedparser (Python) reads, field by field, as a table.

    scripts/compare_feedparser.py [--show N] [FILE|FOLDER ...]

Without arguments it takes the fixtures of the tests and, where it is set, the folder FEEDMILL_CAPTURES. The program is
FEEDMILL (target/release/feedmill, else target/debug/feedmill). feedparser is installed from PyPI into a virtual
environment under .feedmill/ the first time.

Compared are the texts without markup and with white space collapsed, dates to the second, and everything else once more
unescaped (where a feed is not well-formed, feedparser leaves `&amp;` as it is).
Where feedmill reads a field otherwise than feedparser on purpose, both readings count as agreement:

- a summary that feedparser copies from the content is null here
- a second summary (itunes:summary, media:description) is no content here
- dc:date is when an item was published here, and updated there
- an author is a name here (`mail (Name)` is Name), several are joined; an entry without one has the feed's
- a guid that is no address of a page is no link here
- of a feed that is cut off, the item at which that happens is not here
- a zone by its European name (CET) is UTC there
- the files of Media RSS are enclosures here, where there is no other
- a category that comes twice is one here; which comes first is not compared
"""

import html
import json
import os
import re
import subprocess
import sys
import venv
from calendar import timegm
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".feedmill" / "feedparser"
FIELDS = ["items", "guid", "title", "link", "published", "updated", "summary", "content", "author", "categories", "enclosures"]
NO_FEEDS = {".json", ".jsonfeed", ".md", ".enc", ".py", ".txt"}


def with_feedparser():
    """Runs this script again in an environment that has feedparser."""
    python = HOME / "bin" / "python"
    if not python.exists():
        print("installing feedparser into", HOME.relative_to(ROOT), file=sys.stderr)
        venv.create(HOME, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "feedparser"], check=True)
    os.execv(python, [str(python), *sys.argv])


def plain(text):
    """A text without its markup."""
    text = re.sub(r"<[^>]*>", " ", text or "")
    for _ in range(2):
        text = html.unescape(text)
    text = re.sub(r"<[^>]*>", " ", text)
    return re.sub(r"\W+", " ", text).strip() or None


def seconds(parsed):
    return timegm(parsed) if parsed else None


def instant(text):
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() // 1) if text else None


def theirs(entry):
    """The fields as feedparser has them."""
    published = entry.get("published_parsed") or entry.get("created_parsed")
    return {
        "guid": html.unescape(entry.get("id") or "") or None,
        "title": plain(entry.get("title")),
        "link": html.unescape(entry.get("link") or "") or None,
        "published": seconds(published),
        "updated": seconds(dict.get(entry, "updated_parsed")),
        "summary": plain(entry.get("summary")),
        "content": plain(entry["content"][0].value) if entry.get("content") else None,
        "author": plain((entry.get("author_detail") or {}).get("name") or entry.get("author")),
        "categories": [html.unescape(tag.term) for tag in entry.get("tags", []) if tag.term],
        "enclosures": [html.unescape(e["href"]).strip() for e in entry.get("enclosures", []) if e.get("href")],
    }


def ours(item):
    """The fields as feedmill has them."""
    return {
        "guid": html.unescape(item["guid"] or "") or None,
        "title": plain(item["title"]),
        "link": html.unescape(item["link"] or "") or None,
        "published": instant(item["published"]),
        "updated": instant(item["updated"]),
        "summary": plain(item["summary"]),
        "content": plain(item["content"]),
        "author": plain(item["author"]),
        "categories": [html.unescape(category) for category in item["categories"]],
        "enclosures": [html.unescape(enclosure["url"]) for enclosure in item["enclosures"]],
    }


def agrees(field, ours, theirs, entry):
    """Whether both read the same, or each its own way of those above."""
    a, b = ours[field], theirs[field]
    if a == b:
        return True
    if field == "link":
        return a is None and b == theirs["guid"]
    if field == "summary":
        return a is None and b == theirs["content"]
    if field == "content":
        # A second summary.
        return a is None and ours["summary"] is not None
    if field == "published":
        return b is None and a == theirs["updated"]
    if field == "updated":
        return a is None and b == ours["published"]
    if field == "author":
        names = [plain(author.get("name") or author.get("email")) for author in entry.get("authors", []) if author]
        return b is None or a is not None and (a in names or all(name in a for name in names if name))
    if field == "categories":
        return set(a) == set(b)
    if field == "enclosures":
        return not b and a == [html.unescape(media["url"]) for media in entry.get("media_content", []) if media.get("url")]
    return False


def compare(path, program, counts, shown, limit):
    """Adds the agreement of one file to `counts` (field -> [agreed, compared])."""
    import feedparser

    there = feedparser.parse(path.read_bytes(), sanitize_html=False, resolve_relative_uris=False)
    run = subprocess.run([program, "parse", path], capture_output=True, text=True)
    items = [json.loads(line) for line in run.stdout.splitlines()]
    if run.returncode != 0 and not there.entries:
        return
    counts["items"][1] += 1
    is_cut_off = "cut off before its end" in run.stderr
    is_same = len(items) == len(there.entries) - is_cut_off or len(items) == len(there.entries)
    counts["items"][0] += is_same
    if not is_same:
        shown.append(f"{path.name}: {len(items)} items, feedparser {len(there.entries)} {run.stderr.strip()}")
    for at, (item, entry) in enumerate(zip(items, there.entries)):
        a, b = ours(item), theirs(entry)
        for field in FIELDS[1:]:
            is_same = agrees(field, a, b, entry)
            counts[field][1] += 1
            counts[field][0] += is_same
            if not is_same and sum(line.startswith(f"{path.name} {field}") for line in shown) < limit:
                shown.append(f"{path.name} {field} {at}: {str(a[field])[:150]!r}, feedparser {str(b[field])[:150]!r}")


def main():
    args = sys.argv[1:]
    limit = int(args.pop(args.index("--show") + 1)) if "--show" in args else 0
    args = [arg for arg in args if arg != "--show"]
    places = args or [ROOT / "tests/fixtures/feeds", *filter(None, [os.environ.get("FEEDMILL_CAPTURES")])]
    files = []
    for place in map(Path, places):
        inside = sorted(place.iterdir()) if place.is_dir() else [place]
        files += [path for path in inside if path.is_file() and path.suffix not in NO_FEEDS]
    built = [ROOT / "target" / profile / "feedmill" for profile in ("release", "debug")]
    program = os.environ.get("FEEDMILL") or next((str(path) for path in built if path.exists()), None)
    if not program:
        sys.exit("error: feedmill is not built: run `cargo build --release`, or set FEEDMILL")
    counts = {field: [0, 0] for field in FIELDS}
    shown = []
    for path in files:
        compare(path, program, counts, shown, limit)
    print(*shown[: len(shown) if limit else 0], sep="\n")
    print(f"{'field':<12}{'agree':>8}{'of':>8}{'':>4}share")
    total = [0, 0]
    for field, (agreed, compared) in counts.items():
        total = [total[0] + agreed, total[1] + compared]
        print(f"{field:<12}{agreed:>8}{compared:>8}{agreed / max(compared, 1):>9.2%}")
    print(f"{'all':<12}{total[0]:>8}{total[1]:>8}{total[0] / max(total[1], 1):>9.2%}  in {len(files)} files")


if __name__ == "__main__":
    try:
        import feedparser  # noqa: F401
    except ModuleNotFoundError:
        with_feedparser()
    main()
