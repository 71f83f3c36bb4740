#!/usr/bin/env bash
# What only a GPU can show, in order of worth: scripts/gpu_check.sh OUT [--dry]
# Each part has a time limit of its own; OUT gets summary.md and the tables. --dry: the same on a CPU, as small as can be.
# PYTHON: the interpreter that has the package's libraries (default: python3).
set -uo pipefail
cd "$(dirname "$0")/.."
out=$1 dry=${2:-}
python=${PYTHON:-python3}
mkdir -p "$out"
work=$(mktemp -d)
trap 'summarise; rm -rf "$work"' EXIT # also where the whole is stopped
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" SPECDRAFT_TRACES="$work/traces"
specdraft=("$python" -c 'from specdraft.cli import main; main()')
few=(prompts.limit=5) texts=60
if [ "$dry" = --dry ]; then few=(prompts.limit=2 max_new_tokens=8) texts=40; fi

part() { # NAME SECONDS COMMAND...: run a part under its limit, and say how it ended
    local name=$1 limit=$2 started=$SECONDS
    shift 2
    timeout "$limit" "$@" >"$work/$name.log" 2>&1
    local rc=$?
    printf '| %s | %s | %s s |\n' "$name" "$rc" $((SECONDS - started)) >>"$work/parts.md"
    { printf '\n## %s\n\n```\n' "$name"; tail -n 25 "$work/$name.log" | sed "s#$work#OUT#g"; printf '```\n'; } >>"$work/logs.md"
    echo "$name: exit $rc after $((SECONDS - started)) s"
}

keep() { # STUDY: its tables and manifest, as STUDY-records.csv ...
    for file in summary.csv manifest.json; do
        if [ -f "$work/$1/$file" ]; then cp "$work/$1/$file" "$out/$1-$file"; fi
    done
}

summarise() {
    {
        echo "# What only a GPU can show"
        echo
        "$python" -c 'import platform, torch, transformers
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"{gpu}; Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}")'
        echo
        echo "| part | exit code | time |"
        echo "| --- | --- | --- |"
        cat "$work/parts.md" "$work/logs.md"
    } >"$out/summary.md"
}

tests=(tests/decoding/test_cuda.py tests/acceptance/test_rules.py)
float32=(pair.target.dtype=float32 pair.draft.dtype=float32)
if [ "$dry" != --dry ]; then part gpu-tests 120 "$python" -m pytest -q -m gpu "${tests[@]}"; fi
both=(pair=zoo engine=live,replay tree=chain,kary budget=4,16 report=false)
part live-bfloat16 120 "${specdraft[@]}" sweep --out "$work/live-bfloat16" name=live "${both[@]}" "${few[@]}"
keep live-bfloat16
part live-float32 120 "${specdraft[@]}" sweep --out "$work/live-float32" name=live "${both[@]}" "${float32[@]}" "${few[@]}"
keep live-float32
part certify-bfloat16 60 "${specdraft[@]}" certify pair=zoo --texts "$texts" prompts.limit=1 acceptance=recursive,block
part default 200 "${specdraft[@]}" sweep --out "$work/default" report=false "${few[@]}"
keep default
