#!/usr/bin/env bash
# Reproduce the course report into results/course-report/: shapes x budgets x pairs, greedy and at temperature 1, what lies
# behind it, tree attention, and the paper. Arguments go to `specdraft sweep`: pair=NAME for a pair of your own, and
# language=zh for a paper in Chinese. SPECDRAFT_PYTHON=PYTHON takes an environment that has specdraft already.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ -z "${SPECDRAFT_PYTHON:-}" ]; then
    . "$here/setup.sh" ""  # not the arguments of this script
    SPECDRAFT_PYTHON="$venv/bin/python"
fi
cd "$here/.."
out=results/course-report
language=language=en
pair=
overrides=()
for argument in "$@"; do
    case "$argument" in
        language=*) language="$argument"; continue ;;
        pair=* | pair.*) pair=given ;;
    esac
    overrides+=("$argument")
done
parts=(course-report course-report-nodes course-report-widths course-report-beams course-report-siblings course-report-sampled)

specdraft() {
    "$SPECDRAFT_PYTHON" -c 'from specdraft.cli import main; main()' "$@"
}

sweep() {  # OUT OVERRIDES...
    specdraft sweep --out "$1" report=false "${@:2}"
}

for part in "${parts[@]}"; do
    sweep "$out" experiment="$part" "${overrides[@]}"
done
smollm2="${XDG_CACHE_HOME:-$HOME/.cache}/specdraft/models/smollm2-135m-instruct"
if [ -z "$pair" ] && [ -d "$smollm2-layers8" ]; then  # written by scripts/fetch_smollm2.py --drafters
    real=(pair=smollm2-layers8 pair.name=smollm2-layers8 pair.target.path="$smollm2" pair.draft.path="$smollm2-layers8" prompts=instruct
        prompts.limit=18 certify=false)
    sweep "$out/smollm2" experiment=course-report tree=chain,kary,branching,beam,wide,sequoia "${real[@]}" "${overrides[@]}"
    for part in "${parts[@]:1:4}"; do
        sweep "$out/smollm2" experiment="$part" "${real[@]}" "${overrides[@]}"
    done
    sweep "$out/smollm2" experiment=course-report-sampled tree=chain,kary acceptance=rejection,recursive "${real[@]}" "${overrides[@]}"
fi
specdraft report "$out"
specdraft bench attention batch=1,4 context=512,2048 nodes=8,32 tree=chain,wide,kary geometry=zoo max_s=1 total_s=25 \
    --out "$out/attention"
"$SPECDRAFT_PYTHON" scripts/course_report.py "$out" "$language"
