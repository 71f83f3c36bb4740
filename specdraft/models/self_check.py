"""A three-node tree against sequential decoding, at load: does this model really verify trees?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from specdraft.errors import UnsupportedModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import tail_mask
from specdraft.trees.topology import Topology

CHECK_TREE = Topology.from_paths([(0,), (1,), (0, 0)])  # A; B its sibling; C a child of A


@dataclass(frozen=True)
class SelfCheck:
    """Largest absolute logit differences from sequential decoding.

    Attributes:
        error: of the tree forward.
        control: of the milder of two forwards that are wrong on purpose (mask, positions).
    """

    error: float
    control: float

    @property
    def passed(self) -> bool:
        return self.error < 1e-2 * self.control


def self_check(model: CachedModel, name: str) -> SelfCheck:
    """Compare a tree forward with cache-free forwards of every path.

    Raises:
        UnsupportedModelError: in float32 the tree's logits are not the sequential ones.
    """
    generator = torch.Generator().manual_seed(0)
    prompt_len = 12
    ids = torch.randint(0, model.vocab, (prompt_len + len(CHECK_TREE),), generator=generator).tolist()
    prompt, nodes = ids[:prompt_len], ids[prompt_len:]
    wanted = torch.stack([model.after(prompt + [nodes[i] for i in path]) for path in ([0], [0, 1], [0, 2], [0, 1, 3])])
    ancestors = torch.from_numpy(CHECK_TREE.ancestors)
    depths = torch.from_numpy(CHECK_TREE.depths)
    slots = torch.arange(len(CHECK_TREE))
    causal = slots[:, None] >= slots[None]

    def difference(offsets: torch.Tensor, visible: torch.Tensor) -> float:
        model.reset()
        model.prefill(prompt)
        tail = tail_mask(visible.to(model.device), model.dtype)
        got = model.append(torch.tensor(nodes, device=model.device), offsets.to(model.device), tail).logits
        return float((got - wanted).abs().max())

    check = SelfCheck(difference(depths, ancestors), min(difference(depths, causal), difference(slots, ancestors)))
    model.reset()
    if not check.passed:
        message = (
            f"{name}: the load-time self-check failed: tree logits differ from sequential ones by {check.error:.2g}, "
            f"wrong masks or positions by {check.control:.2g}"
        )
        if model.dtype == torch.float32:
            raise UnsupportedModelError(message)
        warnings.warn(f"{message}; inconclusive in {model.dtype}", stacklevel=2)
    return check
