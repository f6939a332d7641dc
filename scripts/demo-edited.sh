#!/usr/bin/env bash
# The demo once more, on a copy of its feeds in which one item has another title than in any run before.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
COPY=.feedmill/demo/edited
COUNTER=.feedmill/demo/edits
TITLE='Lighthouse Keeper (Seasonal)'

mkdir -p "$COPY"
edit=$(($(cat "$COUNTER" 2>/dev/null || echo 0) + 1))
echo "$edit" >"$COUNTER"

cp demo/feeds/* "$COPY/"
sed "s/<title>$TITLE</<title>$TITLE, edit $edit</" demo/feeds/jobboard.rss >"$COPY/jobboard.rss"
echo "demo: in $COPY/jobboard.rss, '$TITLE' is now '$TITLE, edit $edit'"

DEMO_FEEDS=$COPY exec scripts/demo.sh
