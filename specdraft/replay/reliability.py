"""What a drafter's scores say against what happens: predicted and observed acceptance of the nodes of its trees.

Of every node of the best-first trees of every start, whether a step starts there or not: `survival`, that the node is
on the target's text, against its cumulative score; and `conditional`, of nodes whose parent is on the text, that the
node is too, against its own score. What the end of a text hides is left out: it is censored, not wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from specdraft.replay.best_first import Walked
from specdraft.trees.ranks import PackedRanks

BINS = 20  # of equal width, as usual since Guo et al. 2017
COLUMNS = ["what", "by", "depth", "rank", "bin", "nodes", "predicted", "accepted"]


class _Nodes(NamedTuple):
    """The nodes that a prediction is about, side by side: `[k]` each."""

    depth: np.ndarray
    rank: np.ndarray
    predicted: np.ndarray
    accepted: np.ndarray


def reliability(walked: Walked, packed: PackedRanks) -> pd.DataFrame:
    """By bins of what is predicted, and by depth and child rank.

    Args:
        walked: best-first trees along trajectories.
        packed: ranks of these trajectories.

    Returns:
        Rows of `what` (survival, conditional), `by` (`score`: a row a `bin`, from 0; `place`: a row per `depth` and
        `rank`; -1 where a column does not apply), `nodes`, `predicted` (their mean), `accepted` (how many).
    """
    tables = [_grouped(what, nodes) for what, nodes in _predictions(walked, packed).items()]
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def _predictions(walked: Walked, packed: PackedRanks) -> dict[str, _Nodes]:
    position = np.arange(len(walked.prompt)) - walked.first[walked.prompt]
    known = (walked.depth > 0) & (position[:, None] + walked.depth <= packed.last[walked.prompt][:, None])
    start, place = np.nonzero(known)
    depth, parent = walked.depth[start, place], walked.parent[start, place]
    above = np.where(parent > 0, walked.log_prob[start, np.maximum(parent, 1) - 1], 0.0)
    log_prob = walked.log_prob[start, place]
    last_ranks = np.array([path[-1] if path else -1 for path in walked.paths])
    rank = last_ranks[walked.path[start, place]]
    reached = walked.on_path[start, depth - 1] == parent
    accepted = reached & (walked.on_path[start, depth] == place + 1)
    survival = _Nodes(depth, rank, np.exp(log_prob), accepted)
    conditional = _Nodes(depth, rank, np.exp(log_prob - above), accepted)
    return {"survival": survival, "conditional": _Nodes(*(field[reached] for field in conditional))}


def _grouped(what: str, nodes: _Nodes) -> pd.DataFrame:
    table = pd.DataFrame(nodes._asdict())
    table["bin"] = np.minimum((table["predicted"] * BINS).astype(int), BINS - 1)
    parts = []
    for by, keys in (("score", ["bin"]), ("place", ["depth", "rank"])):
        grouped = table.groupby(keys).agg(
            nodes=("accepted", "size"), predicted=("predicted", "mean"), accepted=("accepted", "sum")
        )
        parts.append(grouped.reset_index().assign(by=by))
    return pd.concat(parts).fillna({"depth": -1, "rank": -1, "bin": -1}).assign(what=what).astype(WHOLE)


def merged(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Tables of several sets of prompts as one."""
    parts = [table.assign(predicted=table["predicted"] * table["nodes"]) for table in tables]
    summed = pd.concat(parts).groupby(COLUMNS[:5], sort=False).sum().reset_index()
    return summed.assign(predicted=summed["predicted"] / summed["nodes"])[COLUMNS]


WHOLE = {"depth": int, "rank": int, "bin": int, "nodes": int, "accepted": int}


def calibration_error(table: pd.DataFrame) -> float:
    """The expected calibration error: the mean distance of observed from predicted, over rows weighted by their nodes.

    Args:
        table: the rows by score of one prediction.
    """
    observed = table["accepted"] / table["nodes"]
    return float(np.average((observed - table["predicted"]).abs(), weights=table["nodes"]))
