#!/usr/bin/env python3
"""Draws the panels of the Grafana dashboard from the answers of a Prometheus, one SVG for each row of the dashboard.

    scripts/draw_dashboard.py http://127.0.0.1:9090 [--minutes 10] [--queue job_import_queue] [--out docs/dashboard]

Asks what Grafana would ask; a row that is repeated for each queue is drawn for one. Needs nothing but Python 3. Exits
with 1 when a panel has no data.
"""

import argparse
import datetime
import json
import math
import pathlib
import sys
import time
import urllib.parse
import urllib.request
from xml.sax.saxutils import escape

DASHBOARD = pathlib.Path(__file__).parent.parent / "grafana/dashboards/feedmill.json"
WIDTH, UNIT_HEIGHT, GAP = 1440, 32, 8  # px: 24 columns wide; of one unit of a panel's height; between panels
POINTS = 150  # of a line
PALETTE = ["#3f8f3a", "#c98500", "#3274d9", "#d0342c", "#8f3bb8", "#00838f", "#b5651d", "#5a6270"]
COLOURS = {"green": "#2e7d32", "orange": "#d97706", "red": "#c62828", "text": "#1f2933"}
FONT = "font-family='Inter, Helvetica, Arial, sans-serif'"


def ask(base, path, **query):
    """What Prometheus answers, as its list of results."""
    with urllib.request.urlopen(f"{base}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def scaled(value, steps, digits=3):
    """A number in the largest of some steps [(size, unit)] that is not above it, in so many digits."""
    size, unit = next(((size, unit) for size, unit in steps if abs(value) >= size), steps[-1])
    return f"{float(f'{value / size:.{digits}g}'):g}{unit}"


def shown(value, unit):
    """A number as Grafana writes it in this unit."""
    if value == 0:
        return {"s": "0 s", "bytes": "0 B", "percentunit": "0%", "ops": "0/s"}.get(unit, "0")
    if unit == "s":
        return scaled(value, [(86400, " d"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")])
    if unit == "bytes":
        return scaled(value, [(2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")])
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    return scaled(value, [(1e6, " M"), (1e3, " K"), (1, ""), (1e-3, " m")]) + ("/s" if unit == "ops" else "")


def ticks(top, unit):
    """Values that are round in this unit, from 0 up to at least `top`."""
    if unit == "bytes":
        scale = 1024 ** math.floor(math.log(max(top, 1), 1024))
        return [mark * scale for mark in ticks(top / scale, "short")]
    power = 10 ** math.floor(math.log10(top / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * 4 >= top * 0.999)
    return [step * n for n in range(math.ceil(top / step - 1e-9) + 1)]


def named(target, labels):
    """The legend of a series."""
    name = target["legendFormat"]
    for label, value in labels.items():
        name = name.replace("{{%s}}" % label, value)
    return name


class Panel:
    def __init__(self, json, ask_panel):
        self.json, self.unit = json, json["fieldConfig"]["defaults"]["unit"]
        self.series = ask_panel(json)

    def has_data(self):
        return any(not math.isnan(value) for _, points in self.series for _, value in points)

    def draw(self, x, y, width, height):
        title = escape(self.json["title"])
        yield f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='4' fill='#fff' stroke='#d8dde3'/>"
        yield f"<text x='{x + 12}' y='{y + 22}' font-size='14' font-weight='600' fill='#1f2933'>{title}</text>"
        draw = self.draw_number if self.json["type"] == "stat" else self.draw_lines
        yield from draw(x, y, width, height)

    def draw_number(self, x, y, width, height):
        defaults = self.json["fieldConfig"]["defaults"]
        values = [value for _, points in self.series for _, value in points[-1:]]
        value = values[0] if values else math.nan
        text, colour = ("no data" if math.isnan(value) else shown(value, self.unit)), "text"
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is None or value >= step["value"]:
                colour = step["color"]
        mapped = (defaults.get("mappings") or [{"options": {}}])[0]["options"].get(f"{value:g}")
        if mapped:
            text, colour = mapped["text"], mapped["color"]
        size = min(36, width / len(text) * 1.3)
        yield (
            f"<text x='{x + width / 2}' y='{y + height / 2 + 26}' font-size='{size:.0f}' font-weight='600' "
            f"text-anchor='middle' fill='{COLOURS[colour]}'>{escape(text)}</text>"
        )

    def draw_lines(self, x, y, width, height):
        custom = self.json["fieldConfig"]["defaults"]["custom"]
        left, top, right, bottom = x + 70, y + 40, x + width - 16, y + height - 68
        numbers = [(name, [(at, v) for at, v in points if not math.isnan(v)]) for name, points in self.series]
        numbers = [(name, points) for name, points in numbers if points]
        floors = []
        if "stacking" in custom:
            # From below: each line stands on the sum of those before it.
            below = {}
            for n, (name, points) in enumerate(numbers):
                floors.append([(at, below.get(at, 0)) for at, _ in points])
                numbers[n] = (name, [(at, below.get(at, 0) + value) for at, value in points])
                below.update(numbers[n][1])
        highest = max((value for _, points in numbers for _, value in points), default=0)
        marks = ticks(self.json["fieldConfig"]["defaults"].get("max") or highest or 1, self.unit)
        start, end = self.start, self.end
        to_x = lambda at: left + (at - start) / (end - start) * (right - left)
        to_y = lambda value: bottom - value / marks[-1] * (bottom - top)
        for mark in marks:
            at = to_y(mark)
            yield f"<line x1='{left}' y1='{at:.1f}' x2='{right}' y2='{at:.1f}' stroke='#e8ebef'/>"
            yield (
                f"<text x='{left - 8}' y='{at + 4:.1f}' font-size='11' text-anchor='end' fill='#5a6270'>"
                f"{escape(shown(mark, self.unit))}</text>"
            )
        labels = max(2, int((right - left) / 110))
        for n in range(labels + 1):
            at = start + (end - start) * n / labels
            time_of_day = datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%H:%M:%S")
            anchor = {0: "start", labels: "end"}.get(n, "middle")
            yield (
                f"<text x='{to_x(at):.1f}' y='{bottom + 16}' font-size='11' text-anchor='{anchor}' fill='#5a6270'>"
                f"{time_of_day}</text>"
            )
        drawn = lambda points: " ".join(f"{to_x(at):.1f},{to_y(value):.1f}" for at, value in points)
        coloured = list(zip(numbers, (PALETTE[n % len(PALETTE)] for n in range(len(numbers)))))
        for n, ((_, points), colour) in enumerate(coloured):
            line, floor = drawn(points), floors[n] if floors else [(points[0][0], 0), (points[-1][0], 0)]
            if len(points) == 1:
                at, value = points[0]
                yield f"<circle cx='{to_x(at):.1f}' cy='{to_y(value):.1f}' r='2.5' fill='{colour}'/>"
                continue
            area = f"{line} {drawn(reversed(floor))}"
            yield f"<polygon points='{area}' fill='{colour}' opacity='{custom['fillOpacity'] / 100}'/>"
            # A band without height would hide the line below it.
            if any(value > below for (_, value), (_, below) in zip(points, floor)) or not floors:
                yield f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='1.8'/>"
        at, base = x + 12, y + height - 30
        for (name, _), colour in coloured:
            needed = 26 + 6.8 * len(name)
            if at + needed > x + width - 8:
                at, base = x + 12, base + 18
            yield f"<rect x='{at:.0f}' y='{base - 7}' width='14' height='4' rx='2' fill='{colour}'/>"
            yield f"<text x='{at + 19:.0f}' y='{base}' font-size='12' fill='#1f2933'>{escape(name)}</text>"
            at += needed + 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prometheus", help="its address, such as http://127.0.0.1:9090")
    parser.add_argument("--minutes", type=float, default=10, help="how far back (default: 10)")
    parser.add_argument("--until", type=float, default=time.time(), metavar="UNIX_TIME", help="to when (default: now)")
    parser.add_argument("--queue", default="job_import_queue", help="queue of the row that is repeated")
    parser.add_argument("--rate", default="1m", help="window of rates, at least four scrapes (default: 1m)")
    folder = pathlib.Path("docs/dashboard")
    parser.add_argument("--out", type=pathlib.Path, default=folder, help=f"folder of the pictures (default: {folder})")
    args = parser.parse_args()
    end = args.until
    start = end - args.minutes * 60
    Panel.start, Panel.end = start, end

    def ask_panel(panel, queue):
        series = []
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", args.rate).replace("$queue", queue)
            step = args.minutes * 60 / POINTS
            found = ask(args.prometheus, "query_range", query=expression, start=start, end=end, step=step)
            for one in found:
                series.append((named(target, one["metric"]), [(at, float(value)) for at, value in one["values"]]))
        return series

    rows, without_data = [], []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            rows.append((panel, []))
            continue
        row, panels = rows[-1]
        queue = args.queue if row.get("repeat") else ".*"
        panels.append(Panel(panel, lambda panel: ask_panel(panel, queue)))
        if not panels[-1].has_data():
            without_data.append(f"{row['title']} / {panel['title']}")
    args.out.mkdir(parents=True, exist_ok=True)
    for row, panels in rows:
        first, column = row["gridPos"]["y"] + 1, WIDTH / 24
        lines, height = [], 0
        for panel in panels:
            grid = panel.json["gridPos"]
            x, y = GAP + grid["x"] * column, 44 + (grid["y"] - first) * UNIT_HEIGHT
            lines += panel.draw(x, y, grid["w"] * column - GAP, grid["h"] * UNIT_HEIGHT - GAP)
            height = max(height, y + grid["h"] * UNIT_HEIGHT)
        title = escape(row["title"].replace("$queue", args.queue))
        name = row["title"].split()[0].lower() + ".svg"
        (args.out / name).write_text(
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH + GAP} {height}' {FONT}>\n"
            f"<rect width='{WIDTH + GAP}' height='{height}' fill='#f4f6f8'/>\n"
            f"<text x='{GAP + 4}' y='28' font-size='18' font-weight='600' fill='#1f2933'>{title}</text>\n"
            + "\n".join(lines)
            + "\n</svg>\n"
        )
        print(args.out / name)
    for panel in without_data:
        print(f"no data: {panel}", file=sys.stderr)
    return 1 if without_data else 0


if __name__ == "__main__":
    sys.exit(main())
