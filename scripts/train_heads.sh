#!/usr/bin/env bash
# The bundled drafters beside the draft models: scripts/train_heads.sh DATA OUT [SMOLLM2]
# DATA: the folder that scripts/train_zoo.py reads. SMOLLM2: a folder of SmolLM2-135M-Instruct
# (scripts/fetch_smollm2.py); left out: only what goes with the bundled target. A run that was stopped goes on.
set -euo pipefail
data=${1:?folder with the training text}
out=${2:?folder to write}
smollm2=${3:-}
cd "$(dirname "$0")/.."
python=.venv/bin/python
specdraft=.venv/bin/specdraft
mkdir -p "$out"
zoo=(pair=zoo "train.text=$out/zoo.jsonl" train.tokens=300000 train.continued=1500 train.window=128 train.positions=1024)

[ -e "$out/zoo.jsonl" ] || $python scripts/train_zoo.py --data "$data" --text-only "$out/zoo.jsonl"
[ -e "$out/medusa/README.md" ] || $specdraft train medusa "${zoo[@]}" train.blocks=2 train.steps=1200 train.lr=2e-3 \
    train.save_every=50 --out "$out/medusa"
[ -e "$out/parallel/README.md" ] || $specdraft train parallel "${zoo[@]}" train.positions=2048 \
    "train.target_layers=[1,4,6]" train.steps=1600 train.lr=2e-3 train.save_every=50 --out "$out/parallel"
[ -e "$out/nano/README.md" ] || $specdraft train nano "${zoo[@]}" train.span=5 train.width=48 train.inner=128 \
    train.steps=2500 train.lr=4e-3 train.save_every=50 --out "$out/nano"
# an EAGLE-3 head that reads true states only, then what it makes itself, on the target's own continuations
eagle=(pair=zoo "train.text=$out/zoo.jsonl" train.products=bfloat16 train.warmup=0.04)
[ -e "$out/eagle-begun/README.md" ] || $specdraft train eagle "${eagle[@]}" train.window=256 train.depths=1 \
    train.positions=4096 train.steps=2200 train.lr=3e-3 train.dtype=float32 --out "$out/eagle-begun"
[ -e "$out/eagle/README.md" ] || $specdraft train eagle "${eagle[@]}" train.start="$out/eagle-begun" train.whole=false \
    train.window=192 train.beginning=64 train.continued=9000 train.depths=4 train.positions=3072 train.steps=700 \
    train.lr=2e-3 train.save_every=50 --out "$out/eagle"
short=(pair=zoo "train.text=$out/zoo.jsonl" train.tokens=300000 train.continued=600 train.window=192 train.beginning=64
    train.positions=1024 train.steps=300 train.lr=2e-3 train.save_every=50)
for kind in redrafter hydra; do
    [ -e "$out/$kind/README.md" ] || $specdraft train "$kind" "${short[@]}" --out "$out/$kind"
done
if [ -n "$smollm2" ] && [ ! -e "$out/smollm2-eagle/README.md" ]; then
    # the bundled head's text was a choice of documents, most of them solved problems
    $python scripts/training_prompts.py --data "$data" --out "$out/more-prompts.jsonl" --count 1150 \
        --unlike specdraft/bundled/instruct.jsonl
    $specdraft train eagle "pair.target.path=$smollm2" pair.target.dtype=bfloat16 prompts=jsonl \
        "prompts.path=$out/more-prompts.jsonl" max_new_tokens=160 "train.text=$out/zoo.jsonl" train.tokens=200000 \
        train.window=256 train.inner=768 train.draft_vocab=8192 train.depths=3 train.products=bfloat16 \
        train.positions=2048 train.steps=320 train.lr=1.5e-3 train.warmup=0.06 train.save_every=10 \
        --out "$out/smollm2-eagle"
fi
if [ -n "$smollm2" ] && [ ! -e "$out/smollm2-medusa/README.md" ]; then
    $python scripts/training_prompts.py --data "$data" --out "$out/prompts.jsonl" \
        --unlike specdraft/bundled/instruct.jsonl
    $specdraft train medusa "pair.target.path=$smollm2" prompts=jsonl "prompts.path=$out/prompts.jsonl" \
        max_new_tokens=96 train.candidates=2048 train.steps=600 train.positions=1024 train.lr=1e-3 \
        train.save_every=50 --out "$out/smollm2-medusa"
fi
