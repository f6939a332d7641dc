#!/usr/bin/env bash
# Forgets what the demo imported: the next `make demo` finds every item new. Programs in .feedmill/bin stay, and so does
# what a `feedmill up --embedded` of yours has stored.
#
# A demo that was killed leaves its servers running. They are ended first: without their data they would be of no use,
# and without the note of their process ids nobody would find them again.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
STATE=.feedmill/demo
DATA=$PWD/$STATE/data
STOP_TIMEOUT_S=20

# Ids may have been given to other processes since: ours works in our folder (Redis) or names it (mongod).
is_ours() {
    [[ $(readlink "/proc/$1/cwd" 2>/dev/null) == "$DATA"/* ]] || grep -qsF "$DATA/" "/proc/$1/cmdline"
}

if [ -e "$DATA/lock" ] && ! flock --nonblock "$DATA/lock" true; then
    echo "clean-demo: error: the demo is running here; stop it first" >&2
    exit 1
fi
for pid in $(grep -os '"pid":[0-9]*' "$DATA/servers.json" | tr -dc '0-9\n'); do
    is_ours "$pid" || continue
    echo "clean-demo: ending a server that was left behind (process $pid)"
    kill -TERM "$pid"
    deadline=$((SECONDS + STOP_TIMEOUT_S))
    while is_ours "$pid" && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
done
rm -rf "$STATE"
