#!/usr/bin/env bash
# Forgets what the demo imported: the next `make demo` finds every item new. Programs in .feedmill/bin stay.
#
# A `feedmill up --embedded` that was killed leaves its servers running. They are ended first: without their data they
# would be of no use, and without the note of their process ids nobody would find them again.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA=$PWD/.feedmill/data
STOP_TIMEOUT_S=20

# Ids may have been given to other processes since: ours works in our folder (Redis) or names it (mongod).
is_ours() {
    [[ $(readlink "/proc/$1/cwd" 2>/dev/null) == "$DATA"/* ]] || grep -qsF "$DATA/" "/proc/$1/cmdline"
}

if [ -e .feedmill/data/lock ] && ! flock --nonblock .feedmill/data/lock true; then
    echo "clean-demo: error: feedmill up --embedded is running here; stop it first" >&2
    exit 1
fi
for pid in $(grep -os '"pid":[0-9]*' .feedmill/data/servers.json | tr -dc '0-9\n'); do
    is_ours "$pid" || continue
    echo "clean-demo: ending a server that was left behind (process $pid)"
    kill -TERM "$pid"
    deadline=$((SECONDS + STOP_TIMEOUT_S))
    while is_ours "$pid" && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
done
rm -rf .feedmill/demo .feedmill/data .feedmill/embedded.env
