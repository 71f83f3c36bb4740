"""What an affine alignment is worth as a drafter, beside the draft model's own output layer and one fitted anew.

    python scripts/bench_alignment.py --data FOLDER [--out results/prediction/alignment.csv]

For every bundled pair: maps are fitted to text (novels, worked problems, Python's standard library: documents of each
kind in turn), and judged on the target's greedy continuations of the bundled prompts, which no fit has seen. The heads,
all on the same draft states: `own`, the draft model's output layer; `least squares`, `U (W x + b)` with the target's
output layer U; `kl`, the same refined by KL to the target's distribution; `free`, the control: an output layer of the
draft's own width, started from `own` and refined on the same states in the same way. Trees are replayed; differences to
`own` are paired over prompts.
"""

from __future__ import annotations

import json
import random
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from functools import reduce
from itertools import zip_longest
from operator import add
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer
from rich.console import Console

from specdraft.decoding.ending import Ending
from specdraft.drafters.base import RecordedText
from specdraft.drafters.loaded.aligned import AffineMap, Head, HeadedModel
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.models.output_layer import LAST
from specdraft.models.sizes import FLOAT32_BYTES
from specdraft.prediction.alignment import Affine, RidgeFits, choose_ridge
from specdraft.prediction.alignment_heads import Heads
from specdraft.prediction.alignment_quality import HeldOut, Quality
from specdraft.prediction.alignment_refine import Refined, Training, refine
from specdraft.prediction.overhead import overhead
from specdraft.prompts import Prompt, PromptSpec, load_prompts
from specdraft.replay.static import pack, replay
from specdraft.results.bounds import Ratios, bounds, bounds_of_differences, ratios_of_sums
from specdraft.results.files import to_csv, write_atomically
from specdraft.results.metrics import RATIOS
from specdraft.study.alignment_fit import gather
from specdraft.study.alignment_texts import windows_to_fit
from specdraft.study.combination import encode_all
from specdraft.study.plan import one_combination
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore, default_folder
from specdraft.trees.shapes import StaticPlan
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary

PAIRS, FOLDS, WINDOW, DOCUMENT = ("zoo", "zoo-distilled", "zoo-tiny"), 5, 256, 4000
TREES: dict[str, StaticPlan] = {"chain 4": Chain().at(4), "chain 8": Chain().at(8), "kary 16": Kary().at(16)}


class Tried(NamedTuple):
    """A head, and how it came about.

    Attributes:
        logits: `[..., d_d]` -> `[..., vocab]`.
        affine: the map of an alignment; else None.
        parameters: beside both models.
        refined: how refining went.
    """

    name: str
    logits: Head
    affine: Affine | None = None
    parameters: int = 0
    refined: Refined | None = None


def documents(folder: Path) -> str:
    """Text of every kind that is there, a document of each kind in turn, in an order that is always the same."""
    prose = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.txt"))]
    rows = [json.loads(line) for path in sorted(folder.rglob("gsm8k_train.jsonl")) for line in path.open()]
    solved = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    code = [path.read_text(encoding="utf-8", errors="ignore") for path in sorted(stdlib.glob("*.py"))]
    kinds = [["\n\n".join(solved[i : i + 8]) for i in range(0, len(solved), 8)]]
    kinds += [
        [text[i : i + DOCUMENT] for text in texts for i in range(0, len(text), DOCUMENT)] for texts in (prose, code)
    ]
    for kind in kinds:
        random.Random(0).shuffle(kind)
    return "\n\n".join(document for turn in zip_longest(*kinds) for document in turn if document)


class Texts(NamedTuple):
    """The prompts that heads are judged on."""

    prompts: list[Prompt]
    read: list[RecordedText]

    @property
    def categories(self) -> np.ndarray:
        """`[P]` as numbers."""
        return np.unique([prompt.category for prompt in self.prompts], return_inverse=True)[1]


def texts_of(pair: Pair) -> Texts:
    """The bundled prompts with the target's greedy continuations."""
    combination = one_combination("bench", [f"pair={pair.name}"])
    prompts = load_prompts(PromptSpec())
    ids = encode_all(pair.files, prompts, "auto", combination.settings, 0)
    ending = Ending(combination.settings.max_new_tokens, pair.eos_ids)
    traces = pair_traces(pair, ids, combination.sampling, ending, TraceStore(default_folder()))
    return Texts(prompts, [RecordedText(ids[p.prompt_id], traces.trajectories[p.prompt_id].tokens) for p in prompts])


