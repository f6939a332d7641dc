"""Compares how fast a queue is worked on by the number of jobs that wait: JSON lines of `feedmill bench` from stdin.

The runs are in turns: one with few jobs waiting, one with many. Each pair gives a ratio, since the speed of a machine
varies from minute to minute.
"""

import itertools
import json
import statistics
import sys


def main():
    phases = [phase for phase in map(json.loads, sys.stdin) if phase["phase"] == "process"]
    runs = [(waiting, list(of_run)) for waiting, of_run in itertools.groupby(phases, key=lambda p: p["waiting"])]
    few, many = runs[0::2], runs[1::2]
    print(f"process, jobs/s: median (least to most) of {len(few)} runs of {len(few[0][1])} phases")
    print()
    for side in (few, many):
        rates = [phase["per_s"] for _, of_run in side for phase in of_run]
        cpu = statistics.median(phase["redis_cpu_us_per_job"] for _, of_run in side for phase in of_run)
        print(
            f"{side[0][0]:>11,} waiting  {statistics.median(rates):>7,.0f}  ({min(rates):,.0f} to {max(rates):,.0f})"
            f"  {cpu:.1f} µs/job of Redis"
        )
    ratios = [median_rate(m) / median_rate(f) for f, m in zip(few, many)]
    print(f"{'':>11} many/few {statistics.median(ratios):>7.2f}  ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")


def median_rate(run):
    return statistics.median(phase["per_s"] for phase in run[1])


main()
