#!/usr/bin/env bash
# Every kind of drafter on one target, replayed: scripts/drafters.sh OUT [OVERRIDES]. Trees of the second sweep are as
# deep as heads go, and join the first one's tables.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?the folder to write}
shift
.venv/bin/specdraft sweep experiment=drafters report=false "$@" --out "$out"
.venv/bin/specdraft sweep experiment=drafters tree=best_first-calibrated tree.max_depth=4 "$@" --out "$out"
