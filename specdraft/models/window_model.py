"""A causal language model that sees the last few tokens only: embeddings side by side, two matrices, a tied output.

A neural probabilistic language model (Bengio et al. 2003), small enough that a level of a draft tree costs next to
nothing. What it keeps of a text are token ids and positions, in the cache where others keep keys and values: a token's
window is what its mask shows it at the positions before it, so it drafts trees as every other model does.

Letters: B rows, q tokens that are fed, S slots of the cache with them, N tokens of a window, d numbers of an embedding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel


class WindowConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of a `WindowModel`.

    Args:
        vocab_size: ids.
        window: N, the last token included.
        hidden_size: d.
        intermediate_size: numbers between the two matrices.
    """

    model_type = "specdraft_window"

    def __init__(
        self,
        vocab_size: int = 4096,
        window: int = 6,
        hidden_size: int = 96,
        intermediate_size: int = 384,
        **others: Any,
    ) -> None:
        self.vocab_size, self.window = vocab_size, window
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.num_hidden_layers = 1
        self.eos_token_id = None  # where texts end is the target's business
        super().__init__(**others)


class Said(NamedTuple):
    """What a forward gives, as the outputs of `transformers` name it."""

    logits: torch.Tensor
    hidden_states: None = None


class WindowModel(PreTrainedModel):  # type: ignore[misc]
    """See the module."""

    config_class = WindowConfig
    main_input_name = "input_ids"

    def __init__(self, config: WindowConfig) -> None:
        super().__init__(config)
        width, inner = config.hidden_size, config.intermediate_size
        self.embedding = torch.nn.Embedding(config.vocab_size, width)
        self.inner = torch.nn.Linear(config.window * width, inner)
        self.outer = torch.nn.Linear(inner, width)
        self.bias = torch.nn.Parameter(torch.zeros(config.vocab_size))
        self.window: int = config.window
        self.post_init()
        self.generation_config = GenerationConfig()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """As `transformers` asks: normal, small."""
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            module.weight.data.normal_(0.0, module.weight.shape[-1] ** -0.5)
        if isinstance(module, torch.nn.Linear):
            module.bias.data.zero_()

    def get_input_embeddings(self) -> torch.nn.Module:
        """The only ones that it has."""
        return self.embedding

    def get_output_embeddings(self) -> None:
        """None: logits are made of the input embeddings."""
        return

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        logits_to_keep: int | torch.Tensor = 0,
        **others: Any,
    ) -> Said:
        """`[B, q]` ids -> `[B, kept, vocab]` logits, as the models of `transformers` do.

        Args:
            input_ids: what is fed.
            position_ids: `[B, q]`; left out: in their order after what is in the cache.
            attention_mask: additive `[B, 1, q, S]`: what each of them sees; left out: all before it, which are then in
                the order of their positions.
            past_key_values: the cache.
            logits_to_keep: of the last so many, or of these places; 0: of all.
            others: what other models need.
        """
        if position_ids is None:
            before = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(before, before + input_ids.shape[1], device=input_ids.device)[None]
        if position_ids.shape != input_ids.shape:
            position_ids = position_ids.expand_as(input_ids)
        tokens, positions = input_ids, position_ids
        if past_key_values is not None:
            keys, values = past_key_values.update(input_ids[:, None, :, None], position_ids[:, None, :, None], 0)
            tokens, positions = keys[:, 0, :, 0], values[:, 0, :, 0]
        some = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        wanted = position_ids[:, some]
        mask = None if attention_mask is None else attention_mask[:, 0, some]
        return Said(self._logits(*self._windows(tokens, positions, wanted, mask)))

    def _windows(
        self, tokens: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, q, N]` ids of the windows that end at these positions, the last token first, and which there are."""
        places = wanted[..., None] - torch.arange(self.window, device=wanted.device)  # [B, q, N]
        if mask is None:
            there, slots = places >= 0, places.clamp(min=0)
        else:
            shown = (positions[:, None, None] == places[..., None]).logical_and_((mask == 0)[:, :, None])
            there, slots = shown.max(-1)  # of a position a token sees one slot
        return tokens.gather(1, slots.flatten(1)).view(places.shape), there

    def _logits(self, windows: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(windows) * there[..., None]
        inside = F.silu(self.inner(embedded.flatten(-2)))
        return F.linear(embedded[..., 0, :] + self.outer(inside), self.embedding.weight, self.bias)
