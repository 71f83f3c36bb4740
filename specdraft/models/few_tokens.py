"""Linear layers over a few tokens on a processor: what a verification step spends its time in."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from specdraft.models.fused_norm import fuse_norms

FEWEST_IDS = 16_384  # of a vocabulary; the layers of models with smaller ones are small
MOST_LAID_OUT = 2**18  # numbers of a weight, a MiB: what a processor core keeps at hand
MOST_TOKENS = 8  # with more, both orders take equally long
TOGETHER = 4  # tokens that take no longer than one: fewer are filled up
MOST_OF_ONE_THREAD = 4  # tokens; with more of them, one thread is faster at a layer's own order


class FewTokenLinear(torch.nn.Linear):
    """A linear layer that multiplies a few tokens as `weight @ states.T`.

    BLAS packs the side that it takes for the long one. On two threads a model's forward over 2 to 4 tokens takes as
    long as one over a single token this way, and half as long again by `states @ weight.T`.

    Args:
        layer: whose weight and bias it has.
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # as `torch.nn.Linear` calls it
        """`[..., in_features]` -> `[..., out_features]`; tokens are those of all rows of a batch."""
        tokens = input.numel() // self.in_features
        if not 2 <= tokens <= self._most():
            return super().forward(input)
        states = F.pad(input.reshape(tokens, -1), (0, 0, 0, -tokens % TOGETHER))
        output = torch.matmul(self.weight, states.t()).t()[:tokens].reshape(*input.shape[:-1], -1)
        return output if self.bias is None else output + self.bias

    def _most(self) -> int:
        many = torch.get_num_threads() > 1 or self.out_features >= FEWEST_IDS
        return MOST_TOKENS if many else MOST_OF_ONE_THREAD


def suit_few_tokens(model: Any) -> Any:
    """A model of one's own whose linear layers are fast at a few tokens, where it is in float32 on a processor.

    The large ones become `FewTokenLinear`, the small ones are laid out anew; the weights' numbers stay as they are, and
    the outputs, but for rounding.
    """
    embeddings = model.get_input_embeddings().weight
    if embeddings.device.type != "cpu":
        return model
    for name, layer in list(model.named_modules()):
        if type(layer) is not torch.nn.Linear or layer.weight.dtype != torch.float32:
            continue
        if embeddings.shape[0] >= FEWEST_IDS:
            model.set_submodule(name, FewTokenLinear(layer).train(layer.training))
        elif layer.weight.numel() <= MOST_LAID_OUT:
            lay_out(layer)
    return fuse_norms(model)


def lay_out(layer: torch.nn.Linear) -> None:
    """The weight of a small layer as BLAS reads it for a few tokens: by columns.

    By rows it is packed anew in every call, which takes longer than the products.
    """
    layer.weight.data = layer.weight.data.t().contiguous().t()
