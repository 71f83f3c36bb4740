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
    """A model of one's own with such layers in place of its linear ones, and norms of one call in place of its own,
    where it is in float32 on a processor.

    Of small vocabularies the linear layers stay (see `lay_out`). Weights stay as and where they are, and outputs, but
    for rounding.
    """
    embeddings = model.get_input_embeddings().weight
    if embeddings.device.type != "cpu":
        return model
    if embeddings.shape[0] >= FEWEST_IDS:
        for name, layer in linear_layers(model):
            model.set_submodule(name, FewTokenLinear(layer).train(layer.training))
    return fuse_norms(model)


def lay_out(model: Any) -> Any:
    """A model of one's own, on a processor, the weights of whose small linear layers lie as BLAS reads them for a few
    tokens: by columns. By rows each call packs them anew, which takes longer than the products."""
    for _, layer in linear_layers(model):
        if layer.weight.device.type == "cpu" and layer.weight.numel() <= MOST_LAID_OUT:
            layer.weight.data = layer.weight.data.t().contiguous().t()
    return model


def linear_layers(model: Any) -> list[tuple[str, torch.nn.Linear]]:
    """The plain ones in float32, by name."""
    layers = [(name, layer) for name, layer in model.named_modules() if type(layer) is torch.nn.Linear]
    return [(name, layer) for name, layer in layers if layer.weight.dtype == torch.float32]
