#!/usr/bin/env bash
# What only a GPU can show, in order of worth: scripts/gpu_check.sh OUT [--dry]
# Within 8 minutes on an H100 or H200: each part has a time limit of its own, and none goes on beyond the whole's. OUT gets
# at most 8 files: summary.md and the tables. --dry: the same on a CPU, as small as can be.
# PYTHON: the interpreter that has the package's libraries (default: python3).
set -uo pipefail
cd "$(dirname "$0")/.."
out=$1 dry=${2:-}
python=${PYTHON:-python3}
whole=465 # seconds, and a few more for the summary
mkdir -p "$out"
work=$(mktemp -d)
trap 'summarise; rm -rf "$work"' EXIT # also where the whole is stopped
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" SPECDRAFT_TRACES="$work/traces"
specdraft=("$python" -c 'from specdraft.cli import main; main()')
few=(prompts.limit=5) texts=60 step=(--attention own,triton) caches=static,graph size=llama-3.2-1b
slack=1 # times the limits: a CPU may be busy with other things
if [ "$dry" = --dry ]; then few=(prompts.limit=2 max_new_tokens=8) texts=50 step=(--small --attention own,grouped) slack=8 whole=3000 caches=static size=tiny; fi

part() { # NAME SECONDS COMMAND...: run a part under its limit, and say how it ended
    local name=$1 limit=$(($2 * slack)) started=$SECONDS
    shift 2
    if [ "$limit" -gt $((whole - SECONDS)) ]; then limit=$((whole - SECONDS)); fi
    if [ "$limit" -lt 5 ]; then
        printf '| %s | no time left | |\n' "$name" >>"$work/parts.md"
        return
    fi
    timeout -k 5 "$limit" "$@" >"$work/$name.log" 2>&1
    local rc=$?
    printf '| %s | %s | %s s |\n' "$name" "$rc" $((SECONDS - started)) >>"$work/parts.md"
    { printf '\n## %s\n\n```\n' "$name"; tail -n 30 "$work/$name.log" | sed "s#$work#OUT#g"; printf '```\n'; } >>"$work/logs.md"
    echo "$name: exit $rc after $((SECONDS - started)) s"
}

keep() { # FOLDER FILE...: of its results, as FOLDER-FILE
    local folder=$1 file
    shift
    for file in "$@"; do
        if [ -f "$work/$folder/$file" ]; then cp "$work/$folder/$file" "$out/$folder-$file"; fi
    done
}

attention() { # NAME SECONDS OVERRIDE...: ends by itself before its limit, so that its table is written
    local name=$1 limit=$2
    shift 2
    if [ "$dry" = --dry ]; then set -- batch=1 context=8,64 nodes=3 tree=chain,kary geometry=zoo max_rounds=2; fi
    part "$name" "$limit" "${specdraft[@]}" bench attention "$@" "total_s=$((limit * 6 / 10))" max_s=2 --out "$work/$name"
    if [ -f "$work/$name/attention.md" ]; then
        cp "$work/$name/attention.csv" "$out/$name.csv"
        { echo; grep -v -e '^#' -e '^!\[' "$work/$name/attention.md"; } >>"$work/logs.md"
    fi
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

tests=(tests/attention tests/bench/test_attention.py tests/decoding/test_cuda.py tests/acceptance/test_rules.py)
float32=(pair.target.dtype=float32 pair.draft.dtype=float32)
if [ "$dry" != --dry ]; then part gpu-tests 100 "$python" -m pytest -q -m gpu -p no:cacheprovider "${tests[@]}"; fi
# where keys and values are 256 MB and memory binds (8 x 8192, up to 16 nodes), and beside it
attention attention 80 geometry=llama-3.1-8b batch=8,1 context=8192,512 nodes=16,64 tree=chain,wide,kary \
    contestants=triton,merged,dense,sequential,flashinfer
part llama-1b 60 "$python" scripts/bench_step.py "$out/llama-1b.json" --cache "dynamic,$caches" "${step[@]}"
part layered-pair 60 "$python" scripts/make_layered_pair.py "$work/layered" --size "$size"
part layered-decode 100 "$python" scripts/bench_decode.py --folder "$work/layered" --prompts 4 --rounds 1 --new-tokens 32 \
    --cache "$caches" --out "$out/layered.json"
both=(pair=zoo engine=live,replay tree=chain,kary budget=4,16 report=false)
part live-bfloat16 60 "${specdraft[@]}" sweep --out "$work/live-bfloat16" name=live "${both[@]}" "${few[@]}"
keep live-bfloat16 summary.csv
part certify-bfloat16 40 "${specdraft[@]}" certify pair=zoo --texts "$texts" prompts.limit=1 acceptance=recursive,block
part live-float32 60 "${specdraft[@]}" sweep --out "$work/live-float32" name=live "${both[@]}" "${float32[@]}" "${few[@]}"
keep live-float32 summary.csv
part default 60 "${specdraft[@]}" sweep --out "$work/default" report=false "${few[@]}"
part layered-profile 40 "$python" scripts/profile_step.py --folder "$work/layered" --cache "dynamic,$caches" --prompts 1 --new-tokens 32
part llama-8b 60 "$python" scripts/bench_step.py "$out/llama-8b.json" --size llama-3.1-8b --cache dynamic,graph "${step[@]}"
# more while time is left: the contestants that compile, other heads
attention attention-more 150 geometry=llama-3.1-8b,llama-3.2-1b,llama-3.1-70b batch=8,1 context=8192,2048,32768 nodes=15,63 \
    tree=chain,wide,medusa contestants=triton,flex,merged,expanded,sequential