def fitted(pair: Pair, text: Path, tokens: int, training: Training) -> tuple[list[Tried], dict[str, Any]]:
    """Every head, and facts of the fit."""
    heads, drafter = Heads.of(pair), pair.drafter
    assert isinstance(drafter, ModelDrafter)
    windows = windows_to_fit(pair.files, str(text), WINDOW, tokens, FOLDS)
    gathered = gather(pair, windows, FOLDS, keep=True)
    fits, ridge = RidgeFits(total := reduce(add, gathered.folds)), choose_ridge(gathered.folds).ridge
    squares, states = fits.fit(ridge), (gathered.draft, gathered.target)
    refined = refine(squares, fits.about, *states, heads.of_target, heads.of_target, training)
    own = Affine(heads.draft.weight[: heads.vocab].double(), torch.zeros(heads.vocab).double())
    free = refine(own, fits.about, *states, lambda logits: logits, heads.of_target, training)
    layer = AffineMap(free.affine.weight, free.affine.bias)
    facts = {"tokens": total.positions, "ridge": ridge, "condition": fits.condition(ridge)}
    parameters = squares.weight.numel() + squares.bias.numel()
    return [
        Tried("own", heads.of_draft),
        Tried("least squares", heads.aligned(squares), squares, parameters),
        Tried("kl", heads.aligned(refined.affine), refined.affine, parameters, refined),
        Tried("free", layer, None, layer.weight.numel() + layer.bias.numel(), free),
    ], facts


def judged(pair: Pair, texts: Texts, heads: list[Tried]) -> dict[str, Quality]:
    """Each head on the states before the tokens of the continuations."""
    drafter = pair.drafter
    assert isinstance(drafter, ModelDrafter)
    of_target = Heads.of(pair).of_target
    nothing = next(head.affine for head in heads if head.affine is not None)
    held_out = {h.name: HeldOut(h.affine or nothing, {h.name: h.logits}, of_target) for h in heads}
    for text in texts.read:
        both = (
            model.states_along([text.prompt_ids], [text.tokens], [LAST])[0] for model in (drafter.model, pair.target)
        )
        x, y = (states[len(text.prompt_ids) - 1 :, 0] for states in both)
        for head in heads:
            held_out[head.name].add(x, y)
    return {name: figures.figures() for name, figures in held_out.items()}


def efficiencies(pair: Pair, texts: Texts, logits: Head) -> dict[str, Ratios]:
    """Tree -> its block efficiency with a head, one ratio over the prompts."""
    assert isinstance(pair.drafter, ModelDrafter)
    drafter = ModelDrafter(HeadedModel(pair.drafter.model, logits))
    said = [annotation for text in texts.read for annotation in drafter.annotate([text])]
    packed = pack([a.ranks for a in said], [text.tokens for text in texts.read])
    terms, below = RATIOS["block_efficiency"]
    sums = {name: replay(plan.topology, packed).sums for name, plan in TREES.items()}
    above = {name: np.sum([each[term] for term in terms], 0) for name, each in sums.items()}
    return {name: ratios_of_sums(above[name][None] * 1.0, each[below][None] * 1.0) for name, each in sums.items()}


def rows_of(name: str, text: Path, tokens: int, training: Training) -> Iterator[dict[str, Any]]:
    """The table's rows of one pair."""
    pair = load_pair(name)
    texts = texts_of(pair)
    heads, facts = fitted(pair, text, tokens, training)
    quality = judged(pair, texts, heads)
    own = efficiencies(pair, texts, heads[0].logits)
    for head in heads:
        figures, refined = quality[head.name], head.refined
        memory, of_map = overhead(head.parameters * FLOAT32_BYTES, pair.files.models), head.affine is not None
        about = {
            "pair": name,
            "head": head.name,
            **facts,
            "held_out_tokens": figures.positions,
            "r2": figures.r2 if of_map else None,
            "cosine": figures.cosine if of_map else None,
            "agreement": figures.heads[head.name].agreement,
            "kl": figures.heads[head.name].kl,
            "steps": refined.steps if refined else 0,
            "training_kl": refined.kl_after if refined else None,
            "training_kl_halfway": refined.kl_halfway if refined else None,
            "converged": refined.converged if refined else None,
            "memory_mb": memory.megabytes,
            "memory_percent": memory.percent,
        }
        for tree, ratio in efficiencies(pair, texts, head.logits).items():
            (ends,) = bounds(ratio, texts.categories, (1.0, np.inf))
            (apart,) = bounds_of_differences(ratio, own[tree], texts.categories)
            yield about | {
                "tree": tree,
                "block_efficiency": float(ratio.estimates[0]),
                "block_efficiency_lo": ends[0],
                "block_efficiency_hi": ends[1],
                "difference": float(ratio.estimates[0] - own[tree].estimates[0]),
                "difference_lo": apart[0],
                "difference_hi": apart[1],
            }


def main(
    data: Annotated[Path, typer.Option(help="a folder of .txt files and gsm8k_train.jsonl")],
    out: Annotated[Path, typer.Option(help="the table")] = Path("results/prediction/alignment.csv"),
    tokens: Annotated[int, typer.Option(help="of the text that is fitted to")] = 210_000,
    steps: Annotated[int, typer.Option(help="of refining")] = 600,
    pairs: Annotated[str, typer.Option(help="with commas between them")] = ",".join(PAIRS),
) -> None:
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "documents.txt"
        text.write_text(documents(data), encoding="utf-8")
        for name in pairs.split(","):
            began = time.process_time()
            rows += rows_of(name, text, tokens, Training(steps=steps))
            console.print(f"{name}: {time.process_time() - began:.0f} s of processor time")
            write_atomically(out, to_csv(pd.DataFrame(rows)))
    console.print(pd.DataFrame(rows)[["pair", "head", "r2", "agreement", "tree", "block_efficiency"]].to_string())


if __name__ == "__main__":
    typer.run(main)
