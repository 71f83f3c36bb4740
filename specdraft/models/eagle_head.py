"""The layers of an EAGLE head (Li et al. 2024; EAGLE-3: Li et al. 2025), which reads features of a target.

Entry i of a text is the pair of its token i + 1 and the target's feature of token i; what comes out stands for the
feature of token i + 1, and says which token follows that. Entries of drafted tokens have the head's own output of the
entry before in the place of the feature.

Letters in shapes: B texts, e entries of a text, S starts of a text, m drafted tokens of a start that are fed at once, F
those that were fed before, d numbers of a state, w of a target's state, L its layers that are read, H heads, c numbers
of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from specdraft.models.eagle_layout import EagleShape
from specdraft.models.head_layers import Gated, Norm, rotated


class KeyValues(NamedTuple):
    """Of one layer, `[..., H, c]` each."""

    keys: torch.Tensor
    values: torch.Tensor

    def then(self, other: KeyValues) -> KeyValues:
        """With others after them along the third dimension from the end."""
        return KeyValues(*(torch.cat(pair, -3) for pair in zip(self, other, strict=True)))


class Out(NamedTuple):
    """What came out of entries.

    Attributes:
        fed: `[..., d]` what stands for their features one depth further.
        said: `[..., d]` what the output layer reads.
        kept: of each layer, keys and values of these entries.
    """

    fed: torch.Tensor
    said: torch.Tensor
    kept: list[KeyValues]


class Seen(NamedTuple):
    """What entries may attend to.

    Attributes:
        past: of each layer, `[B, e, H, c]` of the entries of a text.
        of_past: `[B or 1, S, e]` bool which of them each start sees.
        own: of each layer, `[B, S, F, H, c]` of the drafted tokens of each start.
        of_own: `[B, S, m, F + m]` bool which of these, and of the new ones, each new one sees.
    """

    past: list[KeyValues]
    of_past: torch.Tensor
    own: list[KeyValues]
    of_own: torch.Tensor


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021), halves paired as in Llama."""

    frequencies: torch.Tensor  # [c / 2]

    def __init__(self, frequencies: tuple[float, ...], scale: float) -> None:
        super().__init__()
        self._scale = scale
        self.register_buffer("frequencies", torch.tensor(frequencies, dtype=torch.float32), persistent=False)

    def forward(self, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """`[..., H, c]` states at positions `[...]`."""
        return rotated(states, positions, self.frequencies.float(), self._scale)


class Attention(nn.Module):
    """Grouped attention whose input may be wider than its output."""

    def __init__(self, shape: EagleShape, width: int) -> None:
        super().__init__()
        self._heads, self._groups, self._size = shape.heads, shape.key_heads, shape.head_size
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(width, heads * shape.head_size, bias=shape.attention_bias)
            for heads in (shape.heads, shape.key_heads, shape.key_heads)
        )
        self.o_proj = nn.Linear(shape.heads * shape.head_size, shape.width, bias=shape.attention_bias)

    def _projected(
        self, states: torch.Tensor, positions: torch.Tensor, rotary: Rotary
    ) -> tuple[torch.Tensor, KeyValues]:
        queries, keys, values = (
            layer(states).unflatten(-1, (-1, self._size)) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        return rotary(queries, positions), KeyValues(rotary(keys, positions), values)

    def _each_head(self, states: torch.Tensor) -> torch.Tensor:
        """`[..., H of keys, c]` -> `[..., H, c]`."""
        return states.repeat_interleave(self._heads // self._groups, -2) if self._heads > self._groups else states

    def read(
        self, states: torch.Tensor, positions: torch.Tensor, rotary: Rotary, past: KeyValues | None
    ) -> tuple[torch.Tensor, KeyValues]:
        """Entries `[B, e, ...]` after `past`, each of which sees all before it and itself."""
        queries, new = self._projected(states, positions, rotary)
        whole = new if past is None else past.then(new)
        before, count = whole.keys.shape[1] - states.shape[1], states.shape[1]
        order = torch.arange(before + count, device=states.device)
        seen = order[None] <= order[before:, None]
        keys, values = (self._each_head(part).transpose(1, 2) for part in whole)
        mixed = F.scaled_dot_product_attention(queries.transpose(1, 2), keys, values, attn_mask=seen)
        return self.o_proj(mixed.transpose(1, 2).flatten(-2)), new

    def draft(
        self, states: torch.Tensor, positions: torch.Tensor, rotary: Rotary, past: KeyValues, own: KeyValues, seen: Seen
    ) -> tuple[torch.Tensor, KeyValues]:
        """Drafted tokens `[B, S, m, ...]`, which see entries of the text and of their own start."""
        queries, new = self._projected(states, positions, rotary)
        keys, values = (self._each_head(part) for part in past)
        own_keys, own_values = (self._each_head(part) for part in own.then(new))
        queries = queries * self._size**-0.5
        far = torch.einsum("bsmhc,behc->bshme", queries, keys)
        near = torch.einsum("bsmhc,bsfhc->bshmf", queries, own_keys)
        far = far.masked_fill(~seen.of_past[:, :, None, None], -torch.inf)
        near = near.masked_fill(~seen.of_own[:, :, None], -torch.inf)
        shares = torch.softmax(torch.cat([far, near], -1).float(), -1).to(states.dtype)
        entries = far.shape[-1]
        far, near = shares[..., :entries], shares[..., entries:]
        mixed = torch.einsum("bshme,behc->bsmhc", far, values) + torch.einsum("bshmf,bsfhc->bsmhc", near, own_values)
        return self.o_proj(mixed.flatten(-2)), new


class Layer(nn.Module):
    """A decoder layer; the first one of a head has an entry of its own (see `EagleHead.enter`)."""

    def __init__(self, shape: EagleShape, first: bool) -> None:
        super().__init__()
        wide = first and shape.version == 3
        self.self_attn, self.mlp = (
            Attention(shape, (1 + wide) * shape.width),
            Gated(shape.width, shape.inner, shape.mlp_bias),
        )
        self.post_attention_layernorm = Norm(shape.width, shape.eps)
        if not first or shape.version == 3 or shape.first_norm:
            self.input_layernorm = Norm(shape.width, shape.eps)
        if wide:
            self.hidden_norm = Norm(shape.width, shape.eps)

    def after(self, residual: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """What the rest of the layer makes of what was attended to."""
        states = residual + attended
        out: torch.Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return out


class EagleHead(nn.Module):
    """The head without the target's embeddings and output layer.

    Args:
        shape: of its layers.
    """

    def __init__(self, shape: EagleShape) -> None:
        super().__init__()
        self.shape = shape
        read = shape.features * shape.target_width if shape.version == 3 else 2 * shape.width
        self.fc = nn.Linear(read, shape.width, bias=shape.fc_bias)
        self.layers = nn.ModuleList(Layer(shape, first=number == 0) for number in range(shape.layers))
        self.rotary = Rotary(shape.frequencies, shape.rotary_scale)
        if shape.norm_before_fc:
            self.input_norm = Norm(read, shape.eps)
        if shape.fc_norm:
            self.fc_norm = nn.ModuleList(Norm(shape.target_width, shape.eps) for _ in range(shape.features))
        if shape.final_norm:
            self.norm = Norm(shape.width, shape.eps)
        if shape.embedding_norm:
            self.embedding_norm = Norm(shape.width, shape.eps)

    @property
    def each_layer(self) -> list[Layer]:
        """The layers in their order."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def fuse(self, features: torch.Tensor) -> torch.Tensor:
        """The target's states `[..., L, w]` as features `[..., d]`."""
        if self.shape.version == 1:
            return features[..., 0, :]
        if self.shape.fc_norm:
            features = torch.stack([norm(features[..., i, :]) for i, norm in enumerate(self.fc_norm)], -2)
        joined = features.flatten(-2)
        fused: torch.Tensor = self.fc(self.input_norm(joined) if self.shape.norm_before_fc else joined)
        return fused

    def enter(self, embedded: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings and features `[..., d]` of entries -> what the first layer attends with, and its residual."""
        first = self.each_layer[0]
        if self.shape.embedding_norm:
            embedded = self.embedding_norm(embedded)
        if self.shape.version == 1:
            joined: torch.Tensor = self.fc(torch.cat([embedded, features], -1))
            return first.input_layernorm(joined) if self.shape.first_norm else joined, joined
        normed = first.hidden_norm(features)
        return (
            torch.cat([first.input_layernorm(embedded), normed], -1),
            normed if self.shape.norm_before_residual else features,
        )

    def leave(self, states: torch.Tensor, kept: list[KeyValues]) -> Out:
        """What comes out of the last layer."""
        said = self.norm(states) if self.shape.final_norm else states
        return Out(said if self.shape.norm_output else states, said, kept)

    def read(self, embedded: torch.Tensor, features: torch.Tensor, past: list[KeyValues] | None = None) -> Out:
        """Entries `[B, e, d]` of texts after those of `past`, with the target's features (see `fuse`)."""
        before = past[0].keys.shape[1] if past else 0
        positions = torch.arange(before, before + embedded.shape[1], device=embedded.device)[None]
        attending, states = self.enter(embedded, features)
        kept = []
        for number, layer in enumerate(self.each_layer):
            attending = layer.input_layernorm(states) if number else attending
            attended, new = layer.self_attn.read(attending, positions, self.rotary, past[number] if past else None)
            states = layer.after(states, attended)
            kept.append(new)
        return self.leave(states, kept)

    def draft(self, embedded: torch.Tensor, features: torch.Tensor, positions: torch.Tensor, seen: Seen) -> Out:
        """Drafted tokens `[B, S, m, d]` at positions `[B, S, m]`, with the head's own outputs as features."""
        attending, states = self.enter(embedded, features)
        kept = []
        for number, layer in enumerate(self.each_layer):
            attending = layer.input_layernorm(states) if number else attending
            attended, new = layer.self_attn.draft(
                attending, positions, self.rotary, seen.past[number], seen.own[number], seen
            )
            states = layer.after(states, attended)
            kept.append(new)
        return self.leave(states, kept)

    def nothing_fed(self, texts: int, starts: int, like: torch.Tensor) -> list[KeyValues]:
        """See `Seen.own`, before the first drafted token."""
        empty = like.new_empty(texts, starts, 0, self.shape.key_heads, self.shape.head_size)
        return [KeyValues(empty, empty) for _ in self.layers]
