"""T5 and its kin: an encoder reads the prompt once, and the decoder's cache is the committed text.

A decoder's relative position biases follow the slots of its cache, and a tree's siblings share a position. The biases
are added to attention scores, as masks are, and the decoder's layers share them (Raffel et al. 2020, section 2.1): so a
mask of one page a head makes up the difference, and a tree takes one forward, as it does elsewhere.

Letters in shapes: B rows, q tokens that are fed, S slots with them, E tokens of a prompt, H heads, d numbers of a
position's bias, which is the same from `relative_attention_max_distance` on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from specdraft.models.cached_model import CachedModel
from specdraft.models.gate import start_token
from specdraft.models.growing_cache import GrowingCache
from specdraft.models.language_model import padded

BIASES = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"  # as checkpoints name them


@dataclass(frozen=True)
class Source:
    """What an encoder made of prompts, and the decoder's keys and values of it, which the first forward fills in.

    Attributes:
        states: `[B, E, width]`; `there`: `[B, E]` which of them are no padding.
        cross: of the decoder's attention to them.
    """

    states: torch.Tensor
    there: torch.Tensor
    cross: DynamicCache

    def of_rows(self, rows: torch.Tensor) -> Source:
        """Of these rows, each as often as it is named."""
        cross = DynamicCache()
        for number, layer in enumerate(self.cross.layers):
            at = rows.to(layer.keys.device)
            cross.update(layer.keys[at], layer.values[at], number)
        at = rows.to(self.states.device)
        return Source(self.states[at], self.there[at], cross)


class SourcedCache(GrowingCache):
    """The decoder's own keys and values, beside what it reads of the prompts.

    Args:
        layers: of the decoder.
        source: of the prompts.
    """

    def __init__(self, layers: int, source: Source) -> None:
        super().__init__(layers)
        self.source = source

    @property
    def both(self) -> Cache:
        """As the model's forward takes them."""
        return EncoderDecoderCache(self, self.source.cross)


class EncoderDecoder(CachedModel):
    """An encoder-decoder with the key-value cache of one sequence: of its text, which begins with a start token."""

    encodes = True
    places_matter = True

    def __init__(self, model: Any, vocab: int, text_vocab: int | None = None) -> None:
        self.start = start_token(model.generation_config, model.config)
        super().__init__(model, vocab, text_vocab)
        self._bias = distance_biases(model.get_parameter(BIASES), model.config).to(self.device)

    def starts(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """See `LanguageModel.starts`."""
        assert self.start is not None
        return [[self.start] for _ in prompts]

    @torch.inference_mode()
    def new_cache(self, prompts: Sequence[Sequence[int]] = ()) -> Any:
        """See `LanguageModel.new_cache`: the encoder reads the prompts."""
        layers = int(self.model.config.num_decoder_layers)
        if not prompts:
            return GrowingCache(layers)
        ids = padded(prompts, self.device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        there = (torch.arange(ids.shape[1], device=self.device) < lengths[:, None]).long()
        states = self.model.get_encoder()(input_ids=self.readable(ids), attention_mask=there).last_hidden_state
        return SourcedCache(layers, Source(states, there, DynamicCache()))

    def cache_beside(self, cache: Any, rows: torch.Tensor) -> Any:
        """See `LanguageModel.cache_beside`."""
        return SourcedCache(len(cache.layers), cache.source.of_rows(rows))

    def _sequence(self, prompts: Sequence[Sequence[int]] = ()) -> Any:
        """See `CachedModel._sequence`."""
        return self.new_cache(prompts)

    def forward(
        self,
        token_ids: torch.Tensor,
        layers: Sequence[int] = (),
        *,
        cache: Any = None,
        logits_to_keep: int | torch.Tensor = 0,
        **inputs: Any,
    ) -> tuple[torch.Tensor, Any]:
        """See `LanguageModel.forward`: positions are in the mask, or those of the slots."""
        wanted = {"output_hidden_states": True} if layers else {}
        source = cache.source
        out = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=source.states),
            attention_mask=source.there,
            decoder_input_ids=self.readable(token_ids),
            decoder_attention_mask=inputs.get("attention_mask"),
            use_cache=True,
            **{str(self.cache_name): cache.both},
            **wanted,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden = torch.stack([out.decoder_hidden_states[layer] for layer in layers], 2) if layers else None
        return self.of_texts(out.logits[:, kept]), hidden

    def placed(self, full: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """See `LanguageModel.placed`: `[B, H, q, S]`, where a token is at another position than its slot with the
        difference of the biases."""
        place = torch.arange(slots.shape[1], device=slots.device)
        meant = self._bias_of(positions[:, :, None] - slots[:, None])
        added = self._bias_of(place[-positions.shape[1] :, None] - place)
        return torch.where(full == 0, (meant - added).to(full.dtype), full)

    def _bias_of(self, distances: torch.Tensor) -> torch.Tensor:
        """`[..., q, S]` tokens back -> `[..., H, q, S]`."""
        return self._bias[:, distances.clamp(0, self._bias.shape[1] - 1)].movedim(0, -3)

    def given_to_generate(self) -> dict[str, Any]:
        """See `LanguageModel.given_to_generate`: its own cache has as many layers as the encoder, and fails where the
        decoder has more (transformers 5.23)."""
        return {str(self.cache_name): EncoderDecoderCache(DynamicCache(), DynamicCache())}

    def another(self) -> Self:
        """See `CachedModel.another`."""
        return type(self)(self.model, self.vocab, self.width)


def distance_biases(weight: torch.Tensor, config: Any) -> torch.Tensor:
    """`[H, d]` float32: the bias of a token so many before the one that attends, from the weights `[buckets, H]`.

    Half of the buckets are for one distance each, the others for ever more of them, on a logarithmic scale up to the
    largest distance (Raffel et al. 2020, section 2.1).
    """
    buckets, largest = config.relative_attention_num_buckets, config.relative_attention_max_distance
    single = buckets // 2
    distance = torch.arange(largest + 1)
    shared = torch.log(distance.clamp(min=1).float() / single) / math.log(largest / single) * (buckets - single)
    bucket = torch.where(distance < single, distance, single + shared.long()).clamp(max=buckets - 1)
    return weight.detach().float()[bucket.to(weight.device)].T.contiguous()
