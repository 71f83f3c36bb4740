"""Write specdraft/zoo/README.md from the training log and the reference study.

python scripts/model_card.py [--study results/reference]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from omegaconf import OmegaConf
from transformers import AutoConfig

ROOT = Path(__file__).resolve().parent.parent
ZOO = ROOT / "specdraft" / "zoo"
SHOWN = (("chain", 4), ("chain", 8), ("kary", 8), ("measured", 16), ("measured", 64))
HEADS, OF_HEADS = ("medusa", "nano"), (("chain", 4), ("kary", 8), ("measured", 16), ("medusa", 63))

TEXT = """# Bundled models

Small Llama-architecture models (safetensors, float32) with one byte-level BPE tokenizer of {vocab:,} tokens. They exist so that
acceptance is real without a download: a drafter that was really trained proposes tokens to a target that was really trained.
They are far too small to be useful for anything else.

{models}

*draft-distilled* has the size of *draft*, starts from its weights, and was then trained on the target's distribution (KL
divergence at every position), on the training text and on the target's own samples ({samples:,} tokens at temperatures {temperatures};
{share:.0%} of the batches). Its tokens in the table come on top of *draft*'s.

## Data

GSM8K's training split (MIT), tiny Shakespeare and six English novels from GITenberg (public domain), and the Python {python}
standard library with `pydoc_data.topics` (PSF licence): {train:,} training tokens. Every {every}th document of a domain (novel and
play excerpts of about {chars:,} characters, problems, source files, help topics) is held out and was never trained on.

| | {domains} |
| --- | {dashes} |
| training tokens | {train_tokens} |
| held-out tokens | {held_tokens} |

## Held-out loss

Nats per token at the end of training, float32. `reference` rests on {reference_tokens} held-out tokens only.

{losses}

## Acceptance on the bundled prompts

Greedy, {prompts} prompts, {new_tokens} new tokens each: block efficiency (tokens per verification step, bonus included) with 95 %
intervals over prompts. Median share of looping text: {loops:.2f} (see `loop_share` in the README).

{acceptance}

## Drafters that are no draft model

*medusa*: four Medusa heads on the target's last state, tied to its output layer (`drafter=medusa`). *nano*: a model of the last five
tokens (`drafter=nano`). Both learnt what the target says along training text and along its own greedy continuations
(`scripts/train_heads.sh`); their folders have a card each. On the same prompts, replayed (`results/drafters/zoo`):

{heads}

## Training

AdamW, cosine schedule, sequences of {seq_len} tokens, batches of {batch}; recipe in `scripts/train_zoo.yaml`, seed {seed}, loss log in
`training_log.csv`. Two cores of an Intel Xeon with bfloat16 units (matrix products in bfloat16, weights in float32), torch
{torch}; the seconds include the evaluations on the way and other work on the same two cores. Repeat it:
`python scripts/train_zoo.py --data FOLDER`.

Licence of the weights: Apache-2.0, as the code.
"""


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parameters(name: str) -> int:
    """Weights of a model, tied ones once."""
    c = AutoConfig.from_pretrained(ZOO / name)
    per_layer = 4 * c.hidden_size**2 + 3 * c.hidden_size * c.intermediate_size + 2 * c.hidden_size
    return int(c.vocab_size * c.hidden_size + c.num_hidden_layers * per_layer + c.hidden_size)


def acceptance(summary: pd.DataFrame, column: str, names: Sequence[str], shown: Sequence[tuple[str, int]]) -> str:
    """Block efficiency of a few trees for each pair, or each drafter."""
    rows = []
    for name in names:
        group, cells = summary[summary[column] == name], []
        for tree, budget in shown:
            one = group[(group["tree"] == tree) & (group["budget"] == budget)].iloc[0]
            cells.append(f"{one.block_efficiency:.2f} [{one.block_efficiency_lo:.2f}, {one.block_efficiency_hi:.2f}]")
        rows.append([f"`{name}`", *cells])
    return table([column, *(f"{tree} {budget}" for tree, budget in shown)], rows)


def main(
    study: Annotated[Path, typer.Option(help="a replayed default study")] = ROOT / "results" / "reference",
    drafters: Annotated[Path, typer.Option(help="that of drafters")] = ROOT / "results" / "drafters" / "zoo",
) -> None:
    recipe = OmegaConf.load(ROOT / "scripts" / "train_zoo.yaml")
    corpus = json.loads((ZOO / "corpus.json").read_text())
    last = pd.read_csv(ZOO / "training_log.csv").groupby("model", sort=False).last()
    domains = list(corpus["tokens"]["train"])
    losses: list[list[str]] = [
        [str(name), *(f"{row[f'held_out_{d}']:.2f}" for d in domains)] for name, row in last.iterrows()
    ]
    shapes: list[list[str]] = [
        [
            str(name),
            f"{parameters(str(name)) / 1e6:.2f} M",
            f"{spec.layers} x {spec.hidden}",
            f"{row.tokens / 1e6:.1f} M",
            f"{row.elapsed_s:,.0f}",
        ]
        for name, row in last.iterrows()
        for spec in [recipe.models[name]]
    ]
    summary, by_drafter = (pd.read_csv(folder / "summary.csv") for folder in (study, drafters))
    records = pd.read_csv(study / "records.csv")
    text = TEXT.format(
        vocab=recipe.tokenizer.vocab_size,
        models=table(["model", "parameters", "layers x width", "tokens trained on", "seconds"], shapes),
        samples=recipe.samples.tokens,
        temperatures=" and ".join(map(str, recipe.samples.temperatures)),
        share=recipe.samples.share,
        python=".".join(corpus["python"].split(".")[:2]),
        train=sum(corpus["tokens"]["train"].values()),
        every=recipe.held_out_every,
        chars=recipe.document_chars,
        domains=" | ".join(domains),
        dashes=" | ".join("---" for _ in domains),
        train_tokens=" | ".join(f"{corpus['tokens']['train'][d]:,}" for d in domains),
        held_tokens=" | ".join(f"{corpus['tokens']['held_out'][d]:,}" for d in domains),
        reference_tokens=corpus["tokens"]["held_out"]["reference"],
        losses=table(["model", *domains], losses),
        prompts=records["prompt_id"].nunique(),
        new_tokens=summary["max_new_tokens"].iloc[0],
        loops=records.drop_duplicates("prompt_id")["loop_share"].median(),
        acceptance=acceptance(summary, "pair", list(summary["pair"].unique()), SHOWN),
        heads=acceptance(by_drafter, "drafter", HEADS, OF_HEADS),
        seq_len=recipe.training.seq_len,
        batch=recipe.training.batch,
        seed=recipe.seed,
        torch=corpus["torch"],
    )
    (ZOO / "README.md").write_text(text)


if __name__ == "__main__":
    typer.run(main)
