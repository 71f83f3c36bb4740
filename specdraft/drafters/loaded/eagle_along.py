"""What an EAGLE head drafts at every place of a recorded text at which a step could start.

The true entries are read once; below each of them its own drafted tokens are fed, level by level, all starts at once.

Letters: T starts of a text, S of them that are fed together, m tokens of a start, O offsets, N nodes of a tree, V ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from specdraft.drafters.base import Expansion, GivenTrees, RecordedText
from specdraft.drafters.loaded.eagle_model import Drafted, EagleModel
from specdraft.drafters.loaded.expansion import as_expansion
from specdraft.drafters.loaded.ranking import best_children
from specdraft.models.batch import by_device, logits_at_once
from specdraft.trees.shapes import NestedPlan

SCORES = {"cpu": 2**24, "cuda": 2**27}  # of attention that are there at a time: starts x tokens x heads x entries


class Starts(NamedTuple):
    """Some starts of a text.

    Attributes:
        first: the position of the first one.
        said: `[S, d]` what the output layer reads of their children.
        drafted: nothing yet.
    """

    first: int
    said: torch.Tensor
    drafted: Drafted


def starts_of(model: EagleModel, text: RecordedText, fed: int) -> Iterator[Starts]:
    """All starts of a text, as many together as `fed` tokens of each leave room for."""
    assert text.hidden is not None
    device = model.target.device
    ids = torch.tensor([*text.prompt_ids, *text.tokens.tolist()], device=device)
    begin, count = len(text.prompt_ids) - 1, len(text.tokens) - 1  # the first root's entry, and how many roots
    if not count:
        return
    out = model.read(ids[1 : begin + 1 + count], model.fuse(text.hidden[: begin + count]))
    entries = torch.arange(begin + count, device=device)
    room = by_device(model.target, SCORES) // (model.head.shape.heads * fed * len(entries))
    at_once = max(1, room)
    for first in range(0, count, at_once):
        roots = entries[begin + first : begin + min(first + at_once, count)]
        some = out.fed[0, roots], roots
        yield Starts(first, out.said[0, roots], Drafted(model, out.kept, entries <= roots[:, None], *some))


def along(model: EagleModel, text: RecordedText, offsets: int) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Teacher-forced: the first of some starts, an offset from 1, and `[S, d]` what is read of the tokens there; what
    is beyond the end of the text means nothing."""
    tokens = torch.from_numpy(text.tokens).to(model.target.device)
    for first, said, drafted in starts_of(model, text, offsets):
        places = torch.arange(first, first + len(said), device=tokens.device)
        yield first, 1, said
        for offset in range(2, offsets + 1):
            read = tokens[(places + offset - 1).clamp_max(len(tokens) - 1)][:, None]
            above = torch.full_like(read, offset - 2)
            seen = torch.ones(len(read), 1, offset, dtype=torch.bool, device=tokens.device)
            yield first, offset, drafted.feed(read, above, seen)[:, 0]


