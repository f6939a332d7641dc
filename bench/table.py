"""Makes one table of the JSON lines of several systems (`feedmill bench --json`, bench/bullmq.mjs), read from stdin."""

import json
import sys

TITLES = {"feedmill": "feedmill", "bare": "bare", "bullmq": "BullMQ"}
# name, phase (None: adding and processing together), field, decimal places
ROWS = [
    ("add, jobs/s", "add", "per_s", 0),
    ("process, jobs/s", "process", "per_s", 0),
    ("latency p50, ms", "latency", "p50_ms", 2),
    ("latency p99, ms", "latency", "p99_ms", 2),
    ("Redis CPU, add, µs/job", "add", "redis_cpu_us_per_job", 1),
    ("Redis CPU, process, µs/job", "process", "redis_cpu_us_per_job", 1),
    ("Redis CPU, both, µs/job", None, "redis_cpu_us_per_job", 1),
    ("client CPU, add, µs/job", "add", "client_cpu_us_per_job", 1),
    ("client CPU, process, µs/job", "process", "client_cpu_us_per_job", 1),
    ("client CPU, both, µs/job", None, "client_cpu_us_per_job", 1),
    ("memory, bytes/waiting job", "memory", "bytes_per_job", 0),
]


def read(lines):
    """system → phase → what it found; of several concurrencies the last."""
    found = {}
    for line in lines:
        if line.strip():
            phase = json.loads(line)
            found.setdefault(phase["system"], {})[phase["phase"]] = phase
    return found


def value(phases, phase, field):
    """What a system has of a field; the sum of adding and processing without a phase. None where it is missing."""
    parts = [phases.get(name, {}).get(field) for name in ([phase] if phase else ["add", "process"])]
    return None if None in parts else sum(parts)


def shown(number, places):
    return "-" if number is None else f"{number:,.{places}f}"


def ratio(ours, theirs):
    return "-" if not ours or not theirs else f"{ours / theirs:.2f}"


def main():
    found = read(sys.stdin)
    systems = [system for system in TITLES if system in found]
    others = [system for system in systems if system != "feedmill"]
    table = [[""] + [TITLES[system] for system in systems] + [f"ours/{TITLES[other]}" for other in others]]
    for name, phase, field, places in ROWS:
        values = {system: value(found[system], phase, field) for system in systems}
        ours = values.get("feedmill")
        table.append(
            [name]
            + [shown(values[system], places) for system in systems]
            + [ratio(ours, values[other]) for other in others]
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip())


main()
