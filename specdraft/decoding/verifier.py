"""The target checks a whole draft tree in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from specdraft.drafters.pair import Pair
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import Forward, tail_mask
from specdraft.models.sending import to_device
from specdraft.trees.draft_tree import Beside, DraftTree
from specdraft.trees.topology import Topology


class Verified(NamedTuple):
    """What the target said of a tree.

    Attributes:
        logits: `[n + 1, vocab]` float32 after each node, row 0 after the root.
        hidden: `[n + 1, L, width]` the states of the nodes, where any are wanted.
        beside: `[m, vocab]` the logits after the tokens beside the tree (see `Beside`), where it has any.
    """

    logits: torch.Tensor
    hidden: torch.Tensor | None = None
    beside: torch.Tensor | None = None


class Verifier:
    """The target with the committed tokens in its cache, the last of them (the next root) left out.

    Args:
        model: the target.
        layers: of the target, whose hidden states are wanted with every forward (a drafter reads them).
    """

    def __init__(self, model: CachedModel, layers: Sequence[int] = ()) -> None:
        self.model, self.layers = model, layers
        self._prepared: tuple[Topology, torch.Tensor, torch.Tensor] | None = None
        self._prompt_length, self._after_prompt = 0, Forward(torch.empty(0))

    @classmethod
    def of(cls, pair: Pair) -> Verifier:
        """The target of a pair, with the states that its drafter reads."""
        return cls(pair.target, pair.drafter.traits.hidden_layers)

    def prefill(self, prompt_ids: Sequence[int]) -> Forward:
        """Start over with a prompt; `[vocab]` logits after it, the states of all its tokens."""
        self.model.reset()
        self._after_prompt = self.model.prefill(prompt_ids, self.layers)
        self._prompt_length = self.model.length
        return self._after_prompt

    def rewind(self) -> Forward:
        """Back to the end of the prompt: what `prefill` gave, without a forward."""
        self.model.rewind(self._prompt_length)
        return self._after_prompt

    def verify(self, tree: DraftTree) -> Verified:
        """One forward over a tree, and over the tokens beside it."""
        tokens = to_device(tree.tokens, self.model.device)
        if tree.beside is None:
            return Verified(*self.model.append(tokens, *self._prepare(tree.topology), self.layers))
        beside, nodes = tree.beside, len(tree)
        offsets, visible = np.concatenate([tree.topology.depths, beside.depths]), seen_with(tree.topology, beside)
        tail = tail_mask(to_device(visible, self.model.device), self.model.dtype)
        whole = torch.cat([tokens, to_device(beside.tokens, self.model.device)])
        logits, hidden = self.model.append(whole, to_device(offsets, self.model.device), tail, self.layers)
        return Verified(logits[:nodes], None if hidden is None else hidden[:nodes], logits[nodes:])

    def commit(self, accepted_nodes: Sequence[int]) -> None:
        """Keep the root and the accepted path in the cache."""
        self.model.commit([0, *accepted_nodes])

    def _prepare(self, topology: Topology) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and mask of a topology; a static shape's are made once."""
        if self._prepared is None or self._prepared[0] is not topology:
            device = self.model.device
            visible, depths = to_device(topology.ancestors, device), to_device(topology.depths, device)
            self._prepared = (topology, depths, tail_mask(visible, self.model.dtype))
        return self._prepared[1:]


def seen_with(topology: Topology, beside: Beside) -> np.ndarray:
    """`[n + 1 + m, n + 1 + m]` bool: what nodes and the tokens beside them see of each other."""
    nodes, rows = len(topology), len(beside.tokens)
    seen = np.zeros((nodes + rows, nodes + rows), dtype=bool)
    seen[:nodes, :nodes] = topology.ancestors
    seen[nodes:, 0], seen[nodes:, nodes:] = beside.visible[:, 0], beside.visible[:, 1:]
    return seen
