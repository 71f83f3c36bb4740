"""Decode single prompts live: the Python API, and what `specdraft generate` shows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

import torch

from specdraft.acceptance import AcceptanceRule, Greedy
from specdraft.config import Settings
from specdraft.decoding.decode import Ending, decode
from specdraft.decoding.fitting import refuse_misfit
from specdraft.decoding.text_seeds import text_generator
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import DraftModel
from specdraft.errors import OUT_OF_MEMORY, ConfigError, ModelError, did_you_mean
from specdraft.models.encoding import encode_to_fit
from specdraft.models.pair import Pair
from specdraft.results.metrics import Tally, tally
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import RandomSource, Source
from specdraft.trees.shapes import Shape, registry
from specdraft.trees.step import Step

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Generation:
    """A decoded prompt.

    Attributes:
        text, token_ids: the continuation, without the prompt.
        steps: every verification step, with its tree.
        tally: counts and seconds.
    """

    text: str
    token_ids: list[int]
    steps: list[Step]
    tally: Tally

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted per drafted token; None without a step."""
        return self._ratio(self.tally.accepted_tokens, self.tally.drafted_tokens)

    @property
    def acceptance_length(self) -> float | None:
        """Accepted draft tokens per step; None without a step."""
        return self._ratio(self.tally.accepted_tokens, self.tally.steps)

    @property
    def block_efficiency(self) -> float | None:
        """Tokens per step, bonus included; None without a step."""
        return self._ratio(self.tally.accepted_tokens + self.tally.bonus_tokens, self.tally.steps)

    @property
    def tokens_per_s(self) -> float:
        """New tokens per second, prefill included."""
        return self.tally.new_tokens / self.tally.wall_s

    def as_data(self) -> dict[str, Any]:
        """Text, counts, ratios, and of live decoding the seconds: what `--json` writes."""
        counts = self.tally
        data: dict[str, Any] = {
            "text": self.text,
            "token_ids": self.token_ids,
            "steps": counts.steps,
            "new_tokens": counts.new_tokens,
        }
        data |= {name: getattr(self, name) for name in ("acceptance_rate", "acceptance_length", "block_efficiency")}
        return data | self.seconds

    @property
    def seconds(self) -> dict[str, float]:
        """Where the time went; empty of a replayed prompt."""
        if isnan(self.tally.wall_s):
            return {}
        return {name: getattr(self.tally, name) for name in ("draft_s", "verify_s", "other_s", "wall_s")}

    @staticmethod
    def _ratio(above: float, below: float) -> float | None:
        return above / below if below else None


class SpeculativeDecoder:
    """Decodes prompts with one pair and one draft tree.

    Args:
        pair: from `load_pair`.
        tree: a shape, or the name of one (`chain`, `kary`, ...) with its default parameters.
        budget: draft nodes per step; shapes with a size of their own ignore it.
        max_new_tokens: the most tokens of a continuation.
        acceptance: the acceptance rule; under sampling one that fits it (`specdraft.acceptance`), as `Recursive()`.
        sampling: how tokens are chosen.
        seed: of what is drawn at random. The same seed, prompt and settings give the same text and trees.
        keep_probs: also keep the drafter's probability of every drafted token, to show it.
        max_prompt_tokens: longer prompts are cut to this on the left.

    Raises:
        ConfigError: there is no such tree, the budget does not fit it, a number is out of range, or tree, rule and
            sampling do not go together.
    """

    def __init__(
        self,
        pair: Pair,
        tree: Shape | str = "chain",
        budget: int = 8,
        max_new_tokens: int = 64,
        acceptance: AcceptanceRule | None = None,
        sampling: Sampling | None = None,
        keep_probs: bool = False,
        max_prompt_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(tree, str):
            if tree not in (known := registry()):
                raise ConfigError(f"tree={tree!r}: there is no such tree{did_you_mean(tree, known)}")
            tree = known[tree]()
        self.pair, self.shape, self.plan, self.max_new_tokens = pair, tree, tree.at(budget), max_new_tokens
        self.rule, self.sampling = acceptance or Greedy(), sampling or Sampling()
        refuse_misfit(tree, self.plan, self.rule, self.sampling, pair.files.vocab)
        self._settings = Settings(max_new_tokens=max_new_tokens, max_prompt_tokens=max_prompt_tokens, seed=seed)
        self._settings.check()
        self._keep_probs = keep_probs

    def source(self, prompt_ids: list[int]) -> RandomSource:
        """The randomness of one decoded prompt."""
        decides = (self.shape.label, self.plan.nodes, self.rule)
        return RandomSource(
            text_generator(self.pair, self.sampling, prompt_ids, f"{self._settings.seed}/0", *map(str, decides))
        )

    def stream(
        self, prompt_ids: list[int], verifier: Verifier | None = None, source: Source | None = None
    ) -> Iterator[int | Step]:
        """The first token, then one `Step` per verification step, as they happen.

        Args:
            prompt_ids: the prompt.
            verifier, source: in place of the decoder's own (by somebody who wants to look on).
        """
        drafter = DraftModel(self.pair.draft, keep_probs=self._keep_probs)
        ending = Ending(self.max_new_tokens, self.pair.eos_ids)
        verifier, source = verifier or Verifier(self.pair.target), source or self.source(prompt_ids)
        return decode(verifier, drafter, self.plan, self.rule, self.sampling, prompt_ids, ending, source)

    def generate(self, prompt: str, chat_template: str = "auto") -> Generation:
        """Decode one prompt.

        Raises:
            PromptError: the prompt has no tokens, or one that the models do not share, or does not fit the context.
        """
        return self.generate_ids(encode_to_fit(self.pair.files, prompt, chat_template, self._settings, self.plan.depth))

    def generate_ids(self, prompt_ids: list[int]) -> Generation:
        """Decode a prompt that is token ids already. Raises `ModelError` where memory runs out."""
        started = time.perf_counter()
        try:
            first, *rest = list(self.stream(prompt_ids))
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(OUT_OF_MEMORY) from error
        wall_s = time.perf_counter() - started
        assert isinstance(first, int)
        return self.finished(first, [step for step in rest if isinstance(step, Step)], wall_s)

    def finished(self, first: int, steps: list[Step], wall_s: float) -> Generation:
        """What `stream` gave, and the seconds that it took, as one result."""
        token_ids = [first, *(token for step in steps for token in step.tokens)]
        return Generation(
            self.pair.decode(token_ids), token_ids, steps, tally(first, steps, wall_s, 0.0, self.plan.dynamic)
        )
