"""Between drafting and verifying: which nodes of a drafted tree are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from specdraft.decoding.drafted_features import TreeReader
from specdraft.drafters.loaded.ranking import log_probs_of_nodes
from specdraft.prediction.online import OnlineAcceptance
from specdraft.prediction.predictor import Predictor
from specdraft.prediction.pruning import Drafted, NoPruning, PruningPolicy
from specdraft.prediction.pruning.base import Costs
from specdraft.prediction.survival import Paths
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan
from specdraft.trees.topology import Topology


class Sent(NamedTuple):
    """What is left of a drafted tree.

    Attributes:
        tree: what the target checks.
        nodes: `[k + 1]` its nodes as the drafted tree counts them, the root first; None: all of them.
    """

    tree: DraftTree
    nodes: np.ndarray | None = None

    def as_drafted(self, nodes: list[int]) -> list[int]:
        """Nodes of what was sent, as the drafted tree counts them."""
        return nodes if self.nodes is None else [int(node) for node in self.nodes[nodes]]


@dataclass(frozen=True)
class Pruning:
    """A policy with all that it needs to prune the trees of a prompt.

    Attributes:
        policy: which nodes are kept.
        temperature: that the drafter's logits are divided by before nodes are scored.
        costs: for a policy that needs them.
        dynamic: trees differ from step to step before they are pruned.
        predictor: what says a node's chance in place of its own probability.
    """

    policy: PruningPolicy = field(default_factory=NoPruning)
    temperature: float = 1.0
    costs: Costs | None = None
    dynamic: bool = False
    predictor: Predictor | None = None

    @property
    def prunes(self) -> bool:
        return self.policy.prunes

    def scores(self, plan: Plan) -> bool:
        """Whether nodes are scored by the drafter's logits; the scores that a tree grew by are there without them."""
        if not self.prunes or self.policy.adapts or self.predictor is not None:
            return self.prunes
        grown = plan.nested
        return grown is None or grown.scorer is not None or grown.temperature != self.temperature

    def begin(self, prompt_ids: Sequence[int]) -> Pruner:
        """For one prompt."""
        return Pruner(self, prompt_ids, OnlineAcceptance() if self.policy.adapts else None)


WHOLE = Pruning()  # every drafted node is sent


class Pruner:
    """Prunes the trees of one prompt, step by step.

    Args:
        how: the policy.
        prompt_ids: what a predictor reads, with what follows.
        online: what is learnt from the prompt's steps; None: nothing is.
    """

    def __init__(self, how: Pruning, prompt_ids: Sequence[int], online: OnlineAcceptance | None = None) -> None:
        self._how, self._online = how, online
        self._reader = TreeReader(prompt_ids, how.predictor) if how.predictor else None
        self._scored: tuple[Topology, Paths] | None = None  # what is known of the last one
        self._own = np.zeros(0)  # [n] what was said of the nodes of the last tree

    @property
    def prunes(self) -> bool:
        return self._how.prunes

    def send(self, tree: DraftTree) -> Sent:
        """What is left of a tree; its logits are there (see `Drawing.keep_logits`) where `Pruning.scores`."""
        how = self._how
        if not how.prunes or not tree.num_nodes:
            return Sent(tree)
        drafted = self.score(tree)
        step = None if how.costs is None else how.costs.of_steps(drafted.fed, tree.num_nodes, how.dynamic)
        kept = np.flatnonzero(how.policy.keep(drafted, step)[0]) + 1
        if len(kept) == tree.num_nodes:
            return Sent(tree)
        nodes = np.concatenate([[0], kept])
        return Sent(tree.part(nodes), nodes)

    def score(self, tree: DraftTree) -> Drafted:
        """What is said of a tree's nodes."""
        parent, depth = tree.topology.parents[None, 1:], tree.topology.depths[None, 1:]
        if tree.chosen_from is None:
            assert tree.log_probs is not None, "see Pruning.scores"
            return Drafted(parent, depth, tree.log_probs[None])
        if self._scored is None or self._scored[0] is not tree.topology:
            self._scored = tree.topology, Paths(parent, depth)
        paths = self._scored[1]
        self._own = own = self._conditional(tree)
        conditional = own[None] if self._online is None else self._online.log_conditional(own[None], depth)
        return Drafted(parent, depth, paths.cumulative(conditional))

    def _conditional(self, tree: DraftTree) -> np.ndarray:
        """`[n]` logarithms of what is said of each node, given that its parent is accepted."""
        return log_probs(tree, self._how.temperature) if self._reader is None else self._reader.log_conditional(tree)

    def learn(self, sent: Sent, accepted: Sequence[int], root: int) -> None:
        """Of the last tree, below `root`, these nodes of what was sent were accepted."""
        if self._reader is not None:
            tokens = sent.tree.token_list()
            self._reader.commit([root, *(tokens[node] for node in accepted)])
        if self._online is None or not sent.tree.num_nodes:
            return
        topology = sent.tree.topology
        nodes = np.arange(len(topology)) if sent.nodes is None else sent.nodes
        tried = 1 + np.flatnonzero(np.isin(topology.parents[1:], [0, *accepted]))
        taken = np.isin(tried, accepted)
        self._online.learn(self._own[nodes[tried] - 1], topology.depths[tried], taken)


def log_probs(tree: DraftTree, temperature: float) -> np.ndarray:
    """`[n]` float64: the logarithm of softmax(logits / temperature) of each draft node's token. One transfer."""
    assert tree.chosen_from is not None and isinstance(tree.tokens, torch.Tensor)
    logits, row = tree.chosen_from
    rows = torch.from_numpy(row[1:]).to(logits.device)
    return log_probs_of_nodes(logits, rows, tree.tokens[1:], temperature)
