#!/usr/bin/env bash
# Methods side by side: results/methods/zoo on the bundled models, results/methods/smollm2 on SmolLM2-135M-Instruct,
# and results/methods/smollm2-quoting, what looks up earlier text alone, on all summaries and retrieval questions.
# Each takes about 10 minutes.
#   scripts/bench_methods.sh [FOLDER] [OVERRIDES]
# FOLDER holds SmolLM2 as scripts/fetch_smollm2.py --out FOLDER --drafters writes it; without a FOLDER only the first runs.
set -euo pipefail
folder=""
if [ "${1:-}" ] && [[ "$1" != *=* ]]; then folder="$1"; shift; fi
more=("$@")
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ""  # not the arguments of this script
cd "$root"
methods() { "$venv/bin/specdraft" bench methods "$@" ${more[@]+"${more[@]}"}; }

methods --out results/methods/zoo
if [ "$folder" ]; then
    pair=(bench=methods-smollm2 pair=smollm2-layers8 pair.name=smollm2 "pair.target.path=$folder" "pair.draft.path=$folder-layers8" threads=2)
    methods "${pair[@]}" --out results/methods/smollm2
    heads='["eagle","eagle tree","lookahead","medusa tree","suffix tree"]'
    methods "${pair[@]}" "bench.only=$heads" bench.max_rounds=1 --out results/methods/smollm2-heads
    quoting=('prompts.categories=[summarization,rag]' prompts.limit=null max_new_tokens=128)
    lookups='["n-gram","suffix","suffix tree","transformers prompt lookup"]'
    methods "${pair[@]}" "${quoting[@]}" "bench.only=$lookups" bench.max_rounds=1 --out results/methods/smollm2-quoting
fi
