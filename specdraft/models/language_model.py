"""One loaded causal model: every forward of the package goes through here.

Letters in shapes: B rows of a batch, q tokens that are fed, T + 1 tokens of a recorded text, L chosen layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from transformers import DynamicCache, GenerationConfig

from specdraft.models.files import eos_ids
from specdraft.models.gate import attention_layout


def tail_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`[q, p]` bool -> additive: 0 where visible, the type's minimum elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, torch.finfo(dtype).min)


class Forward(NamedTuple):
    """What a forward gave.

    Attributes:
        logits: `[..., vocab]` float32.
        hidden: `[tokens, L, width]` the states of the chosen layers, as `transformers` counts them (0 is the
            embeddings, the last one is normalised), in the model's type; None where no layer was asked for.
    """

    logits: torch.Tensor
    hidden: torch.Tensor | None = None


class LanguageModel:
    """A `transformers` causal LM that passed the gate.

    Args:
        model: the model.
        vocab: how many ids it may give; what its head has beyond them is padding.
        text_vocab: how many ids the texts have that it reads, where these are more (a target's, of its drafter).

    Attributes:
        width: of all logits: as many as the texts have ids. An id that the model may not give has logit -inf, one that
            it has no embedding of is read as its end-of-sequence token.
    """

    def __init__(self, model: Any, vocab: int, text_vocab: int | None = None) -> None:
        self.model, self.vocab, self.width = model, vocab, max(vocab, text_vocab or 0)
        self._readable = int(model.get_input_embeddings().weight.shape[0])
        self._stand_in = min(eos_ids(model.generation_config, model.config), default=0) % self._readable
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.dtype: torch.dtype = model.dtype
        self.layout = attention_layout(model.config)

    def forward(self, token_ids: torch.Tensor, layers: Sequence[int] = (), **inputs: Any) -> tuple[torch.Tensor, Any]:
        """`[B, q]` ids -> `[B, kept, vocab]` float32 logits, and `[B, q, L, width]` states or None."""
        wanted = {"output_hidden_states": True} if layers else {}
        if self.width > self._readable:
            token_ids = token_ids.where(token_ids < self._readable, self._stand_in)
        out = self.model(input_ids=token_ids, **wanted, **inputs)
        hidden = torch.stack([out.hidden_states[layer] for layer in layers], 2) if layers else None
        logits = out.logits[..., : self.vocab].float()
        if self.width > self.vocab:
            logits = F.pad(logits, (0, self.width - self.vocab), value=-torch.inf)
        return logits, hidden

    @torch.inference_mode()
    def generate(self, token_ids: Sequence[int], max_new_tokens: int, eos_ids: Iterable[int]) -> list[int]:
        """What `transformers`' own greedy decoding makes of some tokens: the code that this package is checked with.

        Settings of the checkpoint that change the distribution (a repetition penalty, say) are left out; ids that no
        tokenizer knows are suppressed.
        """
        rows = int(self.model.get_output_embeddings().weight.shape[0])
        plain = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(eos_ids) or None,
            pad_token_id=0,
            suppress_tokens=list(range(self.vocab, rows)) or None,
        )
        ids = torch.tensor([list(token_ids)], device=self.device)
        settings, self.model.generation_config = self.model.generation_config, plain
        try:
            text = self.model.generate(ids, attention_mask=torch.ones_like(ids))
        finally:
            self.model.generation_config = settings
        continued: list[int] = text[0, ids.shape[1] :].tolist()
        return continued

    @torch.inference_mode()
    def after(self, token_ids: Sequence[int]) -> torch.Tensor:
        """`[vocab]` logits after some tokens: sequential decoding, without a cache and without a tree."""
        logits, _ = self.forward(torch.tensor([list(token_ids)], device=self.device), use_cache=False, logits_to_keep=1)
        last: torch.Tensor = logits[0, -1]
        return last

    @torch.inference_mode()
    def along(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[np.ndarray], layers: Sequence[int] = ()
    ) -> Iterator[Forward]:
        """Teacher-forced: `[T + 1, vocab]` logits before each token of each text; one forward over the batch.

        Args:
            prompts: token ids.
            texts: `[T + 1]` the tokens that follow each prompt.
            layers: whose states are wanted of every token but the text's last: `[prompt + T, L, width]`.
        """
        rows = [[*prompt, *text[:-1].tolist()] for prompt, text in zip(prompts, texts, strict=True)]
        ids = padded(rows, self.device)
        positions = torch.arange(ids.shape[1], device=self.device)[None].expand_as(ids)
        first, keep = min(map(len, prompts)), ids.shape[1] - min(map(len, prompts)) + 1
        logits, hidden = self.forward(ids, layers, position_ids=positions, use_cache=False, logits_to_keep=keep)
        for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            start = len(prompt) - first
            yield Forward(logits[row, start : start + len(text)], hidden[row, : len(rows[row])] if layers else None)

    def batch(self, prompts: Sequence[Sequence[int]]) -> Batch:
        """Several prompts that are continued side by side."""
        return Batch(self, prompts)


class Batch:
    """Prompts of unequal length, continued one token a row at a time, without left padding.

    Prompts are padded on the right, new tokens go to a common slot behind the longest prompt, and a mask hides the
    padding. Positions are each row's own.

    Attributes:
        logits: `[B, vocab]` float32 after each row's last token.
    """

    @torch.inference_mode()
    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        self._model, self._cache, device = model, DynamicCache(), model.device
        self._lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        ids = padded(prompts, device)
        self._width = ids.shape[1]
        ends, place = torch.unique(self._lengths - 1, return_inverse=True)  # logits of the prompts' last tokens only
        slots = torch.arange(self._width, device=device)[None].expand_as(ids)
        kept, _ = model.forward(
            ids, position_ids=slots, past_key_values=self._cache, use_cache=True, logits_to_keep=ends
        )
        self.logits: torch.Tensor = kept[torch.arange(len(prompts), device=device), place]
        self._slots = torch.where(slots < self._lengths[:, None], slots, -1)  # the position in each slot; -1: padding

    @torch.inference_mode()
    def append(self, tokens: torch.Tensor) -> None:
        """Continue every row with a token: `[B]` ids."""
        positions = self._lengths + self._slots.shape[1] - self._width
        self._slots = torch.cat([self._slots, positions[:, None]], 1)
        logits, _ = self._model.forward(
            tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=self._masks(positions),
            past_key_values=self._cache,
            use_cache=True,
        )
        self.logits = logits[:, -1]

    def _masks(self, positions: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Additive `[B, 1, 1, S]` for one query a row, which sees every slot of its row that is not padding."""
        layout, dtype = self._model.layout, self._model.dtype
        full = tail_mask(self._slots >= 0, dtype)[:, None, None]
        if layout.window is None:
            return full
        outside = (positions[:, None] - self._slots >= layout.window)[:, None, None]
        sliding = full.masked_fill(outside, torch.finfo(dtype).min)
        return {"full_attention": full, "sliding_attention": sliding} if layout.mixed else sliding


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """`[B, longest]`, filled up on the right with token 0."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
