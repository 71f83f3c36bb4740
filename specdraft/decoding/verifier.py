"""The target checks a whole draft tree in one forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from specdraft.models.cached_model import CachedModel, tail_mask
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology


class Verifier:
    """The target with the committed tokens in its cache, the last of them (the next root) left out."""

    def __init__(self, model: CachedModel) -> None:
        self.model = model
        self._prepared: tuple[Topology, torch.Tensor, torch.Tensor] | None = None

    def prefill(self, prompt_ids: Sequence[int]) -> torch.Tensor:
        """Start over with a prompt; `[vocab]` logits after it."""
        self.model.reset()
        return self.model.prefill(prompt_ids)

    def verify(self, tree: DraftTree) -> torch.Tensor:
        """`[n + 1, vocab]` logits after each node, row 0 after the root."""
        offsets, tail = self._prepare(tree.topology)
        tokens = torch.as_tensor(tree.tokens, device=self.model.device)
        return self.model.append(tokens, offsets, tail)

    def commit(self, accepted_nodes: Sequence[int]) -> None:
        """Keep the root and the accepted path in the cache."""
        self.model.commit([0, *accepted_nodes])

    def _prepare(self, topology: Topology) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and mask of a topology; a static shape's are made once."""
        if self._prepared is None or self._prepared[0] is not topology:
            device = self.model.device
            visible = torch.from_numpy(topology.ancestors).to(device)
            self._prepared = (
                topology,
                torch.from_numpy(topology.depths).to(device),
                tail_mask(visible, self.model.dtype),
            )
        return self._prepared[1:]
