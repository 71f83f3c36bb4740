#!/usr/bin/env bash
# Set up once, then run `specdraft sweep` with the arguments given: scripts/run.sh pair=zoo tree=chain,kary
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ""
exec "$venv/bin/specdraft" sweep "$@"
