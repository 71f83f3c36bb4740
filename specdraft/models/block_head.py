"""The layers of a block head (DFlash, Chen et al. 2026): one forward proposes a token for every slot of a block.

The block is the root and masks behind it. Every layer attends from the block's slots to the target's features of the
tokens before the root and to the whole block, in both directions; keys and values of the features are projected by each
layer from the same fused states, so they are made once for each token.

Letters in shapes: B texts, n tokens of a text, S starts of a text, b slots, d numbers of a state, L layers of the
target that are read, H heads of keys, r heads of queries for each of them, c numbers of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from specdraft.models.block_layout import BlockShape
from specdraft.models.head_layers import Gated, Norm, rotated


class ContextKeys(NamedTuple):
    """Of one layer, `[B, n, H, c]` each."""

    keys: torch.Tensor
    values: torch.Tensor


class Attention(nn.Module):
    """From the slots of a block to a context and to the block."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self._shape, bias = shape, shape.attention_bias
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head_size, bias=bias)
        self.k_proj = nn.Linear(shape.width, shape.key_heads * shape.head_size, bias=bias)
        self.v_proj = nn.Linear(shape.width, shape.key_heads * shape.head_size, bias=bias)
        self.o_proj = nn.Linear(shape.heads * shape.head_size, shape.width, bias=bias)
        self.q_norm = Norm(shape.head_size, shape.eps)
        self.k_norm = Norm(shape.head_size, shape.eps)

    def keys_of(self, states: torch.Tensor, positions: torch.Tensor) -> ContextKeys:
        """`[..., d]` at positions `[...]` -> `[..., H, c]` each."""
        keys, values = (
            layer(states).unflatten(-1, (-1, self._shape.head_size)) for layer in (self.k_proj, self.v_proj)
        )
        return ContextKeys(self._at(positions, self.k_norm(keys)), values)

    def _at(self, positions: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        half = self._shape.head_size // 2
        order = torch.arange(half, device=states.device, dtype=torch.float32)
        return rotated(states, positions, self._shape.theta ** (-order / half))

    def forward(
        self, states: torch.Tensor, positions: torch.Tensor, context: ContextKeys, seen: torch.Tensor
    ) -> torch.Tensor:
        """Slots `[B, S, b, d]` at `[B, S, b]`; `seen` `[B, S, n]` bool: which tokens each start sees."""
        queries = self.q_norm(self.q_proj(states).unflatten(-1, (-1, self._shape.head_size)))
        queries = self._at(positions, queries)
        queries = queries.view(*positions.shape, self._shape.key_heads, -1, self._shape.head_size)
        own = self.keys_of(states, positions)
        of_context = torch.einsum("zsbhrc,znhc->zshrbn", queries, context.keys)
        of_context = of_context.masked_fill(~seen[:, :, None, None, None], torch.finfo(states.dtype).min)
        scores = torch.cat([of_context, torch.einsum("zsbhrc,zsmhc->zshrbm", queries, own.keys)], -1)
        weights = torch.softmax(scores.float() * self._shape.head_size**-0.5, -1).to(states.dtype)
        from_context, from_block = torch.split(weights, [context.keys.shape[1], states.shape[2]], -1)
        mixed = torch.einsum("zshrbn,znhc->zsbhrc", from_context, context.values)
        mixed = mixed + torch.einsum("zshrbm,zsmhc->zsbhrc", from_block, own.values)
        out: torch.Tensor = self.o_proj(mixed.flatten(-3))
        return out


class Layer(nn.Module):
    """A decoder layer as Qwen3's, but for what it attends to."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.width, shape.eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.width, shape.eps)
        self.mlp = Gated(shape.width, shape.inner)

    def keys_of(self, states: torch.Tensor, positions: torch.Tensor) -> ContextKeys:
        """See `Attention.keys_of`."""
        return self.self_attn.keys_of(states, positions)

    def forward(
        self, states: torch.Tensor, positions: torch.Tensor, context: ContextKeys, seen: torch.Tensor
    ) -> torch.Tensor:
        """See `Attention.forward`."""
        states = states + self.self_attn(self.input_layernorm(states), positions, context, seen)
        out: torch.Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return out


class BlockHead(nn.Module):
    """The head without the target's embeddings and output layer.

    Args:
        shape: of its layers.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.shape = shape
        self.fc = nn.Linear(len(shape.read) * shape.width, shape.width, bias=False)
        self.hidden_norm = Norm(shape.width, shape.eps)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.eps)

    def _layers(self) -> Iterator[Layer]:
        for layer in self.layers:
            assert isinstance(layer, Layer)
            yield layer

    def context(self, features: torch.Tensor, positions: torch.Tensor) -> list[ContextKeys]:
        """Of each layer, what the target's states `[B, n, L, d]` of tokens at `[B, n]` are attended to as."""
        fused = self.hidden_norm(self.fc(features.flatten(-2)))
        return [layer.keys_of(fused, positions) for layer in self._layers()]

    def forward(
        self, embedded: torch.Tensor, roots: torch.Tensor, context: list[ContextKeys], seen: torch.Tensor
    ) -> torch.Tensor:
        """What the output layer reads, `[B, S, depths, d]`, of the slots that propose, depth 1 first.

        Args:
            embedded: `[B, S, b, d]` the root and masks.
            roots: `[B, S]` positions of the roots.
            context: of each layer.
            seen: `[B, S, n]` bool which of its tokens each start sees: those before its root.
        """
        positions = roots[..., None] + torch.arange(embedded.shape[2], device=embedded.device)
        states = embedded
        for layer, keys in zip(self._layers(), context, strict=True):
            states = layer(states, positions, keys, seen)
        out: torch.Tensor = self.norm(states[:, :, self.shape.first :])
        return out
