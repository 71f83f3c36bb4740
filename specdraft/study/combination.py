"""One point of a study: what is decoded with what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from specdraft.acceptance import AcceptanceRule
from specdraft.config import Settings
from specdraft.decoding.fitting import fitting_rules, misfit
from specdraft.drafters.pair import PairFiles
from specdraft.errors import PromptError
from specdraft.models.loading import resolve_device, resolve_dtype
from specdraft.models.spec import ModelSpec
from specdraft.prompts import Prompt, PromptSpec
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes import Plan, Shape, StaticPlan

COLD = 0.1  # below this temperature rare tokens can have probability 0 even in float64


@dataclass(frozen=True)
class Combination:
    """One point of the study: what is decoded with what."""

    pair: PairFiles
    shape: Shape
    plan: Plan
    sampling: Sampling
    rule: AcceptanceRule
    settings: Settings
    prompts: PromptSpec
    overrides: tuple[str, ...]

    @property
    def engine(self) -> str:
        """`auto` replays where that is exact: the text of a lossless rule does not depend on the tree."""
        return "live" if self.settings.engine == "live" or self.live_only else "replay"

    @cached_property
    def live_only(self) -> str | None:
        """Why this combination cannot be replayed, or None."""
        rule, sampling = self.rule, self.sampling
        if rule.replay == "none":
            return f"acceptance={rule.kind} has no replay"
        if rule.replay == "rank":
            return None
        if self.settings.output.steps and not sampling.greedy:
            return f"output.steps=true lists whole steps; replayed acceptance={rule.kind} has expected values only"
        if rule.draw == "without_replacement" and isinstance(self.plan, StaticPlan):
            most = max(map(len, self.plan.topology.children))
            if most > 1 and (sampling.temperature < COLD or sampling.top_p < 1 or 0 < sampling.top_k < most):
                return (
                    f"with these sampling settings a node can have fewer than {most} children, which only "
                    "drafting tells"
                )
        return None

    def misfit(self) -> str | None:
        """Why shape, rule and sampling do not go together, or None."""
        if why := misfit(self.shape, self.plan, self.rule, self.sampling):
            return why
        if self.settings.engine == "replay" and self.live_only:
            return f"{self.live_only}; it needs engine=live or engine=auto"
        return None

    def fitting_rules(self) -> str:
        """What to say after a misfit."""
        return fitting_rules(lambda rule: replace(self, rule=rule).misfit())

    @cached_property
    def keys(self) -> dict[str, Any]:
        """The key columns that do not depend on the prompt."""
        sampling, settings = self.sampling, self.settings
        keys: dict[str, Any] = {
            "pair": self.pair.spec.name,
            "target": model_label(self.pair.spec.target),
            "draft": model_label(self.pair.draft.spec) if self.pair.draft else "none",
            "drafter": self.pair.drafter.label,
            "dtype": dtype_label(self.pair.target),
            "tree": self.shape.label,
            "budget": self.plan.nodes if self.shape.sized else settings.budget,
            "nodes": self.plan.nodes,
            "depth": self.plan.depth,
            "acceptance": self.rule.label,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "max_new_tokens": settings.max_new_tokens,
            "prompts": self.prompts.label,
            "seed": settings.seed,
            "engine": self.engine,
        }
        return {"combination": self.digest(keys)} | keys

    def digest(self, keys: dict[str, Any]) -> str:
        """12 hex digits of everything that decides this combination's numbers (no device index, no output option)."""
        models = [
            asdict(files.spec) | {"device": resolve_device(files.spec).type, "dtype": dtype_label(files)}
            for files in self.pair.models
        ]
        values = {"drafter": self.pair.drafter, "tree": self.shape, "rule": self.rule}
        decides = keys | {"models": models} | {name: vars(value) for name, value in values.items()}
        decides |= {"max_prompt_tokens": self.settings.max_prompt_tokens, "chat_template": self.prompts.chat_template}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def identifier(self) -> str:
        """The `combination` column."""
        return str(self.keys["combination"])

    @property
    def weights(self) -> tuple[str, str]:
        """Digests of the weights that this combination's rows are worth reusing for."""
        return self.pair.weights

    @cached_property
    def run_key(self) -> tuple[Any, ...]:
        """Combinations of one pair with equal keys decode the same thing: equal trees run once.

        Children are drawn at random in the order in which a tree lists its nodes, so there the order matters.
        """
        paths = self.plan.topology.paths if isinstance(self.plan, StaticPlan) else [self.identifier]
        tree = tuple(sorted(paths) if self.sampling.greedy else paths)
        settings = self.settings
        return (
            tree,
            repr(self.sampling),
            repr(self.rule),
            settings.max_new_tokens,
            settings.max_prompt_tokens,
            self.engine,
        )

    def describe(self) -> str:
        """`pair tree budget`, for people."""
        return f"{self.pair.label} {self.keys['tree']} budget={self.keys['budget']}"


def encode_prompts(
    files: PairFiles, prompts: Iterable[Prompt], combinations: Iterable[Combination]
) -> dict[str, list[int]]:
    """Token ids of every prompt, by prompt id.

    Raises:
        PromptError: a prompt has no tokens, or does not fit the context with what is decoded after it.
    """
    deepest = max(combinations, key=lambda c: c.settings.max_new_tokens + c.plan.depth)
    settings, template = deepest.settings, deepest.prompts.chat_template
    encoded = {}
    for prompt in prompts:
        try:
            encoded[prompt.prompt_id] = files.encode_to_fit(prompt.text, template, settings, deepest.plan.depth)
        except PromptError as error:
            raise PromptError(f"prompt {prompt.prompt_id!r}: {error}") from error
    return encoded


def model_label(spec: ModelSpec) -> str:
    """A hub id or bundled name as it is, a folder by its last part."""
    return Path(spec.path).name if spec.path.startswith(("/", ".", "~")) else spec.path


def dtype_label(files: Any) -> str:
    """The weights' type as the `dtype` column says it; `4bit` or `8bit` for quantised ones."""
    if files.spec.quantize != "none":
        return str(files.spec.quantize)
    return str(resolve_dtype(files, resolve_device(files.spec))).removeprefix("torch.")
