"""What scoring nodes costs of a live step: of trees that are pruned, and of best-first trees that a predictor ranks.

    python scripts/bench_scoring.py [PAIR ...] [--prompts 8] [--rounds 5] [--new-tokens 64] [--out FILE.csv]

A pruned step says itself what it spent on scoring and pruning (`predict_s`: `with_pruning`), of which scoring is the
`share`; of best-first trees it is what was spent in the scorer. The predictor is the default one of `specdraft fit
predictor`. Prompts and rounds are interleaved; the median of the rounds counts, and their range is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from specdraft.acceptance import Greedy
from specdraft.decoding.decode import Decoding, decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.pruning import WHOLE, Pruner, Pruning
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.pair import Pair, load_pair
from specdraft.prediction.cross_fitting import fit
from specdraft.prediction.predictor import About, Predictor
from specdraft.prediction.pruning import Drafted
from specdraft.prediction.pruning.threshold import Threshold
from specdraft.prediction.tree_scores import PredictedScores
from specdraft.results.files import to_csv, write_atomically
from specdraft.sampling.distribution import Sampling
from specdraft.study.fit_predictor import Learnt, learn
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan, Shape
from specdraft.trees.shapes.base import NodeScores, SaidChildren, TextsBefore
from specdraft.trees.shapes.best_first import BestFirst, BestFirstPlan
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.published import Published
from specdraft.trees.step import Step

PAIRS = ["zoo", "zoo-distilled", "zoo-tiny"]
BUDGET = 16
Decoder = Callable[[list[int], Plan, Pruning], Decoding]


@dataclass(frozen=True)
class Timed:
    """A scorer whose seconds are summed in `spent_s`, the only element of a list."""

    scorer: PredictedScores
    spent_s: list[float] = field(default_factory=lambda: [0.0], compare=False)
    name: str = "timed"

    @property
    def temperature(self) -> float:
        return self.scorer.temperature

    @property
    def only_tempered(self) -> bool:
        return self.scorer.only_tempered

    def begin(self, before: TextsBefore) -> NodeScores:
        scores = self.timed(self.scorer.begin)(before)
        return TimedScores(self.timed(scores.children), self.timed(scores.keep))

    def timed(self, does: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            started = time.perf_counter()
            done = does(*given)
            self.spent_s[0] += time.perf_counter() - started
            return done

        return timed


@dataclass(frozen=True)
class TimedScores:
    """See `NodeScores`."""

    children: Callable[[np.ndarray, SaidChildren], np.ndarray]
    keep: Callable[[np.ndarray, np.ndarray], None]


class TimedPruner(Pruner):
    """A pruner that sums the seconds of scoring."""

    spent_s = 0.0

    def score(self, tree: DraftTree) -> Drafted:
        started = time.perf_counter()
        drafted = super().score(tree)
        self.spent_s += time.perf_counter() - started
        return drafted


class TimedPruning(Pruning):
    """Pruning with such a pruner, for one prompt."""

    def begin(self, prompt_ids: Sequence[int]) -> Pruner:
        vars(self)["pruner"] = pruner = TimedPruner(self, prompt_ids)
        return pruner


def spent_of_pruned(decoder: Decoder, ids: list[int], plan: Plan, pruning: Pruning) -> tuple[float, float, float]:
    """Seconds of scoring, of scoring and pruning, and of all of the steps."""
    steps = decoder(ids, plan, pruning).finish().steps
    return vars(pruning)["pruner"].spent_s, sum(step.predict_s for step in steps), seconds_of(steps)


def spent_of_ranked(decoder: Decoder, ids: list[int], plan: BestFirstPlan, scorer: Timed) -> tuple[float, float, float]:
    """Seconds in the scorer, nothing known of pruning, and seconds of all of the steps."""
    scorer.spent_s[0] = 0.0
    steps = decoder(ids, plan.scored_by(scorer), WHOLE).finish().steps
    return scorer.spent_s[0], np.nan, seconds_of(steps)


def seconds_of(steps: Sequence[Step]) -> float:
    return sum(step.draft_s + step.predict_s + step.verify_s + step.other_s for step in steps)


def of_pair(name: str, prompts: int, rounds: int, new_tokens: int) -> list[dict[str, Any]]:
    learnt = learn([f"pair={name}"])
    pair = load_pair(name)
    ways = ways_of(predictor_of(pair, learnt))
    texts = [pair.encode(prompt.text) for prompt in learnt.prompts[:: max(1, len(learnt.prompts) // prompts)]][:prompts]

    def decoder(ids: list[int], plan: Plan, pruning: Pruning) -> Decoding:
        ending, verifier = Ending(new_tokens, pair.eos_ids), Verifier.of(pair)
        return decode(verifier, pair.drafter, plan, Greedy(), Sampling(), ids, ending, pruning=pruning)

    spent = {way: np.zeros((rounds, 3)) for way in ways}
    for number in range(-1, rounds):  # the first round warms up
        for ids in texts:
            for way, measured in ways.items():
                taken = measured(decoder, ids)
                if number >= 0:
                    spent[way][number] += taken
    shares = {way: each[:, :2] / each[:, 2:] for way, each in spent.items()}
    return [
        {"pair": name, "tree": way[0], "scores": way[1], "share": np.median(share[:, 0]), "least": share[:, 0].min(),
         "most": share[:, 0].max(), "with_pruning": np.median(share[:, 1])} for way, share in shares.items()
    ]  # fmt: skip


def predictor_of(pair: Pair, learnt: Learnt) -> Predictor:
    """The default one of `specdraft fit predictor`."""
    found = fit("mlp", learnt.rows, np.arange(len(learnt.prompts)))
    target, draft = pair.files.weights
    how = ("mlp", "none", found.model.groups, len(learnt.prompts), len(learnt.rows.prompt))
    about = About(pair.name, "model", target, draft, Sampling(), learnt.temperature, *how)
    return Predictor(found.model, found.calibrations["none"], about)


def ways_of(predictor: Predictor) -> dict[tuple[str, str], Callable[..., Any]]:
    """(tree, what scores it) -> what measures one prompt."""
    ways: dict[tuple[str, str], Callable[..., Any]] = {}
    temperature = predictor.about.scores_temperature

    def pruned(shape: Shape, scores: str) -> Callable[..., Any]:
        plan = shape.at(BUDGET)
        told_by = predictor if scores == "predictor" else None
        pruning = TimedPruning(Threshold(scores=scores), temperature, None, plan.dynamic, told_by)
        return lambda decoder, ids: spent_of_pruned(decoder, ids, plan, pruning)

    for shape in (Chain(), Kary(), Published(name="medusa/mc_sim_7b_63")):
        for scores in ("calibrated", "predictor"):
            ways[f"pruned {shape.label}", scores] = pruned(shape, scores)
    for nodes in (BUDGET, 64):
        ranked = (BestFirst().at(nodes), Timed(PredictedScores("", temperature, predictor)))
        ways[f"best_first {nodes}", "predictor"] = lambda decoder, ids, ranked=ranked: spent_of_ranked(
            decoder, ids, *ranked
        )
    return ways


def main(
    pairs: Annotated[list[str] | None, typer.Argument(help="the bundled ones if left out")] = None,
    prompts: Annotated[int, typer.Option(help="of each pair")] = 8,
    rounds: Annotated[int, typer.Option(help="interleaved")] = 5,
    new_tokens: Annotated[int, typer.Option(help="of each prompt")] = 64,
    out: Annotated[Path | None, typer.Option(help="a table")] = None,
) -> None:
    rows = [row for name in pairs or PAIRS for row in of_pair(name, prompts, rounds, new_tokens)]
    table = pd.DataFrame(rows)
    if out:
        write_atomically(out, to_csv(table))
    typer.echo(table.round(4).to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
