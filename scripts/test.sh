#!/usr/bin/env bash
# Set up once, then run the checks and the tests: scripts/test.sh [PYTEST ARGS], as scripts/test.sh -m slow; -n 0: in one process
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev
cd "$root"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/lint-imports"
exec "$venv/bin/python" -m pytest -n logical --maxprocesses 4 --dist loadfile "$@"
