"""Decode single prompts live: the Python API, and what `specdraft generate` shows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from specdraft.acceptance import AcceptanceRule, Greedy
from specdraft.config import Settings
from specdraft.decode import Ending, decode
from specdraft.drafters import DraftModel
from specdraft.draws import RandomSource, seeded
from specdraft.errors import OUT_OF_MEMORY, ConfigError, ModelError, did_you_mean
from specdraft.metrics import Tally, tally
from specdraft.models.pair import Pair
from specdraft.records import Step
from specdraft.sampling import Sampling
from specdraft.shapes import FittedPlan, Plan, Shape, registry
from specdraft.study import encode_to_fit, misfit
from specdraft.verifier import Verifier

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
        acceptance: the acceptance rule.
        sampling: how tokens are chosen.
        keep_probs: also keep the drafter's probability of every drafted token, to show it.
        max_prompt_tokens: longer prompts are cut to this on the left.
        seed: of sampled texts; with it, a prompt has one text.

    Raises:
        ConfigError: there is no such tree, the budget does not fit it, a number is out of range, or tree, rule and sampling do
            not go together.
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
        self.pair, self.plan, self.max_new_tokens = pair, tree.at(budget), max_new_tokens
        self._rule, self._sampling = acceptance or Greedy(), sampling or Sampling()
        check_together(tree, self.plan, self._rule, self._sampling)
        self._settings = Settings(max_new_tokens=max_new_tokens, max_prompt_tokens=max_prompt_tokens, seed=seed)
        self._settings.check()
        self._keep_probs = keep_probs

    def stream(self, prompt_ids: list[int]) -> Iterator[int | Step]:
        """The first token, then one `Step` per verification step, as they happen."""
        drafter = DraftModel(self.pair.draft, keep_probs=self._keep_probs)
        ending = Ending(self.max_new_tokens, self.pair.eos_ids)
        source = RandomSource(seeded("generate", self._settings.seed, self._sampling, prompt_ids))
        return decode(Verifier(self.pair.target), drafter, self.plan, self._rule, self._sampling, prompt_ids, ending, source)

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
        steps = [step for step in rest if isinstance(step, Step)]
        assert isinstance(first, int)
        token_ids = [first, *(token for step in steps for token in step.tokens)]
        return Generation(self.pair.decode(token_ids), token_ids, steps, tally(first, steps, wall_s, 0.0, self.plan.dynamic))


def check_together(shape: Shape, plan: Plan, rule: AcceptanceRule, sampling: Sampling) -> None:
    """Raise `ConfigError` for numbers out of range, and where tree, rule and sampling do not go together."""
    sampling.check()
    rule.check()
    if isinstance(plan, FittedPlan):
        plan.refuse()
    if why := misfit(shape, plan, rule, sampling):
        raise ConfigError(why)
