"""Decode single prompts live: the Python API, and what `specdraft generate` shows.

A fitted shape (`sequoia`, `measured`) is fitted on a set of prompts, from traces that are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from html import escape
from math import isnan, nan
from typing import Any

import torch

from specdraft.acceptance import AcceptanceRule, Greedy
from specdraft.bench.kept import pair_costs
from specdraft.config import Settings
from specdraft.decoding.decode import Decoding, decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.fitting import Together
from specdraft.decoding.lengths import Sizing
from specdraft.decoding.pruning import Pruning
from specdraft.decoding.seat import Caches, Seat
from specdraft.decoding.text_seeds import text_generator
from specdraft.drafters import DrafterSpec
from specdraft.drafters import registry as drafters
from specdraft.drafters.aligned import Aligned
from specdraft.drafters.draft_model import Model
from specdraft.drafters.pair import Pair, load_pair, pair_of_models
from specdraft.errors import OUT_OF_MEMORY, ConfigError, ModelError, PromptError, did_you_mean, plain_text
from specdraft.models.caches import resolved
from specdraft.prediction.length import LengthPolicy
from specdraft.prediction.length import registry as length_policies
from specdraft.prediction.pruning import PruningPolicy
from specdraft.prediction.pruning import registry as policies
from specdraft.prediction.tree_scores import scores_of
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.replay.fit import fit_on_all
from specdraft.results.metrics import Tally, lost_to_pruning, tally
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.draft import Drawn
from specdraft.sampling.randomness import RandomSource
from specdraft.study.engines.pruning import predictor_for
from specdraft.study.recorded import RecordedTexts, record_texts
from specdraft.study.sizing import sizing
from specdraft.traces.store import TraceStore, default_folder
from specdraft.trees.shapes import Plan, Shape, registry
from specdraft.trees.step import Step

Prompt = str | Sequence[int] | torch.Tensor


@dataclass(frozen=True)
class Generation:
    """A decoded prompt.

    Attributes:
        text, token_ids: the continuation, without the prompt.
        steps: every verification step, with its tree.
        tally: counts and seconds.
        lost_tokens: accepted tokens that pruning lost, each step's from where it started; None where that is not known
            (the text depends on the tree, as a rule is lossy).
        timed_out: the text ended because its time was over (`max_time_s`).
    """

    text: str
    token_ids: list[int]
    steps: list[Step]
    tally: Tally
    lost_tokens: int | None = None
    timed_out: bool = False

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
    def pruned_tokens(self) -> int:
        """Drafted nodes that were not sent to the target."""
        return int(self.tally.pruned_tokens)

    @property
    def pruned_share(self) -> float | None:
        """Share of the drafted nodes; None where none was drafted."""
        return self._ratio(self.tally.pruned_tokens, self.tally.proposed_tokens)

    @property
    def regret_tokens(self) -> float | None:
        """Accepted tokens that pruning lost per step; None where that is not known, or without a step."""
        return None if self.lost_tokens is None else self._ratio(self.lost_tokens, self.tally.steps)

    @property
    def tokens_per_s(self) -> float:
        """New tokens per second, prefill included."""
        return self.tally.new_tokens / self.tally.wall_s

    @property
    def speedup(self) -> float | None:
        """Seconds of plain decoding over seconds of this one; None unless both were measured (`compare=True`)."""
        return None if isnan(self.tally.plain_s) else self.tally.plain_s / self.tally.wall_s

    def as_data(self) -> dict[str, Any]:
        """Text, counts, ratios, and of live decoding the seconds: what `--json` writes."""
        counts = self.tally
        data: dict[str, Any] = {
            "text": self.text,
            "token_ids": self.token_ids,
            "steps": counts.steps,
            "new_tokens": counts.new_tokens,
            "pruned_tokens": self.pruned_tokens,
            "overhead_tokens": counts.overhead_tokens,
            "timed_out": self.timed_out,
        }
        ratios = ("acceptance_rate", "acceptance_length", "block_efficiency", "pruned_share", "regret_tokens")
        data |= {name: getattr(self, name) for name in ratios}
        return data | self.seconds | ({} if self.speedup is None else {"speedup": self.speedup})

    @property
    def seconds(self) -> dict[str, float]:
        """Where the time went; empty of a replayed prompt.

        `predict_s` is scoring and pruning; what ranks the nodes of best-first trees is part of `draft_s`.
        """
        if isnan(self.tally.wall_s):
            return {}
        parts = ("prefill_s", "draft_s", "predict_s", "verify_s", "other_s", "wall_s")
        return {name: getattr(self.tally, name) for name in parts}

    def _repr_html_(self) -> str:
        """The text, what was counted, and the step with the most accepted tokens."""
        block = "-" if self.block_efficiency is None else f"{self.block_efficiency:.2f}"
        counts = f"{self.tally.new_tokens} tokens in {self.tally.steps} steps: {block} tokens per step"
        said = f"<pre style='white-space:pre-wrap'>{escape(plain_text(self.text))}</pre><p>{counts}</p>"
        if not self.steps:
            return said
        best = max(range(len(self.steps)), key=lambda step: self.steps[step].accepted_tokens)
        return f"{said}<p>step {best + 1}:</p><div style='overflow-x:auto'>{self.steps[best]._repr_html_()}</div>"

    @staticmethod
    def _ratio(above: float, below: float) -> float | None:
        return above / below if below else None


class SpeculativeDecoder:
    """Decodes prompts with one pair and one draft tree.

    Args:
        pair: from `load_pair`; it says what drafts.
        tree: a shape, or the name of one (`chain`, `kary`, ...) with its default parameters.
        budget: draft nodes per step; shapes with a size of their own ignore it.
        pruning: which drafted nodes are sent to the target: a policy, or the name of one with its default parameters.
        length: how long the chain of each step is, with `tree="chain"`: likewise.
        scores: what a tree or a policy that is named goes by: `raw`, `calibrated` or `predictor`.
        predictor: a file, for `scores="predictor"`.
        alignment: a file of `specdraft fit alignment`: the pair drafts through it, as with `drafter=aligned`.
        max_new_tokens: the most tokens of a continuation.
        acceptance: the acceptance rule; under sampling one that fits it (`specdraft.acceptance`), as `Recursive()`.
        sampling: how tokens are chosen.
        draft_temperature: of the drafter, where it is not the target's: a number, or a list with one for each depth.
        seed: of what is drawn at random. The same seed, prompt and settings give the same text and trees.
        watched: also keep in every step what is needed to show it (see `decode`).
        max_prompt_tokens: longer prompts are cut to this on the left.
        fitted_on: the prompts that a fitted shape, or calibrated scores, are fitted on; all bundled ones if not given.
        max_time_s: no step is begun later than so many seconds after the prompt: the text ends there.
        cache: what keys and values are kept in: `auto`, `dynamic`, `static` or `graph`.
        parameters: of a tree that is named, as `margin=2.0` of `adaptive`.

    Raises:
        ConfigError: there is no such tree, parameter or policy, the budget does not fit it, a number is out of range,
            or tree, rule, sampling, pruning and drafter do not go together.
    """

    def __init__(
        self,
        pair: Pair,
        tree: Shape | str = "chain",
        budget: int = Settings.budget,
        max_new_tokens: int = Settings.max_new_tokens,
        acceptance: AcceptanceRule | None = None,
        sampling: Sampling | None = None,
        watched: bool = False,
        max_prompt_tokens: int | None = None,
        seed: int = 0,
        fitted_on: PromptSpec | None = None,
        pruning: PruningPolicy | str = "none",
        length: LengthPolicy | str = "constant",
        scores: str | None = None,
        predictor: str | None = None,
        alignment: str | None = None,
        max_time_s: float | None = None,
        cache: str = Settings.cache,
        draft_temperature: float | Sequence[float] | None = None,
        **parameters: Any,
    ) -> None:
        pair = pair if alignment is None else _aligned(pair, alignment)
        by = {name: value for name, value in (("scores", scores), ("predictor", predictor)) if value is not None}
        shape: Shape = _named(tree, registry(), "tree", by | parameters) if isinstance(tree, str) else tree
        policy: PruningPolicy = _named(pruning, policies(), "pruning", by) if isinstance(pruning, str) else pruning
        sized: LengthPolicy = _named(length, length_policies(), "length") if isinstance(length, str) else length
        _refuse_unused(by, tree, pruning, shape, policy)
        _refuse_unknown(parameters, tree, shape)
        policy = sizing(shape, policy)
        self.pair, self.shape, self.max_new_tokens = pair, shape, max_new_tokens
        self.rule, self.sampling = acceptance or Greedy(), sampling or Sampling()
        self.drawn = Drawn.of(draft_temperature, self.sampling)
        drafter = pair.files.drafter
        together = Together(
            shape,
            budget,
            self.rule,
            self.sampling,
            pair.files.shared_ids,
            "live",
            traits=drafter.traits,
            drafter=drafter.label,
            pruning=policy,
            length=sized,
            cache=cache,
            drawn=self.drawn,
            encodes=pair.files.target.encodes,
        )
        together.refuse()
        budget = together.most
        self._settings = Settings(
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            max_time_s=max_time_s,
            seed=seed,
            cache=cache,
        )
        self._settings.check()
        self._watched, self._caches = watched, Caches(pair)
        fitted = shape.fitted or shape.fits_scores or policy.fits_scores
        texts = self._texts(shape.limits(budget).depth, fitted_on or PromptSpec()) if fitted else None
        self.plan = _planned(shape, budget, texts)
        if self.plan.nested is not None and self.plan.nested.predictor:
            scorer = scores_of(self.plan.nested.predictor, pair.files, self.sampling)
            self.plan = self.plan.nested.scored_by(scorer)
        temperature = texts.temperature if texts and policy.fits_scores else 1.0
        store = TraceStore(default_folder())
        costs = pair_costs(pair, store, 1 + self.plan.nodes) if policy.needs_costs or sized.needs_costs else None
        if policy.fits_predictor:
            raise ConfigError(
                "pruning.scores=predictor needs pruning.predictor=FILE here; specdraft fit predictor makes one"
            )
        told_by = predictor_for(policy, pair.files, self.sampling)
        self.pruning = Pruning(policy, temperature, costs, self.plan.dynamic, told_by)
        self.sizing = Sizing(sized, costs)

    def _texts(self, depth: int, on: PromptSpec) -> RecordedTexts:
        """Of these prompts, for what is fitted; what is not recorded of them is recorded first."""
        return record_texts(self.pair, load_prompts(on), on.chat_template, self.sampling, self._settings, depth)

    @classmethod
    def from_models(
        cls,
        target_model: Any,
        draft_model: Any,
        tokenizer: Any,
        drafter: DrafterSpec | str = "model",
        **options: Any,
    ) -> SpeculativeDecoder:
        """A decoder of `transformers` models that are in memory already.

        Args:
            target_model, draft_model: causal language models; the draft model may be None for a drafter without one.
            tokenizer: of both.
            drafter: what drafts, or the name of it with its default parameters.
            options: as of `SpeculativeDecoder`: `tree`, `budget`, `sampling`, ...

        Raises:
            ConfigError: as `SpeculativeDecoder`; there is no such drafter.
            ModelError: a model cannot verify or draft trees.
        """
        named: DrafterSpec = _named(drafter, drafters(), "drafter") if isinstance(drafter, str) else drafter
        return cls(pair_of_models(target_model, draft_model, tokenizer, named), **options)

    def start(self, prompt_ids: list[int]) -> Decoding:
        """Read a prompt; its steps happen when they are asked for."""
        decides: list[Any] = [self.shape.label, self.plan.nodes, self.rule]
        decides += [self.pruning.policy] if self.pruning.prunes else []
        decides += [self.sizing.policy] if self.sizing.policy.sizes else []
        decides += [self.drawn.label] if self.drawn.temperatures else []
        draw = f"{self._settings.seed}/0"
        source = RandomSource(text_generator(self.pair, self.sampling, prompt_ids, draw, *map(str, decides)))
        ending, (verifier, drafter, times) = Ending(self.max_new_tokens, self.pair.eos_ids), self._seat
        assert drafter is not None
        setting = (self.plan, self.rule, self.sampling)
        given = (verifier, drafter, *setting, prompt_ids, ending, source)
        more = (self.pruning, self.sizing)
        limit_s = self._settings.max_time_s
        return decode(*given, *more, drawn=self.drawn, watched=self._watched, max_time_s=limit_s, times=times)

    @property
    def _seat(self) -> Seat:
        return self._caches.seat(resolved(self._settings.cache, self.pair.target.device.type))

    def generate(self, prompt: Prompt, chat_template: str = "auto", compare: bool = False) -> Generation:
        """Decode one prompt.

        Args:
            prompt: a text, or token ids: a list, or a tensor `[n]` or `[1, n]`.
            chat_template: `auto` uses the target's template for a text if it has one; `none` never does.
            compare: also decode it plainly, for `Generation.speedup`.

        Raises:
            PromptError: the prompt has no tokens, or one that the models do not share, or does not fit the context.
            ModelError: memory ran out.
        """
        prompt_ids = self._encode(prompt, chat_template)
        try:
            plain_s = self._plain_s(prompt_ids) if compare else nan
            now = self._seat.times.passed
            started = now()
            decoding = self.start(prompt_ids).finish()
            return self.finished(decoding, now() - started, plain_s)
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(OUT_OF_MEMORY) from error

    def finished(self, decoding: Decoding, wall_s: float, plain_s: float = nan) -> Generation:
        """A decoded prompt and the seconds that it took, as one result."""
        dynamic = self.plan.dynamic or self.pruning.prunes or self.sizing.policy.sizes
        counted = tally(decoding.first, decoding.steps, wall_s, plain_s, dynamic, decoding.prefill_s)
        known = self.rule.lossless and self.rule.draw == "rank"
        lost = lost_to_pruning(decoding.steps) if known else None
        text, timed_out = self.pair.decode(decoding.tokens), decoding.timed_out
        steps = [replace(step, word=self.pair.decode_token) for step in decoding.steps]
        return Generation(text, decoding.tokens, steps, counted, lost, timed_out)

    def _encode(self, prompt: Prompt, chat_template: str) -> list[int]:
        if isinstance(prompt, str):
            return self.pair.files.encode_to_fit(prompt, chat_template, self._settings, self.plan.depth).ids
        ids = torch.as_tensor(prompt)
        if ids.ndim not in (1, 2) or (ids.ndim == 2 and len(ids) != 1) or (ids.numel() and ids.is_floating_point()):
            raise PromptError(f"a prompt of shape {list(ids.shape)}: expected token ids, [n] or [1, n]; one at a time")
        return self.pair.files.fit(ids.reshape(-1).tolist(), self._settings, self.plan.depth)

    def _plain_s(self, prompt_ids: list[int]) -> float:
        ending = Ending(self.max_new_tokens, self.pair.eos_ids)
        source = RandomSource(text_generator(self.pair, self.sampling, prompt_ids, f"{self._settings.seed}/0"))
        verifier, _, times = self._seat
        started = times.passed()
        decode_plainly(verifier, self.sampling, prompt_ids, ending, source)
        return times.passed() - started


def _aligned(pair: Pair, alignment: str) -> Pair:
    """The pair with its draft model read through an alignment. Raises `ConfigError`."""
    if type(pair.files.drafter) is not Model:
        raise ConfigError(
            f"alignment={alignment} maps the states of a pair's draft model; this pair has drafter="
            f"{pair.files.drafter.label}: expected drafter=model"
        )
    return load_pair(pair.files.spec, Aligned(path=alignment), pair)


def _planned(shape: Shape, budget: int, texts: RecordedTexts | None) -> Plan:
    """A shape's plan, by these texts where it is fitted, or ranks nodes by what is."""
    if texts is not None and shape.fitted:
        return fit_on_all(shape, budget, texts.ranks)
    if texts is None or not shape.fits_scores:
        return shape.at(budget)
    nested = shape.at(budget).nested
    assert nested is not None, "only nested trees have scores"
    if nested.predictor is not None:
        raise ConfigError("tree.scores=predictor needs tree.predictor=FILE here; specdraft fit predictor makes one")
    return nested.at_temperature(texts.temperature)


