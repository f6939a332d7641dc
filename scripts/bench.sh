#!/usr/bin/env bash
# Measures the queue beside the bare commands and BullMQ on one private Redis, in turns, and prints one table; then how fast
# the queue is worked on with few and with many jobs waiting, each on a Redis of its own, in turns too.
#
#   scripts/bench.sh
#
#   redis-server (AOF everysec) ◀── feedmill bench --system feedmill,bare │ and again, TABLE_ROUNDS times
#                               ◀── node bench/bullmq.mjs                 │  then bench/table.py
#   redis-server ◀── feedmill bench --waiting FEW │ and again, WAITING_ROUNDS times
#   redis-server ◀── feedmill bench --waiting MANY│                          then bench/waiting.py
#
# One system after the other; their keys and the server's data are deleted at the end. What the machine does besides is
# in the figures too.
#
#   BENCH_JOBS     jobs of each system, instead of 100000
#   BENCH_WAITING  many jobs waiting, instead of 1000000
#   FEEDMILL_BIN   program to use instead of building one
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
JOBS=${BENCH_JOBS:-100000}
MANY=${BENCH_WAITING:-1000000}
FEW=10000
TABLE_ROUNDS=3
WAITING_ROUNDS=5
PAYLOAD_BYTES=600
CONCURRENCY=100
STATE=.feedmill/bench-table
READY_TIMEOUT_S=30

say() { echo "bench: $*" >&2; }
die() {
    echo "bench: error: $*" >&2
    exit 1
}

[[ $JOBS =~ ^[1-9][0-9]*$ ]] || die "BENCH_JOBS is '$JOBS'; set it to a number of jobs, such as 100000"
[[ $MANY =~ ^[1-9][0-9]*$ ]] || die "BENCH_WAITING is '$MANY'; set it to a number of jobs, such as 1000000"

REDIS_PID=
PORT=

stop_redis() {
    if [ -n "$REDIS_PID" ]; then
        kill -TERM "$REDIS_PID" 2>/dev/null || true
        wait "$REDIS_PID" 2>/dev/null || true
        REDIS_PID=
    fi
    rm -rf "$STATE/data"
}

trap stop_redis EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

build() {
    if [ -z "${FEEDMILL_BIN:-}" ]; then
        say "building feedmill (the first build takes some minutes)"
        cargo build --release --locked --quiet
        FEEDMILL_BIN=${CARGO_TARGET_DIR:-target}/release/feedmill
    fi
}

is_ready() { grep -q 'eady to accept connections' "$STATE/redis.log" 2>/dev/null; }

# On a port that nobody has: where it is taken after all, the server ends, and the next port is tried.
start_redis() {
    local attempt deadline
    for attempt in 1 2 3 4 5; do
        PORT=$((20000 + RANDOM % 20000))
        rm -rf "$STATE/data"
        mkdir -p "$STATE/data"
        # No rewrite of the append-only file: it would fall into whatever is measured just then.
        set -m
        redis-server --bind 127.0.0.1 --port "$PORT" --daemonize no --save '' --maxmemory-policy noeviction \
            --appendonly yes --appendfsync everysec --auto-aof-rewrite-percentage 0 \
            --dir "$PWD/$STATE/data" >"$STATE/redis.log" 2>&1 </dev/null &
        REDIS_PID=$!
        set +m
        deadline=$((SECONDS + READY_TIMEOUT_S))
        while kill -0 "$REDIS_PID" 2>/dev/null && [ $SECONDS -lt $deadline ]; do
            if is_ready; then return; fi
            sleep 0.05
        done
        [ $SECONDS -lt $deadline ] || break
    done
    die "redis-server does not start (attempt $attempt): $(tail -n 1 "$STATE/redis.log")"
}

# As a function, read as a whole: bash reads a script while it runs.
main() {
    scripts/setup.sh bench >&2
    build
    mkdir -p "$STATE"
    start_redis
    local url=redis://127.0.0.1:$PORT lines=$STATE/lines.ndjson
    local asked=(--redis-url "$url" --jobs "$JOBS" --payload-bytes "$PAYLOAD_BYTES" --concurrency "$CONCURRENCY")
    : >"$lines"
    local round
    for ((round = 1; round <= TABLE_ROUNDS; round++)); do
        say "round $round of $TABLE_ROUNDS: feedmill, the bare commands and BullMQ, $JOBS jobs each"
        "$FEEDMILL_BIN" bench "${asked[@]}" --system feedmill,bare --json >>"$lines" 2>"$STATE/bench.log" ||
            die "feedmill bench failed: $(tail -n 1 "$STATE/bench.log")"
        node bench/bullmq.mjs "${asked[@]}" >>"$lines" 2>"$STATE/bullmq.log" ||
            die "bench/bullmq.mjs failed: $(tail -n 1 "$STATE/bullmq.log")"
    done
    echo "$(redis-server --version | sed 's/.*v=\([^ ]*\).*/Redis \1/'), AOF everysec; $JOBS jobs of $PAYLOAD_BYTES" \
        "bytes; worker concurrency $CONCURRENCY; $(nproc) cores;" \
        "BullMQ $(node -p "require('./tests/bullmq/node_modules/bullmq/package.json').version")"
    echo "Medians of $TABLE_ROUNDS rounds; of ratios the median, least and most."
    echo
    python3 bench/table.py <"$lines"
    stop_redis
    measure_waiting
}

# In turns, since the speed of a machine varies; several times on one Redis, since filling it takes longest.
measure_waiting() {
    local round waiting lines=$STATE/waiting.ndjson
    : >"$lines"
    for ((round = 1; round <= WAITING_ROUNDS; round++)); do
        for waiting in "$FEW" "$MANY"; do
            say "round $round of $WAITING_ROUNDS with $waiting jobs waiting"
            start_redis
            "$FEEDMILL_BIN" bench --redis-url "redis://127.0.0.1:$PORT" --jobs "$JOBS" --samples 0 \
                --payload-bytes "$PAYLOAD_BYTES" --concurrency "$CONCURRENCY,$CONCURRENCY,$CONCURRENCY" \
                --waiting "$waiting" --json >>"$lines" 2>"$STATE/bench.log" ||
                die "feedmill bench failed: $(tail -n 1 "$STATE/bench.log")"
            stop_redis
        done
    done
    echo
    python3 bench/waiting.py <"$lines"
}

main
