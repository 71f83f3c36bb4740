"""What replay counts, in columns: a number a prompt, and of all prompts together what the detail tables say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from specdraft.results.metrics import COUNTS, PRUNED
from specdraft.trees.topology import RankPath

REPLAYED = (
    *COUNTS,
    *PRUNED,
    "looped_tokens",
    "est_s",
    "est_plain_s",
    "overlap",
    "judged_tokens",
    "proposed_tokens",
    "lost_tokens",
    "starts",
    "est_s_spread",
    "est_speedup_spread",
)  # what replay says of a prompt


class NodeCounts(NamedTuple):
    """Draft nodes, N of them, over all prompts.

    Attributes:
        paths: `[N]` rank paths.
        drafted: `[N]` steps of the prompts whose tree holds the node; of dynamic trees, which could hold any node in
            any step, all steps.
        reached, accepted: `[N]` see `Tally.nodes`.
        continued: `[N]` steps that accepted the node and tried children of it.
    """

    paths: Sequence[RankPath]
    drafted: np.ndarray
    reached: np.ndarray
    accepted: np.ndarray
    continued: np.ndarray

    def where(self, kept: np.ndarray) -> NodeCounts:
        """Some of the nodes: `[N]` bool."""
        paths = [path for path, stays in zip(self.paths, kept.tolist(), strict=True) if stays]
        return NodeCounts(paths, *(counts[kept] for counts in self[1:]))


class StepCounts(NamedTuple):
    """Verification steps, V of them, prompt by prompt in their order; every step that is not cut has a bonus token.

    Attributes:
        prompt: `[V]` the prompt's number.
        drafted, accepted: `[V]` tokens.
        cut: `[V]` whether the text ended on an accepted token.
    """

    prompt: np.ndarray
    drafted: np.ndarray
    accepted: np.ndarray
    cut: np.ndarray


@dataclass(frozen=True)
class Counted:
    """What P prompts came to, decoded with one combination.

    Attributes:
        sums: name of a count or helper (`REPLAYED`) -> `[P]`.
        lengths: `[D + 1]` steps by accepted tokens, of all prompts.
        reached, accepted: `[D]` see `Tally.positions`, of all prompts; depths from 1.
        nodes: of all prompts.
        dynamic: trees differ from step to step.
        steps: every step, where they are wanted.
        sizes: `[N + 1]` steps by draft nodes that were sent, of all prompts; empty where trees do not differ.
    """

    sums: dict[str, np.ndarray]
    lengths: np.ndarray
    reached: np.ndarray
    accepted: np.ndarray
    nodes: NodeCounts
    dynamic: bool = False
    steps: StepCounts | None = None
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def unpruned(self) -> Counted:
        """The same, of trees that were sent whole: what pruning would say of them."""
        nothing = {name: np.zeros_like(self.sums["steps"]) for name in ("pruned_tokens", "lost_tokens", "starts")}
        return self.with_sums(**nothing, proposed_tokens=self.sums["drafted_tokens"])

    def with_sums(self, **more: np.ndarray) -> Counted:
        """The same with further numbers of each prompt."""
        return replace(self, sums=self.sums | more)


def joined(parts: Sequence[Counted], members: Sequence[np.ndarray]) -> Counted:
    """What several sets of prompts came to, as one set.

    Args:
        parts: at least one.
        members: of each part, which of all prompts its own are: `[P_part]`, together every number below P once.
    """
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate(members))
    sums = {name: np.concatenate([part.sums[name] for part in parts])[order] for name in parts[0].sums}
    lengths, reached, accepted, sizes = (
        _added([getattr(p, name) for p in parts]) for name in ("lengths", "reached", "accepted", "sizes")
    )
    steps = _joined_steps(parts, members)
    return Counted(sums, lengths, reached, accepted, _joined_nodes(parts), parts[0].dynamic, steps, sizes)


def _added(counts: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of arrays that need not be equally long."""
    total = np.zeros(max(map(len, counts)), np.result_type(*counts))
    for array in counts:
        total[: len(array)] += array
    return total


def _joined_nodes(parts: Sequence[Counted]) -> NodeCounts:
    place: dict[RankPath, int] = {}
    where = [np.array([place.setdefault(p, len(place)) for p in part.nodes.paths], dtype=np.int64) for part in parts]
    columns = [np.zeros(len(place), np.result_type(*(part.nodes.reached for part in parts))) for _ in range(4)]
    for at, part in zip(where, parts, strict=True):
        for total, counts in zip(columns, part.nodes[1:], strict=True):
            total[at] += counts
    nodes = NodeCounts(list(place), *columns)
    if parts[0].dynamic:
        steps = sum(part.sums["steps"].sum() for part in parts)
        nodes = nodes._replace(drafted=np.full(len(place), steps))
    return nodes


def _joined_steps(parts: Sequence[Counted], members: Sequence[np.ndarray]) -> StepCounts | None:
    listed = [part.steps for part in parts if part.steps is not None]
    if len(listed) < len(parts):
        return None
    prompt = np.concatenate([at[steps.prompt] for at, steps in zip(members, listed, strict=True)])
    order = np.argsort(prompt, kind="stable")
    others = (np.concatenate(column)[order] for column in zip(*(steps[1:] for steps in listed), strict=True))
    return StepCounts(prompt[order], *others)
