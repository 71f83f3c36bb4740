#!/usr/bin/env bash
# Reproduce the course report: shapes x budgets x pairs, greedy and at temperature 1, into results/course-report/.
# Pairs of your own: scripts/reproduce_course_report.sh pair=NAME, or the line `pair:` in configs/experiment/course-report*.yaml.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ""  # not the arguments of this script
cd "$root"
"$venv/bin/specdraft" sweep experiment=course-report report=false "$@"
"$venv/bin/specdraft" sweep experiment=course-report-sampled "$@"
"$venv/bin/specdraft" bench attention batch=1,4 context=512,2048 nodes=8,32 tree=chain,wide,kary geometry=zoo max_s=1 total_s=25 \
    --out results/course-report/attention
"$venv/bin/python" scripts/course_report.py results/course-report
