"""One point of a study: what is decoded with what."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from specdraft.acceptance import AcceptanceRule
from specdraft.config import Settings
from specdraft.config.settings import CostSpec
from specdraft.decoding.fitting import Together
from specdraft.drafters.pair import EncodedPrompt, PairFiles
from specdraft.errors import ConfigError, PromptError
from specdraft.models.caches import USUAL, resolved
from specdraft.models.placement import device_type, dtype_label
from specdraft.models.spec import ModelSpec
from specdraft.prediction.length import Constant, LengthPolicy
from specdraft.prediction.pruning import NoPruning, PruningPolicy
from specdraft.prompts import Prompt, PromptSpec
from specdraft.prompts.turns import after_answer
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.study.once import Once
from specdraft.trees.made import Trees
from specdraft.trees.shapes import Limits, Plan, Shape
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    from specdraft.losslessness.live_texts import Case
    from specdraft.prediction.tree_scores import PredictedScores


def short_name(digest: str) -> str:
    """The first 12 digits in a row that no reader of a CSV takes for a number, as it does `409887841234` and `12e4`."""
    parts = (digest[start : start + 12] for start in range(len(digest) - 11))
    return next(part for part in parts if not re.fullmatch(r"\d+e?\d+", part))


@dataclass(frozen=True)
class Combination:
    """One point of the study: what is decoded with what."""

    pair: PairFiles
    shape: Shape
    sampling: Sampling
    rule: AcceptanceRule
    settings: Settings
    prompts: PromptSpec
    overrides: tuple[str, ...]
    pruning: PruningPolicy = field(default_factory=NoPruning)
    length: LengthPolicy = field(default_factory=Constant)
    drawn: Drawn = AS_TARGET
    prompts_digest: str = ""  # of the study's prompts
    trees: Trees = field(default_factory=Trees, compare=False, repr=False)  # those of the study
    once: Once = field(default_factory=Once, compare=False, repr=False)  # the study's files

    @cached_property
    def identifier(self) -> str:
        """The `combination` column."""
        return str(self.keys["combination"])

    @cached_property
    def together(self) -> Together:
        """What is said of going together."""
        settings = self.settings
        return Together(
            self.shape,
            settings.budget,
            self.rule,
            self.sampling,
            self.pair.shared_ids,
            settings.engine,
            with_steps=settings.output.steps,
            traits=self.pair.drafter.traits,
            drafter=self.pair.drafter.label,
            trees=self.trees,
            pruning=self.pruning,
            scorer=self.scorer,
            length=self.length,
            drawn=self.drawn,
            cost_batch=settings.cost.batch,
            batch=settings.batch,
            cache=settings.cache,
            encodes=self.pair.target.encodes,
            served=self.pair.target.spec.served,
        )

    @cached_property
    def scorer(self) -> PredictedScores | None:
        """What ranks the nodes of its trees, if a predictor does. Raises `UserError` where its file does not do."""
        from specdraft.prediction.tree_scores import scores_of  # scipy, which most combinations do without

        if not (path := getattr(self.shape, "predictor", None)):
            return None
        told = ("tree", path, self.pair.weights, repr(self.sampling))
        return self.once.of(told, lambda: scores_of(path, self.pair, self.sampling))

    @property
    def engine(self) -> str:
        """`live` or `replay`."""
        return self.together.runs

    @property
    def cache(self) -> str:
        """What keys and values are kept in where it is decoded live; what that usually is where it is not."""
        return resolved(self.settings.cache, device_type(self.pair.target.spec)) if self.engine == "live" else USUAL

    @property
    def limits(self) -> Limits:
        """What is known of the tree before it is drafted or fitted."""
        return self.together.limits

    @property
    def topology(self) -> Topology | None:
        """The one tree of every step; None where trees differ, or where it is fitted to traces."""
        return self.together.topology

    @property
    def plan(self) -> Plan:
        """What is expanded in every step. Raises `ConfigError` for a fitted shape (see `replay.fit`)."""
        return self.together.plan or self.shape.at(self.settings.budget)

    @cached_property
    def keys(self) -> dict[str, Any]:
        """The key columns that do not depend on the prompt."""
        sampling, settings, limits = self.sampling, self.settings, self.limits
        keys: dict[str, Any] = {
            "pair": self.pair.spec.name,
            "target": model_label(self.pair.spec.target),
            "draft": model_label(self.pair.draft.spec) if self.pair.draft else "none",
            "drafter": self.pair.drafter.label,
            "dtype": dtype_label(self.pair.target),
            "tree": self.shape.label,
            "budget": limits.nodes if self.shape.sized else settings.budget,
            "nodes": limits.nodes,
            "depth": limits.depth,
            "pruning": self.pruning.label,
            "length": self.length.label,
            "batch": settings.batch,
            "cache": self.cache,
            "acceptance": self.rule.label,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "max_new_tokens": settings.max_new_tokens,
            "draft_temperature": self.drawn.label,
            "cost_context": settings.cost.context,
            "cost_batch": settings.cost.batch,
            "prompts": self.prompts.label,
            "seed": settings.seed,
            "engine": self.engine,
        }
        return {"combination": self.digest(keys)} | keys

    def digest(self, keys: dict[str, Any]) -> str:
        """12 hex digits of everything that decides this combination's numbers (no device index, no output option)."""
        if not self.pruning.prunes:
            keys = {name: value for name, value in keys.items() if name != "pruning"}  # as it was before there was any
        if self.length.usual:
            keys = {name: value for name, value in keys.items() if name != "length"}  # likewise
        usual = {("batch", Settings.batch), ("cache", USUAL), ("draft_temperature", AS_TARGET.label)}
        keys = {name: value for name, value in keys.items() if (name, value) not in usual}
        if self._cost_point == (CostSpec.context, CostSpec.batch):
            keys = {name: value for name, value in keys.items() if name not in ("cost_context", "cost_batch")}
        decides = keys | self.pair.decides
        decides |= {"cost_table": self._cost_table} if self.settings.cost.table else {}
        scored = {"predictor": self.scorer.name} if self.scorer else {}  # whatever its file is called
        decides |= {"tree": self.shape.identity() | scored, "rule": vars(self.rule)}
        decides |= {"pruning": self.pruning.identity()} if self.pruning.prunes else {}
        decides |= {} if self.length.usual else {"length": self.length.identity()}
        decides |= {"max_prompt_tokens": self.settings.max_prompt_tokens, "chat_template": self.prompts.chat_template}
        decides |= {"system": self.prompts.system} if self.prompts.system else {}
        decides |= {"max_time_s": limit} if (limit := self._limit_s) else {}
        return short_name(hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest())

    @property
    def _cost_point(self) -> tuple[int, int]:
        return self.settings.cost.context, self.settings.cost.batch

    @property
    def _cost_table(self) -> str:
        """A digest of the table of costs. Raises `ConfigError` where it cannot be read."""
        path = Path(self.settings.cost.table or "")
        try:
            return self.once.of(("cost_table", path), lambda: hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            raise ConfigError(f"cost.table={path}: cannot be read: {error.strerror or error}") from error

    @property
    def _limit_s(self) -> float | None:
        """Of each text, where it is decoded live."""
        return self.settings.max_time_s if self.engine == "live" else None

    @property
    def fits_scores(self) -> bool:
        """Whether its trees are grown or pruned by scores that are fitted to recorded texts."""
        return self.shape.fits_scores or self.pruning.fits_scores

    @property
    def fits_predictor(self) -> bool:
        """Whether these scores are a predictor's."""
        return self.shape.fits_predictor or self.pruning.fits_predictor

    @property
    def weights(self) -> tuple[str, ...]:
        """Digests of what this combination's rows are worth reusing for: the weights, and where the tree, or the scores
        that it is grown or pruned by, are fitted, or the drafter reads earlier texts, all prompts of the study."""
        fitted = self.shape.fitted or self.fits_scores or self.pair.drafter.traits.earlier
        return (*self.pair.weights, self.prompts_digest) if fitted else self.pair.weights

    @cached_property
    def run_key(self) -> tuple[Any, ...]:
        """Combinations of one pair with equal keys decode the same thing: equal trees run once.

        Children are drawn at random in the order in which a tree lists its nodes, so there the order matters. What goes
        side by side with a text does not, nor what its keys and values are kept in.
        """
        paths = self.topology.paths if self.topology is not None else [self._alone]
        tree = tuple(sorted(paths) if self.sampling.greedy else paths)
        settings = self.settings
        return (
            tree,
            repr(self.sampling),
            repr(self.rule),
            settings.max_new_tokens,
            settings.max_prompt_tokens,
            self.engine,
            *([repr(self.pruning)] if self.pruning.prunes else []),
            *([repr(self.length)] if self.length.sizes else []),
            *([self._limit_s] if self._limit_s else []),
            *([self.drawn.label] if self.drawn.temperatures else []),
        )

    @property
    def _alone(self) -> str:
        """The identifier that it would have alone, with the usual cache."""
        keys = {name: value for name, value in self.keys.items() if name != "combination"}
        return self.digest(keys | {"batch": Settings.batch, "cache": USUAL})

    def describe(self) -> str:
        """`pair tree budget`, for people."""
        return f"{self.pair.label} {self.keys['tree']} budget={self.keys['budget']}"


class SameTexts(NamedTuple):
    """Combinations that are replayed along the same texts, and the repeats that these texts stand for."""

    combinations: list[Combination]
    repeats: range


def by_texts(combinations: Iterable[Combination], repeats: int) -> Iterator[SameTexts]:
    """Each sampled text is a trajectory of its own; all greedy ones are equal."""
    alike: dict[tuple[str, int], list[Combination]] = {}
    for combination in combinations:
        alike.setdefault((repr(combination.sampling), combination.settings.max_new_tokens), []).append(combination)
    every = range(repeats)
    for some in alike.values():
        for stand_for in [every] if some[0].sampling.greedy else [range(r, r + 1) for r in every]:
            yield SameTexts(some, stand_for)


def case_of(combination: Combination) -> Case:
    """What to decode live to check a combination's rule."""
    from specdraft.losslessness.live_texts import Case

    shape, settings = combination.shape, combination.settings
    drawing = (combination.rule, combination.sampling, settings.max_new_tokens, combination.drawn)
    return Case.of(shape, settings.budget, *drawing)


def encode_prompts(
    files: PairFiles, prompts: Iterable[Prompt], combinations: Iterable[Combination]
) -> dict[str, list[int]]:
    """Token ids of every prompt, by prompt id.

    Raises:
        PromptError: a prompt has no tokens, or does not fit the context with what is decoded after it.
    """
    return {name: encoded.ids for name, encoded in encode_for(files, prompts, combinations).items()}


def encode_for(
    files: PairFiles, prompts: Iterable[Prompt], combinations: Iterable[Combination]
) -> dict[str, EncodedPrompt]:
    """Every prompt encoded for all of these combinations, by prompt id. Raises as `encode_prompts`."""
    deepest = max(combinations, key=lambda c: c.settings.max_new_tokens + c.limits.depth)
    return _encode_each(files, prompts, deepest.prompts.chat_template, deepest.settings, deepest.limits.depth)


def encode_all(
    files: PairFiles, prompts: Sequence[Prompt], template: str, settings: Settings, depth: int
) -> dict[str, list[int]]:
    """Token ids of every prompt, by prompt id, with room for `depth` draft levels. Raises as `encode_prompts`; and
    `ConfigError` for a turn that waits for the target's answers."""
    if any(prompt.earlier for prompt in prompts):
        raise ConfigError("prompts.turns=all is for specdraft sweep and certify; leave it out")
    encoded = _encode_each(files, prompts, template, settings, depth)
    return {name: prompt.ids for name, prompt in encoded.items()}


def _encode_each(
    files: PairFiles, prompts: Iterable[Prompt], template: str, settings: Settings, depth: int
) -> dict[str, EncodedPrompt]:
    encoded = {}
    for prompt in prompts:
        try:
            encoded[prompt.prompt_id] = _encode(files, prompt, template, settings, depth)
        except PromptError as error:
            raise PromptError(f"prompt {prompt.prompt_id!r}: {error}") from error
    return encoded


def _encode(files: PairFiles, prompt: Prompt, template: str, settings: Settings, depth: int) -> EncodedPrompt:
    """A prompt's token ids; of one that waits for answers, as many as it may have with them."""
    if not prompt.earlier:
        return files.encode_to_fit(prompt.text, template, settings, depth, prompt.before)
    templated = files.reader(template).templated
    whole = prompt._replace(text=prompt.earlier[0])
    for text in (*prompt.earlier[1:], prompt.text):
        whole = after_answer(whole, "", prompt._replace(text=text), templated)
    encoded = files.encode_to_fit(whole.text, template, settings, depth, whole.before)
    answers = encoded.ids[-1:] * (settings.max_new_tokens * len(prompt.earlier))
    return encoded._replace(ids=files.fit([*encoded.ids, *answers], settings, depth))


def model_label(spec: ModelSpec) -> str:
    """A hub id or bundled name as it is, a folder by its last part."""
    return Path(spec.path).name if spec.path.startswith(("/", ".", "~")) else spec.path


def largest_first(combinations: Iterable[Combination]) -> list[Combination]:
    """Shape by shape, large trees before the small ones, which share their work."""
    place: dict[int, int] = {}
    for combination in combinations:
        place.setdefault(id(combination.shape), len(place))
    return sorted(combinations, key=lambda c: (place[id(c.shape)], -c.limits.nodes))
