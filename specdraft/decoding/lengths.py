"""How long the chain of each step is while a text is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import numpy as np

from specdraft.prediction.length import Constant, LengthPolicy, Lengths
from specdraft.prediction.length.base import NOTHING_SAID, unread
from specdraft.prediction.length.costs import step_seconds
from specdraft.prediction.pruning.base import Costs
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan, StaticPlan
from specdraft.trees.shapes.base import DraftView
from specdraft.trees.topology import Topology


@cache
def chain(length: int) -> Topology:
    """So many nodes, one below the other; always the same object, so that drafters need not prepare it again."""
    return Topology(np.arange(-1, length))


@dataclass(frozen=True)
class Sizing:
    """A policy with all that it needs to size the chains of a text.

    Attributes:
        policy: how long they are.
        costs: for a policy that needs them.
    """

    policy: LengthPolicy = field(default_factory=Constant)
    costs: Costs | None = None

    def begin(self, plan: Plan) -> Sizer:
        """For one text; `plan` is that of the longest chain, or of whatever tree where nothing is sized."""
        if not self.policy.sizes:
            return Sizer(plan)
        step_s = None if self.costs is None else step_seconds(self.costs, plan.nodes)
        return ChainSizer(self.policy.begin(plan.nodes, step_s), self.policy)


AS_PLANNED = Sizing()  # every step has the whole plan


class Sizer:
    """Gives the plan of each step of a text: always the same."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def plan(self) -> Plan:
        """Of the next step."""
        return self._plan

    def learn(self, accepted: int) -> None:
        """Of what the last plan made, so many nodes were accepted."""


class ChainSizer(Sizer):
    """Chains whose lengths a policy says."""

    def __init__(self, lengths: Lengths, policy: LengthPolicy) -> None:
        self._lengths, self._policy = lengths, policy
        self._last: GrownChain | StaticPlan = StaticPlan(chain(0))

    def plan(self) -> Plan:
        """See `Sizer.plan`."""
        most = self._lengths.next()
        if self._policy.watches and most:
            self._last = GrownChain(most, self._lengths, self._policy.reads_entropy)
        else:
            self._last = StaticPlan(chain(most))
        return self._last

    def learn(self, accepted: int) -> None:
        """See `Sizer.learn`."""
        last = self._last
        self._lengths.observe(accepted, last.said if isinstance(last, GrownChain) else unread(last.nodes))


class GrownChain:
    """A chain that grows until its policy ends it, one forward for each token.

    Attributes:
        nodes, depth: tokens at most, 1 or more.
        said: what the drafter said of those that it drafted.
    """

    dynamic: ClassVar[bool] = True
    topology: ClassVar[None] = None
    nested: ClassVar[None] = None

    def __init__(self, most: int, lengths: Lengths, reads_entropy: bool) -> None:
        self.nodes = self.depth = most
        self.said = NOTHING_SAID
        self._lengths, self._reads_entropy = lengths, reads_entropy

    def expand(self, view: DraftView) -> DraftTree:
        """See `Plan.expand`."""
        self.said, whole, length = NOTHING_SAID, chain(self.nodes), 0
        while length < self.nodes and not self._lengths.ends(self.said)[-1:].any():
            length += 1
            view.grow(whole, length)
            self.said = self.said.then(*view.newest(self._reads_entropy))
        return view.finish(chain(length))
