"""What pruning loses, beside what else could have been pruned: at random, by other scores, knowing the text.

Regret is the difference in accepted tokens between the whole tree and what is left of it, at every place at which a
step could start; it is exact, because what a start accepts depends on its tree alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specdraft.prediction.pruning import StepCosts
from specdraft.replay.best_first import accepted_tokens
from specdraft.replay.pruned import Scored


class Regret(NamedTuple):
    """Over F starts.

    Attributes:
        nodes: mean nodes that are sent.
        tokens: accepted tokens that are lost at a start, the mean.
        goodput: share of the tokens per second that a choice in hindsight would make, by measured costs, that is lost.
    """

    nodes: float
    tokens: float
    goodput: float


def regret(scored: Scored, kept: np.ndarray, costs: StepCosts) -> Regret:
    """Of sending these nodes `[F, N]`.

    Args:
        scored: the drafted trees.
        kept: what is left of them.
        costs: of a step at each start.
    """
    whole, left = accepted_tokens(scored.walked, scored.there), accepted_tokens(scored.walked, kept)
    size = kept.sum(1)
    rate = (1 + left).sum() / (costs.fixed_s + costs.verify_s[size]).sum()
    return Regret(float(size.mean()), float((whole - left).mean()), 1 - rate / best_rate(whole, costs))


def best_rate(accepted: np.ndarray, costs: StepCosts) -> float:
    """Tokens per second if each start sent the best part of the path that it accepts, `accepted` `[F]` long at most.

    The most that a ratio of sums can be, found by Dinkelbach 1967: what gains most over the rate so far, until nothing
    does.
    """
    lengths = np.arange(accepted.max(initial=0) + 1)
    seconds = costs.fixed_s[:, None] + costs.verify_s[lengths]
    tokens, rate = np.where(lengths <= accepted[:, None], 1.0 + lengths, -np.inf), 0.0
    while True:
        best = (tokens - rate * seconds).argmax(1)
        rows = np.arange(len(best))
        better = float(tokens[rows, best].sum() / seconds[rows, best].sum())
        if better <= rate:
            return rate
        rate = better


def at_random(scored: Scored, count: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`[F, N]` so many nodes `[F]` of each tree, ancestors with them, whatever their scores."""
    drafted = scored.drafted
    lot = rng.random(drafted.parent.shape)
    rows = np.arange(len(lot))
    for place in range(lot.shape[1]):  # no node comes before its parent: it draws at most what that has
        above = drafted.parent[:, place]
        lot[:, place] = np.where(above > 0, np.minimum(lot[:, place], lot[rows, above - 1]), lot[:, place])
    return drafted._replace(log_survival=lot).best(count)


def as_many(scored: Scored, log_survival: np.ndarray, total: int) -> np.ndarray:
    """`[F, N]` the `total` likeliest nodes of all trees together, by other scores `[F, N]`: a threshold on these."""
    values = np.where(scored.there, log_survival, -np.inf)
    if total >= scored.there.sum():
        return scored.there
    least = np.partition(values.ravel(), values.size - total - 1)[values.size - total - 1]
    kept: np.ndarray = scored.there & (log_survival > least)
    return kept


def in_hindsight(scored: Scored) -> np.ndarray:
    """`[F, N]` exactly the nodes that each start accepts."""
    kept = np.zeros(scored.there.shape, dtype=bool)
    row, level = np.nonzero(scored.walked.on_path[:, 1:] <= scored.there.shape[1])
    place = scored.walked.on_path[row, level + 1] - 1
    kept[row, place] = scored.there[row, place]
    return kept
