#!/usr/bin/env bash
# Makes docs/screenshots anew: every page of the dashboard, light and dark, 1280 and 390 pixels wide, of a feedmill whose
# boards and news change while they are imported for MINUTES (15), so that there is something to see.
#
#   MINUTES=2 scripts/screenshots.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PATH:$PWD/.feedmill/bin
# Without it the pictures are three times as large.
type -P pngquant >/dev/null || echo "screenshots: no pngquant; install the package of that name for small files" >&2
rm -rf docs/screenshots
FEEDMILL_SCREENSHOTS=$PWD/docs/screenshots FEEDMILL_SCREENSHOTS_MINUTES=${MINUTES:-15} \
    cargo nextest run --locked -E 'test(pictures::)'
echo "screenshots: $(find docs/screenshots -name '*.png' | wc -l) are in docs/screenshots"
