"""The target checks a whole draft tree in one forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from specdraft.drafters.pair import Pair
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import Forward, tail_mask
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology


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
        self._prompt_length, self._after_prompt = len(prompt_ids), self.model.prefill(prompt_ids, self.layers)
        return self._after_prompt

    def rewind(self) -> Forward:
        """Back to the end of the prompt: what `prefill` gave, without a forward."""
        self.model.rewind(self._prompt_length)
        return self._after_prompt

    def verify(self, tree: DraftTree) -> Forward:
        """`[n + 1, vocab]` logits after each node, row 0 after the root."""
        offsets, tail = self._prepare(tree.topology)
        tokens = torch.as_tensor(tree.tokens, device=self.model.device)
        return self.model.append(tokens, offsets, tail, self.layers)

    def commit(self, accepted_nodes: Sequence[int]) -> None:
        """Keep the root and the accepted path in the cache."""
        self.model.commit([0, *accepted_nodes])

    def _prepare(self, topology: Topology) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and mask of a topology; a static shape's are made once."""
        if self._prepared is None or self._prepared[0] is not topology:
            device = self.model.device
            visible = torch.from_numpy(topology.ancestors).to(device)
            depths = torch.from_numpy(topology.depths).to(device)
            self._prepared = (topology, depths, tail_mask(visible, self.model.dtype))
        return self._prepared[1:]
