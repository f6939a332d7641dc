"""Makes one table of the JSON lines of several systems (`feedmill bench --json`, bench/bullmq.mjs), read from stdin.

The systems may have been measured several times in turns: then a value is a median, and a ratio that of the ratios of each
round, since the speed of a machine varies from minute to minute.
"""

import json
import statistics
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
    """system → rounds → phase → what it found; of several concurrencies the last."""
    found = {}
    for line in lines:
        if line.strip():
            phase = json.loads(line)
            rounds = found.setdefault(phase["system"], [{}])
            if phase["phase"] != "process" and phase["phase"] in rounds[-1]:
                rounds.append({})
            rounds[-1][phase["phase"]] = phase
    return found


def values(rounds, phase, field):
    """What a system has of a field, by round; the sum of adding and processing without a phase. None where it is missing."""

    def value(phases):
        parts = [phases.get(name, {}).get(field) for name in ([phase] if phase else ["add", "process"])]
        return None if None in parts else sum(parts)

    return [value(phases) for phases in rounds]


def shown(numbers, places):
    return "-" if None in numbers else f"{statistics.median(numbers):,.{places}f}"


def ratio(ours, theirs):
    pairs = list(zip(ours, theirs))
    if not all(our and their for our, their in pairs):
        return "-"
    ratios = [our / their for our, their in pairs]
    text = f"{statistics.median(ratios):.2f}"
    return text if len(ratios) == 1 else f"{text} ({min(ratios):.2f}-{max(ratios):.2f})"


def main():
    found = read(sys.stdin)
    systems = [system for system in TITLES if system in found]
    others = [system for system in systems if system != "feedmill"]
    table = [[""] + [TITLES[system] for system in systems] + [f"ours/{TITLES[other]}" for other in others]]
    for name, phase, field, places in ROWS:
        by_system = {system: values(found[system], phase, field) for system in systems}
        ours = by_system.get("feedmill", [None])
        table.append(
            [name]
            + [shown(by_system[system], places) for system in systems]
            + [ratio(ours, by_system[other]) for other in others]
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip())


main()
