"""Replay by drafting again: what a drafter that only reads tokens would have proposed along recorded texts.

Greedy and by-rank decoding emit the recorded text whatever the tree, so a step accepts the path of its tree that the
text goes on with, and the next step starts behind it: the steps of a live run, one after another, without a model. That
is exact for every plan, also where what is proposed depends on where the step starts (a copied span), on the budget, or
where parts of a tree are empty. A drafter that fills its trees is replayed from ranks (see `static`): by position, or
by position and distance from the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from specdraft.drafters.base import Drafter, Prefilled, RecordedText
from specdraft.replay.best_first import NEVER, Steps, Walked, count_steps, paths_of
from specdraft.replay.static import Taken, child_table, counted
from specdraft.results.counted import Counted
from specdraft.traces.library import PairTraces
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import Plan
from specdraft.trees.topology import Topology


class Redrafted(NamedTuple):
    """One step: where it starts, what was drafted, and the nodes that the text goes on with, the topmost first."""

    position: int
    tree: DraftTree
    accepted: list[int]


def redraft(
    drafter: Drafter, text: RecordedText, plan: Plan, earlier: Sequence[Sequence[int]] = ()
) -> Iterator[Redrafted]:
    """The steps of decoding a recorded text with a plan; `earlier`: see `Prefilled`."""
    tokens, at = text.tokens.tolist(), 0
    drafter.begin(Prefilled(text.prompt_ids, earlier=earlier))
    while at < len(tokens) - 1:
        tree = drafter.draft(tokens[at], plan)
        accepted = tree.path_along(tokens[at + 1 :])
        drafter.commit(tree, accepted)
        yield Redrafted(at, tree, accepted)
        at += len(accepted) + 1


class Redrafting:
    """A pair's drafter with recorded texts.

    Args:
        drafter: it reads tokens only (`DrafterTraits.from_tokens`).
        prompts: prompt id -> token ids, in the study's order.
        traces: of these prompts.
    """

    def __init__(self, drafter: Drafter, prompts: Mapping[str, Sequence[int]], traces: PairTraces) -> None:
        self._drafter = drafter
        self._texts = {name: RecordedText(ids, traces.trajectories[name].tokens) for name, ids in prompts.items()}

    def along(self, names: Sequence[str], plan: Plan) -> Drafts:
        """Every step on these prompts."""
        each = [list(redraft(self._drafter, self._texts[name], plan, self._earlier(name))) for name in names]
        return Drafts.of(each, [len(self._texts[name].tokens) - 1 for name in names])

    def _earlier(self, name: str) -> list[list[int]]:
        if not self._drafter.traits.earlier:
            return []
        return earlier_texts(name, {other: text.tokens.tolist() for other, text in self._texts.items()})


def earlier_texts(name: str, texts: Mapping[str, list[int]]) -> list[list[int]]:
    """Those before one, in their order."""
    return [*takewhile(lambda text: text is not texts[name], texts.values())]


class Drafts(NamedTuple):
    """Steps, V of them, prompt by prompt; N nodes and D levels at most.

    Attributes:
        prompt, position: `[V]` where each starts.
        parent, rank: `[V, N]` of its nodes, see `Expansion`.
        on_path: `[V, D + 2]` the place, from 1, of the accepted node of each depth, else `NEVER`; 0 is the root.
        cut: `[V]` whether the text ends on an accepted token.
    """

    prompt: np.ndarray
    position: np.ndarray
    parent: np.ndarray
    rank: np.ndarray
    on_path: np.ndarray
    cut: np.ndarray

    @classmethod
    def of(cls, each: Sequence[Sequence[Redrafted]], last: Sequence[int]) -> Drafts:
        """Of every prompt, with the last position of its text."""
        steps = [step for some in each for step in some]
        nodes = max((step.tree.num_nodes for step in steps), default=0)
        levels = max((step.tree.depth for step in steps), default=0)
        parent, rank = (np.full((len(steps), nodes), empty, dtype=np.int64) for empty in (-1, -1))
        on_path = np.full((len(steps), levels + 2), NEVER)
        on_path[:, 0] = 0
        for row, step in enumerate(steps):
            size = step.tree.num_nodes
            parent[row, :size], rank[row, :size] = step.tree.topology.parents[1:], step.tree.topology.ranks[1:]
            on_path[row, 1 : 1 + len(step.accepted)] = step.accepted
        prompt = np.repeat(np.arange(len(each)), [len(some) for some in each])
        position = np.array([step.position for step in steps], dtype=np.int64)
        accepted = np.array([len(step.accepted) for step in steps], dtype=np.int64)
        return cls(prompt, position, parent, rank, on_path, position + accepted == np.array(last)[prompt])

    @property
    def sizes(self) -> np.ndarray:
        """`[V]` draft nodes of each step."""
        sizes: np.ndarray = (self.parent >= 0).sum(1)
        return sizes

    @property
    def accepted(self) -> np.ndarray:
        """`[V]` accepted tokens of each step."""
        accepted: np.ndarray = (self.on_path[:, 1:] != NEVER).sum(1)
        return accepted

    def looked_up(self, plan: Plan) -> np.ndarray:
        """`[V]` look-ups of each step: one for a span, and for a tree of the drafter's own; else one for each node that
        may have children."""
        if plan.topology is None or plan.topology.is_span:
            return np.ones(len(self.prompt), dtype=np.int64)
        asked: np.ndarray = (self._there(plan.topology) & plan.topology.has_children).sum(1)
        return asked

    def counted(self, plan: Plan, packed: PackedRanks, with_steps: bool) -> Counted:
        """What the steps came to: integers, equal to a live run's."""
        if plan.topology is None:
            return self._counted_dynamic(packed, with_steps)
        nodes = self._nodes(plan.topology)
        end = np.take_along_axis(nodes, np.where(self.on_path == NEVER, 0, self.on_path), 1)
        end = end[np.arange(len(end)), self.accepted]
        taken = Taken(self.prompt, self.position, end, self.accepted, self.cut, self._there(plan.topology))
        return counted(plan.topology, packed, taken, with_steps)

    def _counted_dynamic(self, packed: PackedRanks, with_steps: bool) -> Counted:
        depth, path, paths = paths_of(self.parent, self.rank)
        first = np.searchsorted(self.prompt, np.arange(len(packed.last)))
        nothing = np.zeros(self.parent.shape)
        walked = Walked(self.prompt, first, self.parent, depth, nothing, path, paths, self.on_path)
        steps = Steps(np.arange(len(self.prompt)), self.sizes, self.accepted, self.cut)
        return count_steps(walked, packed, steps, depth > 0, with_steps)

    def _nodes(self, topology: Topology) -> np.ndarray:
        """`[V, N + 1]` which node of a static tree each one is, 0 where there is none."""
        table, rows = child_table(topology), np.arange(len(self.prompt))
        nodes = np.zeros((len(self.prompt), self.parent.shape[1] + 1), dtype=np.int64)
        for place in range(self.parent.shape[1]):
            above = self.parent[:, place]
            nodes[:, place + 1] = np.where(above >= 0, table[nodes[rows, above], self.rank[:, place]], 0)
        return nodes

    def _there(self, topology: Topology) -> np.ndarray:
        """`[V, n + 1]` which nodes of a static tree were drafted."""
        there = np.zeros((len(self.prompt), len(topology)), dtype=bool)
        np.put_along_axis(there, self._nodes(topology), values=True, axis=1)
        return there
