"""One loaded causal model: every forward of the package goes through here.

Letters in shapes: B rows of a batch, q tokens that are fed, T + 1 tokens of a recorded text, L chosen layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from specdraft.models.files import eos_ids
from specdraft.models.gate import attention_layout, cache_name
from specdraft.models.tree_attention import takes_tails


def tail_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`[..., q, p]` bool -> additive: 0 where visible, the type's minimum elsewhere."""
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


class Assistance(NamedTuple):
    """What `transformers` may draft with in its own `generate`.

    Attributes:
        assistant: a smaller model; None: there is none.
        of_assistant: generation settings of it that are not the default ones.
        prompt_lookup_num_tokens: tokens that are copied from the text so far; None: nothing is looked up.
    """

    assistant: LanguageModel | None = None
    of_assistant: Mapping[str, Any] = {}
    prompt_lookup_num_tokens: int | None = None


UNASSISTED = Assistance()


@contextmanager
def generating(model: Any, settings: Any) -> Iterator[None]:
    """A model with other generation settings, for as long as it lasts."""
    before, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = before


class LanguageModel:
    """A `transformers` causal LM that passed the gate.

    Args:
        model: the model.
        vocab: how many ids it may give; what its head has beyond them is padding.
        text_vocab: how many ids the texts have that it reads, where these are more (a target's, of its drafter).

    Attributes:
        width: of all logits: as many as the texts have ids. An id that the model may not give has logit -inf, one that
            it has no embedding of is read as its end-of-sequence token.
        encodes: an encoder reads its prompts, and its texts begin with the token `start`.
        places_matter: masks depend on the positions of what is in the cache.
        takes_tails: its layers attend by a kernel, which is given what nodes see (`models.tree_attention`).
    """

    encodes = False
    start: int | None = None

    def __init__(self, model: Any, vocab: int, text_vocab: int | None = None) -> None:
        self.model, self.vocab, self.width = model, vocab, max(vocab, text_vocab or 0)
        self._readable = int(model.get_input_embeddings().weight.shape[0])
        self._stand_in = min(eos_ids(model.generation_config, model.config), default=0) % self._readable
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.dtype: torch.dtype = model.dtype
        self.layout = attention_layout(model.config)
        self.cache_name = cache_name(type(model))
        self.takes_tails = takes_tails(model) and not self.places_matter

    @property
    def places_matter(self) -> bool:
        """See `LanguageModel`."""
        return self.layout.window is not None

    def forward(
        self, token_ids: torch.Tensor, layers: Sequence[int] = (), *, cache: Any = None, **inputs: Any
    ) -> tuple[torch.Tensor, Any]:
        """`[B, q]` ids -> `[B, kept, vocab]` float32 logits, and `[B, q, L, width]` states or None.

        Args:
            token_ids: the ids.
            layers: whose states are wanted.
            cache: of keys and values (see `new_cache`); None: none is kept.
            inputs: what the model's forward takes besides.
        """
        wanted = {"output_hidden_states": True} if layers else {}
        kept: dict[Any, Any] = {"use_cache": False} if cache is None else {self.cache_name: cache, "use_cache": True}
        out = self.model(input_ids=self.readable(token_ids), **wanted, **kept, **inputs)
        hidden = torch.stack([out.hidden_states[layer] for layer in layers], 2) if layers else None
        return self.of_texts(out.logits), hidden

    def readable(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Ids that it has no embedding of, as it reads them."""
        if self.width > self._readable:
            token_ids = token_ids.where(token_ids < self._readable, self._stand_in)
        return token_ids

    def of_texts(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits `[..., rows]` of an output layer as those of the ids that texts have: `[..., width]` float32."""
        logits = logits[..., : self.vocab].float()
        return F.pad(logits, (0, self.width - self.vocab), value=-torch.inf) if self.width > self.vocab else logits

    def starts(self, prompts: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """What goes into the cache before the texts that follow these prompts."""
        return prompts

    def new_cache(self, prompts: Sequence[Sequence[int]] = ()) -> Any:
        """An empty cache of keys and values for what follows prompts; `transformers` is imported only where a model
        runs."""
        from transformers import DynamicCache

        return DynamicCache()

    def cache_beside(self, cache: Any, rows: torch.Tensor) -> Any:
        """An empty cache for rows that go on from these rows `[R]` of another one."""
        return self.new_cache()

    def placed(
        self, full: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Additive masks `[B, 1, q, s]` as the model's forward takes them: for each kind of layer if they differ.

        Args:
            full: of what tokens may see.
            positions: `[B, q]` of the tokens.
            slots: `[B, s]` the positions of what is there, the tokens themselves included.
        """
        if self.layout.window is None:
            return full
        outside = positions[:, :, None] - slots[:, None] >= self.layout.window
        sliding = full.masked_fill(outside[:, None], torch.finfo(self.dtype).min)
        return {"full_attention": full, "sliding_attention": sliding} if self.layout.mixed else sliding

    def given_to_generate(self) -> dict[str, Any]:
        """What `transformers`' own `generate` is given beside the prompt."""
        return {}

    @torch.inference_mode()
    def generate(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int,
        eos_ids: Iterable[int],
        assistance: Assistance = UNASSISTED,
    ) -> list[int]:
        """What `transformers`' own greedy decoding makes of some tokens: the code that this package is checked with.

        Settings of the checkpoint that change the distribution (a repetition penalty, say) are left out; ids that no
        tokenizer knows are suppressed.
        """
        rows = int(self.model.get_output_embeddings().weight.shape[0])
        from transformers import GenerationConfig

        plain = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(eos_ids) or None,
            pad_token_id=0,
            suppress_tokens=list(range(self.vocab, rows)) or None,
            decoder_start_token_id=self.start,
            prompt_lookup_num_tokens=assistance.prompt_lookup_num_tokens,
        )
        ids = torch.tensor([list(token_ids)], device=self.device)
        options = self.given_to_generate()
        with ExitStack() as stack:
            stack.enter_context(generating(self.model, plain))
            if assistance.assistant is not None:
                options["assistant_model"] = draft = assistance.assistant.model
                stack.enter_context(generating(draft, GenerationConfig(**assistance.of_assistant)))
            text = self.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        continued: list[int] = text[0, len(self.starts([token_ids])[0]) :].tolist()
        return continued

    @torch.inference_mode()
    def after(self, prompt_ids: Sequence[int], text: Sequence[int] = ()) -> torch.Tensor:
        """`[vocab]` logits after a prompt and a text: sequential decoding, without a tree."""
        last: torch.Tensor = self.along(prompt_ids, text, 1)[0]
        return last

    @torch.inference_mode()
    def along(self, prompt_ids: Sequence[int], text: Sequence[int], kept: int) -> torch.Tensor:
        """`[kept, vocab]` logits after the last tokens of a prompt and a text, from one forward."""
        ids = torch.tensor([[*self.starts([prompt_ids])[0], *text]], device=self.device)
        logits, _ = self.forward(ids, cache=self.new_cache([prompt_ids]) if self.encodes else None, logits_to_keep=kept)
        said: torch.Tensor = logits[0, -kept:]
        return said

    @torch.inference_mode()
    def states_along(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[np.ndarray], layers: Sequence[int]
    ) -> list[torch.Tensor]:
        """The states of some layers along recorded texts, one forward over the batch: `[prompt + T, L, width]` each.

        Args:
            prompts: token ids.
            texts: `[T + 1]` the tokens that follow each prompt; the last one is not read.
            layers: whose states are wanted.
        """
        rows = [[*prompt, *text[:-1].tolist()] for prompt, text in zip(prompts, texts, strict=True)]
        ids = padded(rows, self.device)
        positions = torch.arange(ids.shape[1], device=self.device)[None].expand_as(ids)
        _, hidden = self.forward(ids, layers, position_ids=positions, logits_to_keep=1)
        return [hidden[row, : len(tokens)] for row, tokens in enumerate(rows)]


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """`[B, longest]`, filled up on the right with token 0."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
