"""`siblings.csv`: whether the level below a node is reached and accepted, by the node's depth and child rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from specdraft.replay import static
from specdraft.replay.static import take_steps
from specdraft.results.counted import Counted, joined
from specdraft.results.journal import Row
from specdraft.results.metrics import Tally
from specdraft.results.parts import Parts, ReplayedRows
from specdraft.results.tables import build_tables
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.topology import RankPath, Topology

KEYS: dict[str, Any] = {"combination": "a", "pair": "p", "target": "t", "draft": "d", "drafter": "model",
        "dtype": "float32", "tree": "paths", "budget": 4, "nodes": 4, "depth": 2, "acceptance": "greedy",
        "temperature": 0.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 99, "prompts": "made", "seed": 0,
        "engine": "replay"}  # fmt: skip
TIMED = ("est_s", "est_plain_s", "est_s_spread", "est_speedup_spread", "overlap", "judged_tokens")
COLUMNS = ["depth", "rank", "reached", "accepted", "next_reached", "next_accepted"]
# Ten steps of a tree 0, 1, 0/0, 1/0; 9 is no child's rank. Four accept nothing, two 0, one 0/0, two 1/0, and the last
# one ends the text on 0, so that children of 0 are not tried.
STEPS = [[9]] * 4 + [[0, 9]] * 2 + [[0, 0, 9]] + [[1, 0, 9]] * 2 + [[0]]
TREE = [(0,), (1,), (0, 0), (1, 0)]
EXPECTED = [[1, 0, 10, 4, 3, 1], [1, 1, 10, 2, 2, 2], [2, 0, 5, 3, 0, 0]]


def replayed(paths: Sequence[RankPath], steps: Sequence[Sequence[int]] = STEPS) -> Counted:
    """One text whose steps meet these ranks."""
    ranks = [-1, *(rank for step in steps for rank in step)]
    packed = PackedRanks(np.array([[*ranks, -1]]), np.array([len(ranks) - 1]), np.array([0]))
    nothing = dict.fromkeys(TIMED, np.zeros(1))
    return static.replay(Topology.from_paths(paths), packed).with_sums(**nothing)


def siblings(tables: Mapping[str, pd.DataFrame]) -> list[list[float]]:
    table = tables["siblings.csv"]
    assert table.columns[-6:].tolist() == COLUMNS
    assert set(table["combination"]) == {"a"}
    return table[COLUMNS].to_numpy().tolist()


def of_parts(folder: Path, counted: Counted, prompts: str = "x") -> list[list[float]]:
    parts = Parts(folder)
    parts.add([ReplayedRows("a", ("w", "v"), 0, tuple(prompts), ("c",) * len(prompts), counted)])
    return siblings(build_tables([], {"a": KEYS}, Parts(folder).read(parts)))


def test_by_depth_and_child_rank(tmp_path: Path) -> None:
    assert of_parts(tmp_path, replayed(TREE)) == EXPECTED


def test_of_live_rows() -> None:
    nodes = {(0,): [10, 4], (1,): [10, 2], (0, 0): [3, 1], (1, 0): [2, 2]}
    tally = Tally(steps=10, new_tokens=19, nodes=nodes, lengths=Counter({0: 4, 1: 3, 2: 3}))
    assert siblings(build_tables([Row("a", ("w", "v"), "x", "c", 0, tally)], {"a": KEYS})) == EXPECTED


def test_what_is_never_reached_is_left_out(tmp_path: Path) -> None:
    """A child of 1 that no step got to; its siblings' ranks need not begin at 0."""
    assert of_parts(tmp_path, replayed([(0,), (1,), (1, 3)], [[9], [0, 9]])) == [[1, 0, 2, 1, 0, 0], [1, 1, 2, 0, 0, 0]]


def test_prompts_with_trees_of_their_own(tmp_path: Path) -> None:
    """Fitted trees: below 0 one half of the prompts has the child 0, the other one the child 1 alone."""
    halves = [replayed([(0,), (0, 0)], [[0, 9], [0, 0, 9]]), replayed([(0,), (0, 1)], [[0, 1, 9], [0, 9]])]
    both = joined(halves, [np.array([0]), np.array([1])])
    assert of_parts(tmp_path, both, "xy") == [[1, 0, 4, 4, 4, 2], [2, 0, 2, 1, 0, 0], [2, 1, 2, 1, 0, 0]]


def test_a_drafter_that_proposes_less(tmp_path: Path) -> None:
    """Two steps accept 0; below the first one nothing was drafted."""
    topology = Topology.from_paths([(0,), (0, 0)])
    packed = PackedRanks(np.array([[-1, 0, 9, 0, 9, -1]]), np.array([4]), np.array([0]))
    there = np.array([[True, True, False], [True, True, True]])
    taken = take_steps(topology, packed)._replace(there=there)
    nothing = dict.fromkeys(TIMED, np.zeros(1))
    counted = static.counted(topology, packed, taken).with_sums(**nothing)
    assert of_parts(tmp_path, counted) == [[1, 0, 2, 2, 1, 0], [2, 0, 1, 0, 0, 0]]


def test_levels_follow_one_another(tmp_path: Path) -> None:
    """What children of a depth's nodes were tried is what the next depth tried, and so for what was accepted."""
    rng = np.random.default_rng(0)
    steps = [rng.integers(0, 3, 1).tolist() for _ in range(400)]
    counted = replayed([(0,), (1,), (2,), (0, 0), (0, 1), (1, 0), (1, 2), (0, 0, 0), (1, 2, 1)], steps)
    table = pd.DataFrame(of_parts(tmp_path, counted), columns=COLUMNS).groupby("depth").sum()
    assert table["accepted"].tolist() == counted.accepted.tolist()
    assert table["next_reached"].tolist() == [*counted.reached[1:].tolist(), 0]
    assert table["next_accepted"].tolist() == [*counted.accepted[1:].tolist(), 0]
    assert table["next_accepted"].tolist()[0] > 0