def _named(name: str, known: dict[str, Any], group: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """A choice of a group with its default parameters, and those of `parameters` that it has."""
    if name not in known:
        raise ConfigError(f"{group}={name!r}: there is no such {group}{did_you_mean(name, known)}")
    has = {parameter.name for parameter in fields(known[name])}
    return known[name](**{key: value for key, value in (parameters or {}).items() if key in has})


def _refuse_unknown(parameters: Mapping[str, Any], tree: Shape | str, shape: Shape) -> None:
    """Raise `ConfigError` for a parameter that the named tree does not have."""
    known = sorted({field.name for field in fields(type(shape))} - {"kind"}) if isinstance(tree, str) else []  # type: ignore[arg-type]
    for key, value in parameters.items():
        if key not in known:
            raise ConfigError(f"{key}={value!r}: tree={shape.kind} has no such parameter{did_you_mean(key, known)}")


def _refuse_unused(
    by: Mapping[str, str], tree: Shape | str, pruning: PruningPolicy | str, shape: Shape, policy: PruningPolicy
) -> None:
    """Raise `ConfigError` for a parameter that neither the named tree nor the named policy has."""
    named = [value for given, value in ((tree, shape), (pruning, policy)) if isinstance(given, str)]
    for key, value in by.items():
        if not any(hasattr(one, key) for one in named):
            raise ConfigError(f"{key}={value!r} has no effect with this tree and pruning; leave it out")
