#!/usr/bin/env bash
# Imports the demo feeds over real HTTP and prints what came of them.
#
#   scripts/demo.sh        then ends, with the status of the import
#   scripts/demo.sh stay   then prints the addresses and stays up until Ctrl-C
#
#   feedmill demo serve ──HTTP──▶ feedmill fetch --all --wait ──jobs──▶ feedmill up --embedded (Redis, MongoDB, workers)
#
# All state is in .feedmill/demo: a second run finds every item unchanged, and a `feedmill up --embedded` of yours
# shares nothing with it. `make clean-demo` starts over.
#
#   DEMO_FEEDS     folder to serve instead of demo/feeds
#   DEMO_LISTEN    address for HTTP while it stays, instead of 127.0.0.1:4000
#   FEEDMILL_BIN   program to use instead of building one
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
FEEDS=${DEMO_FEEDS:-demo/feeds}
STATE=.feedmill/demo
CONFIG=$STATE/streams.toml
# `feedmill up --embedded` writes here where its servers listen, once they do.
ADDRESSES=$STATE/embedded.env
PORT_WANTED=4100
READY_TIMEOUT_S=60
LISTEN=${DEMO_LISTEN:-127.0.0.1:4000}

MODE=${1:-once}
case $MODE in
once | stay) ;;
*) echo "usage: scripts/demo.sh [stay]" >&2 && exit 2 ;;
esac

# What the caller has set for another feedmill is not meant for the demo, least of all its Redis and MongoDB.
unset REDIS_URL MONGODB_URI MONGODB_DATABASE BULL_QUEUE_NAME FEEDMILL_FETCH_QUEUE_NAME FEEDMILL_CONFIG
unset FEEDMILL_LISTEN FEEDMILL_METRICS_LISTEN FEEDMILL_TOKEN "${!WORKER_@}"

say() { echo "demo: $*"; }
die() {
    echo "demo: error: $*" >&2
    exit 1
}

# ── stopping what we started, however we end ───────────────────────────────────────────────────────────────────────

UP_PID=
SERVE_PID=

stop() {
    local pid=$1
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

stop_all() {
    # The workers first: they may still be asking the feed server.
    stop "$UP_PID"
    stop "$SERVE_PID"
}

trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────

build() {
    if [ -z "${FEEDMILL_BIN:-}" ]; then
        say "building feedmill (the first build takes some minutes)"
        cargo build --release --locked --quiet
        FEEDMILL_BIN=${CARGO_TARGET_DIR:-target}/release/feedmill
    fi
}

# Starts a command with its output in log $1 and puts its process id in STARTED. It gets a process group of its own:
# Ctrl-C reaches this script alone, which then stops what it started once and in order.
start() {
    local log=$1
    shift
    # What an earlier run wrote must not be read as if this one had.
    : >"$log"
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    STARTED=$!
    set +m
}

# Waits until command $4… succeeds, while process $1 (called $2, writing to log $3) is alive.
wait_until() {
    local pid=$1 name=$2 log=$3
    shift 3
    local deadline=$((SECONDS + READY_TIMEOUT_S))
    until "$@"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 20 "$log" >&2
            die "$name ended before it was ready; the end of $log is above"
        fi
        if [ $SECONDS -ge $deadline ]; then
            tail -n 20 "$log" >&2
            die "$name was not ready within $READY_TIMEOUT_S s; the end of $log is above"
        fi
        sleep 0.1
    done
}

# Prints the port in the line that the feed server writes once it listens.
served_port() { sed -n 's|^serving .* on http://127\.0\.0\.1:\([0-9]*\)$|\1|p' "$STATE/serve.log"; }
is_served_or_over() { [ -n "$(served_port)" ] || ! kill -0 "$SERVE_PID" 2>/dev/null; }

start_feed_server() {
    local port
    # Where 4100 is taken, a free port.
    for port in "$PORT_WANTED" 0; do
        start "$STATE/serve.log" "$FEEDMILL_BIN" demo serve "$FEEDS" --listen "127.0.0.1:$port"
        SERVE_PID=$STARTED
        wait_until "$SERVE_PID" "the feed server" "$STATE/serve.log" is_served_or_over
        port=$(served_port)
        [ -z "$port" ] || break
    done
    [ -n "$port" ] || die "the feed server does not start: $(tail -n 1 "$STATE/serve.log")"
    sed "s/127\.0\.0\.1:$PORT_WANTED/127.0.0.1:$port/" demo/streams.toml >"$CONFIG"
    say "serving $FEEDS on http://127.0.0.1:$port"
}

# A file from an earlier run does not count: only one written since $STATE/started was touched.
addresses_written() {
    [ "$ADDRESSES" -nt "$STATE/started" ] &&
        grep -q '^REDIS_URL=.' "$ADDRESSES" && grep -q '^MONGODB_URI=.' "$ADDRESSES"
}

start_feedmill() {
    touch "$STATE/started"
    start "$STATE/up.log" "$FEEDMILL_BIN" up --embedded --data-dir "$STATE" --listen "$LISTEN" --config "$CONFIG"
    UP_PID=$STARTED
    wait_until "$UP_PID" "feedmill up" "$STATE/up.log" addresses_written
    # Read, not sourced: a URL may hold what a shell would take for a command.
    local line
    while IFS= read -r line; do
        case $line in
        REDIS_URL=* | MONGODB_URI=*) export "${line?}" ;;
        esac
    done <"$ADDRESSES"
    say "feedmill is up, with a Redis and a MongoDB of its own (data in $STATE/data, log in $STATE/up.log)"
}

print_addresses() {
    say "feedmill stays up until Ctrl-C"
    echo "  HTTP      http://$LISTEN"
    echo "  metrics   http://$LISTEN/metrics"
    echo "  Redis     $REDIS_URL"
    echo "  MongoDB   $MONGODB_URI"
    echo "  log       $STATE/up.log"
    echo "Other commands find it with: set -a; . $ADDRESSES; set +a"
}

# ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

# A function, read as a whole: bash reads a script while it runs, and the build takes long enough for somebody to edit
# this file.
main() {
    # An import alone needs no address that others know, and somebody else may have that one.
    if [ "$MODE" = once ]; then LISTEN=127.0.0.1:0; fi
    scripts/setup.sh demo
    build
    mkdir -p "$STATE"
    start_feed_server
    start_feedmill
    say "importing"
    if [ "$MODE" = stay ]; then
        "$FEEDMILL_BIN" fetch --all --wait --config "$CONFIG" || say "not all of it worked, see above"
        print_addresses
        wait "$UP_PID" || die "feedmill ended; its log is $STATE/up.log"
        return
    fi
    # Not the last command of an `if` or `||`: its exit status is ours, after stop_all.
    "$FEEDMILL_BIN" fetch --all --wait --config "$CONFIG"
}

main