class Fed:
    """Trees that are drafted below some starts: which slot each node has, and which slots it sees.

    Args:
        model: the head.
        starts: where they begin.
        count: children of a node that are wanted.
        temperature: what logits are divided by.
    """

    def __init__(self, model: EagleModel, starts: Starts, count: int, temperature: float) -> None:
        self._model, self._drafted, self._count, self._temperature = model, starts.drafted, count, temperature
        self._seen = np.ones((len(starts.said), 1, 1), dtype=bool)  # [S, slots, slots]
        self.root_children = self._children(starts.said)

    def _children(self, said: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            best_children(self._model.logits(some), self._count, self._temperature)
            for some in torch.split(said, logits_at_once(self._model.target, 1))
        ]
        tokens, log_probs = (np.concatenate(fields) for fields in zip(*parts, strict=True))
        return tokens, log_probs

    def feed(
        self, start: np.ndarray, parent: np.ndarray, token: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Feed nodes `[n]`, in the order of their starts, below the slots of their parents: their own slots `[n]`, and
        their children's tokens and log-probabilities `[n, count]`."""
        rows, old = self._seen.shape[:2]
        column = np.arange(len(start)) - np.searchsorted(start, start)
        m = int(column.max()) + 1
        seen = np.zeros((rows, m, old + m), dtype=bool)
        seen[:, np.arange(m), old + np.arange(m)] = True
        seen[start, column, :old] = self._seen[start, parent]
        tokens, parents = np.zeros((2, rows, m), dtype=np.int64)
        tokens[start, column], parents[start, column] = token, parent
        device = self._model.target.device
        said = self._drafted.feed(*(torch.from_numpy(array).to(device) for array in (tokens, parents, seen)))
        wider = np.concatenate([self._seen, np.zeros((rows, old, m), dtype=bool)], 2)
        self._seen = np.concatenate([wider, seen], 1)
        here = said[torch.from_numpy(start).to(device), torch.from_numpy(column).to(device)]
        return old + column, *self._children(here)


def grown(model: EagleModel, text: RecordedText, plan: NestedPlan) -> Expansion:
    """The dynamic trees of all starts."""
    assert plan.temperature is not None, "its temperature is fitted first"
    parts = [_nothing(plan.nodes)]
    for starts in starts_of(model, text, plan.nodes):
        count = plan.looked_at(model.proposed)
        fed = Fed(model, starts, count, plan.temperature)
        growth = plan.growth(len(starts.said), count, whole=True)
        start = np.arange(len(starts.said))  # of each node
        slot = np.zeros(len(start), dtype=np.int64)
        growth.add(*fed.root_children)
        while len(nodes := growth.frontier):
            start = np.concatenate([start, start[growth.nodes_at(growth.newest).parent]])
            slot = np.concatenate([slot, np.full(len(start) - len(slot), -1)])
            above = growth.nodes_at(nodes)
            order = np.argsort(start[nodes], kind="stable")
            slots, tokens, log_probs = fed.feed(start[nodes][order], slot[above.parent][order], above.token[order])
            slot[nodes[order]] = slots
            back = np.argsort(order)
            growth.add(tokens[back], log_probs[back])
        parts.append(as_expansion(growth.trees()))
    return Expansion(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _nothing(nodes: int) -> Expansion:
    empty = np.empty((0, nodes))
    return Expansion(empty.astype(np.int16), empty.astype(np.int16), empty.astype(np.int32), empty)


def scored(model: EagleModel, text: RecordedText, trees: GivenTrees, temperature: float) -> Expansion:
    """Given trees `[T, N]` of all starts, each node with its token and the logarithm of its probability."""
    depth, count = trees.depth, 1 + int(trees.rank.max(initial=0))
    shape = depth.shape
    tokens, reached = np.full(shape, -1, dtype=np.int32), np.zeros((shape[0], shape[1] + 1))
    parents = np.zeros((shape[0], shape[1] + 1), dtype=bool)
    row, place = np.nonzero(depth > 0)
    parents[row, trees.parent[row, place]] = True
    for starts in starts_of(model, text, max(1, int(parents.sum(1).max(initial=1)))):
        here = slice(starts.first, starts.first + len(starts.said))
        _walk(
            Fed(model, starts, count, temperature),
            GivenTrees(*(field[here] for field in trees)),
            depth[here],
            parents[here],
            (tokens[here], reached[here]),
        )
    return Expansion(trees.parent, trees.rank, tokens, np.where(depth > 0, reached[:, 1:], 0.0))


def _walk(
    fed: Fed, trees: GivenTrees, depth: np.ndarray, parents: np.ndarray, filled: tuple[np.ndarray, np.ndarray]
) -> None:
    """Level by level; only nodes that have children are fed. `filled`: tokens `[S, N]` and scores `[S, N + 1]`."""
    tokens, reached = filled
    slot = np.zeros(parents.shape, dtype=np.int64)
    best, scores = np.zeros((2, *parents.shape, fed.root_children[0].shape[1]))  # of the nodes' children
    best[:, 0], scores[:, 0] = fed.root_children
    for level in range(1, int(depth.max(initial=0)) + 1):
        row, place = np.nonzero(depth == level)
        above, rank = trees.parent[row, place], trees.rank[row, place]
        tokens[row, place] = best[row, above, rank]
        reached[row, place + 1] = reached[row, above] + scores[row, above, rank]
        going = parents[row, place + 1]
        if not going.any():
            continue
        row, place, above = row[going], place[going], above[going]
        slots, children, log_probs = fed.feed(row, slot[row, above], tokens[row, place].astype(np.int64))
        slot[row, place + 1], best[row, place + 1], scores[row, place + 1] = slots, children, log_probs
