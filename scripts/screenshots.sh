#!/usr/bin/env bash
# Makes docs/screenshots anew: every page of the dashboard, light and dark, 1280 and 390 pixels wide, of a feedmill that
# imports hostile feeds. It is the browser test that takes them, after it has looked for complaints and barriers.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PATH:$PWD/.feedmill/bin
rm -rf docs/screenshots
FEEDMILL_SCREENSHOTS=$PWD/docs/screenshots cargo nextest run --locked -E 'test(dashboard::every_page)'
echo "screenshots: $(find docs/screenshots -name '*.png' | wc -l) are in docs/screenshots"
