"""Many trees at once for a drafter, from Python: what a training loop can ask every so many steps.

The target continues the prompts once, at the first call. Each call reads these texts with the drafter as it is then,
and replays every tree: no server, no study folder, no trace on disk.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from specdraft.config import Point, Settings, load_group
from specdraft.config.settings import CostSpec
from specdraft.drafters.base import Drafter, Target
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.pair import Pair, PairFiles, find_pair
from specdraft.errors import ConfigError, PromptError
from specdraft.models.check_result import SelfCheck
from specdraft.models.files import ModelFiles, ModelInMemory
from specdraft.models.loading import load_checked, load_model
from specdraft.models.remembering import RememberingModel
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.prompts import Prompt, PromptSpec, load_prompts
from specdraft.results.parts import ReplayedRows, to_table
from specdraft.results.tables import build_tables
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.draft import PairSampling
from specdraft.study.combination import Combination
from specdraft.study.engines.base import Failed, Replayed, Work
from specdraft.study.engines.replay import ReplayEngine
from specdraft.study.plan import combination_at, misfit
from specdraft.study.refusals import refuse_costs_off
from specdraft.study.simulated import Drafts, Tree, drafts_of, files_of, points_of
from specdraft.traces.in_memory import TracesInMemory

Prompts = PromptSpec | str | Path | Sequence[str] | Sequence[Sequence[int]]
KEYS = ("drafter", "tree", "budget", "nodes", "depth", "pruning", "length", "acceptance")
BUNDLED = PromptSpec()
COUNTED = ("steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens")
RATIOS = ("acceptance_rate", "acceptance_length", "block_efficiency", "alpha")
COLUMNS = [*KEYS, *COUNTED, *(f"{ratio}{end}" for ratio in RATIOS for end in ("", "_lo", "_hi"))]


def simulate(
    pair: Any, drafter: Any, trees: Sequence[Tree], prompts: Prompts = BUNDLED, **options: Any
) -> pd.DataFrame:
    """Acceptance of many trees for one drafter: `Simulator(pair, prompts, **options).run(drafter, trees)`."""
    return Simulator(pair, prompts, **options).run(drafter, trees)


class Simulator:
    """A target with its texts, for drafters that are tried on them.

    Args:
        target: the name of a pair, a loaded pair, or a `transformers` model and its tokenizer, `(model, tokenizer)`.
        prompts: texts, lists of token ids, a `PromptSpec`, or a file of prompts.
        max_new_tokens: the most tokens of a continuation.
        sampling: how the target chooses tokens.
        acceptance: the rule, where a tree does not say its own.
        max_prompt_tokens: longer prompts are cut to this on the left.
        seed: of what is drawn at random.

    Raises:
        UserError: one of them cannot be used.
    """

    def __init__(
        self,
        target: Any,
        prompts: Prompts = BUNDLED,
        max_new_tokens: int = Settings.max_new_tokens,
        sampling: Sampling | None = None,
        acceptance: str = "greedy",
        max_prompt_tokens: int | None = None,
        seed: int = Settings.seed,
    ) -> None:
        self._acceptance, self._sampling = acceptance, _of_both(sampling or PairSampling())
        self._sampling.check()
        given = {"max_new_tokens": max_new_tokens, "max_prompt_tokens": max_prompt_tokens, "seed": seed}
        self._settings = Settings(engine="replay", cost=CostSpec(measure="off"), **given)  # type: ignore[arg-type]
        self._settings.check()
        self._spec, self._own, self._target_files, self._loaded = _target_of(target)
        with evaluating([self._target_files.in_memory]):
            if self._loaded is None:
                model, self._check = load_checked(self._target_files)
            else:
                model, self._check = self._loaded.target, self._loaded.target_check
        self._target = (
            model if model.encodes else RememberingModel(model)
        )  # no drafter reads an encoder-decoder's states
        self._store = TracesInMemory()
        self._checked: tuple[weakref.ref[Any], SelfCheck] | None = None  # the last draft model in memory
        self._points: dict[str, list[Point]] = {}
        self._prompt_spec, self._prompts, self._ids = self._read(prompts)

    def run(self, drafter: Any, trees: Sequence[Tree]) -> pd.DataFrame:
        """A row for each tree and budget: counts and ratios, with 95 % intervals over prompts, as in `summary.csv`.

        A model in memory is read as it is now, and is left as it was: training or not, with its gradients.

        Args:
            drafter: a draft model in memory; the folder of a checkpoint; a drafter by name, as `ngram variant=vllm`; or
                None: the pair's own.
            trees: each as `kary k=3 budget=8`, `{"tree": "kary", "k": 3, "budget": 8}` or `(shape, budget)`. A text may
                have several budgets, `chain budget=2,4,8`, and an `acceptance`, `pruning` or `length` of its own.

        Raises:
            UserError: a tree or the drafter cannot be used, or they do not go together.
        """
        with evaluating([self._target.model, drafter]):
            try:
                return self._run(self._pair(drafter), trees)
            finally:
                self._store.keep_only("trajectory")

    def _pair(self, drafter: Any) -> Pair:
        if drafter is None and self._own is None:
            raise ConfigError("drafter is None, and the target came without one; expected a model, a folder or a name")
        if drafter is None and self._loaded is not None:
            return replace(self._loaded, target=self._target)
        sampled = not self._sampling.greedy
        told = self._own if drafter is None else drafts_of(drafter, self._spec, self._target_files, sampled)
        assert told is not None
        files = files_of(self._spec, self._target_files, told)
        return Pair(files, self._target, self._drafter(told), self._check)

    def _drafter(self, told: Drafts) -> Drafter:
        """Loaded. A draft model in memory is checked when it is seen first: training changes nothing of what is
        checked, and of a 16-bit model the check takes a float32 copy."""
        held = None if told.weights is None else told.weights.in_memory
        if told.weights is not None and held is not None and self._checked and self._checked[0]() is held:
            model = load_model(told.weights, self._target_files.vocab())
            return ModelDrafter(model, told.weights, self._checked[1])
        loaded = told.spec.load(told.weights, Target(self._target_files, lambda: self._target))
        if held is not None and isinstance(loaded, ModelDrafter) and loaded.check is not None:
            self._checked = weakref.ref(held), loaded.check
        return loaded

    def _run(self, pair: Pair, trees: Sequence[Tree]) -> pd.DataFrame:
        combinations = self._combinations(pair.files, trees)
        room = max(combination.limits.depth for combination in combinations.values())
        for name, ids in self._ids.items():
            _fit(pair.files, name, ids, self._settings, room)
        names = frozenset(self._ids)
        due = {(identifier, 0): names for identifier in combinations}
        work = Work(pair.files, self._prompts, tuple(combinations.values()), due, self._settings.seed, 1, False)
        rows: list[ReplayedRows] = []
        for event in ReplayEngine(self._store).along(work, pair, self._ids):
            if isinstance(event, Failed):
                raise ConfigError(f"{combinations[event.combination].describe()}: {event.error}")
            rows += event.rows if isinstance(event, Replayed) else []
        keys = {name: combination.keys for name, combination in combinations.items()}
        summary: pd.DataFrame = build_tables((), keys, to_table(rows))["summary.csv"]
        return summary.set_index("combination").loc[[*combinations], COLUMNS].reset_index(drop=True)

    def _combinations(self, files: PairFiles, trees: Sequence[Tree]) -> dict[str, Combination]:
        """By identifier; a tree that is asked for twice is there once."""
        found: dict[str, Combination] = {}
        if isinstance(trees, str) or not trees:
            raise ConfigError(f"trees={trees!r}; expected a list of trees, as ['chain budget=4']")
        for tree in trees:
            for point in self._points_of(tree):
                groups = point.groups | {"sampling": self._sampling, "prompts": self._prompt_spec}
                combination = combination_at(replace(point, groups=groups), files)
                for group in ("acceptance", "pruning", "length"):
                    groups[group].check()
                if why := misfit(combination, list(self._prompts)):
                    raise ConfigError(f"{tree!r}: {why}")
                refuse_costs_off(combination.settings, [(g, getattr(combination, g)) for g in ("pruning", "length")])
                found[combination.identifier] = combination
        return found

    def _points_of(self, tree: Tree) -> list[Point]:
        """Composed once."""
        key = repr(tree)
        if key not in self._points:
            self._points[key] = points_of([tree], self._acceptance, self._settings)
        return self._points[key]

    def _read(self, prompts: Prompts) -> tuple[PromptSpec, tuple[Prompt, ...], dict[str, list[int]]]:
        """Prompts with their token ids."""
        files = PairFiles(self._spec, Ngram(), self._target_files, None)
        files.check()
        if isinstance(prompts, str | Path):
            prompts = PromptSpec(kind="jsonl", path=str(prompts))
        spec = prompts if isinstance(prompts, PromptSpec) else PromptSpec()
        listed = load_prompts(spec) if isinstance(prompts, PromptSpec) else list(_named(prompts))
        ids = {}
        for number, prompt in enumerate(listed):
            if prompt.earlier:
                raise ConfigError("prompts.turns=all is for specdraft sweep and certify; leave it out")
            try:
                if prompt.text:
                    told = (prompt.text, spec.chat_template, self._settings, 0, prompt.before)
                    ids[prompt.prompt_id] = files.encode_to_fit(*told).ids
                else:
                    ids[prompt.prompt_id] = files.fit([int(token) for token in prompts[number]], self._settings, 0)  # type: ignore[index]
            except PromptError as error:
                raise PromptError(f"prompt {prompt.prompt_id!r}: {error}") from error
        return spec, tuple(listed), ids


def _of_both(sampling: Sampling) -> PairSampling:
    """What the target's tokens are chosen with, as what both models' are."""
    known = sampling if isinstance(sampling, PairSampling) else None
    return known or PairSampling(sampling.temperature, sampling.top_k, sampling.top_p)


def _named(prompts: Sequence[Any]) -> Iterator[Prompt]:
    """Prompts that are given as texts or token ids, by their numbers; ids have no text. Raises `PromptError`."""
    if not prompts:
        raise PromptError("there are no prompts")
    for number, prompt in enumerate(prompts, start=1):
        ids = not isinstance(prompt, str) and hasattr(prompt, "__len__") and len(prompt) > 0
        if not ids and not (isinstance(prompt, str) and prompt):
            raise PromptError(f"prompt '{number}': {prompt!r:.60}; expected a text, or a list of token ids")
        yield Prompt(str(number), "all", "" if ids else prompt)


def _target_of(target: Any) -> tuple[PairSpec, Drafts | None, ModelFiles, Pair | None]:
    """How a pair is named, its own drafter, the target's files, and the pair where it is loaded."""
    if isinstance(target, Pair):
        files = target.files
        return files.spec, Drafts(files.drafter, files.draft), files.target, target
    if isinstance(target, tuple) and len(target) == 2:
        spec = PairSpec("in-memory", ModelSpec("target"), ModelSpec(""))
        return spec, None, ModelInMemory(spec.target, *target), None
    if not isinstance(target, str | PairSpec):
        kind = type(target).__name__
        raise ConfigError(f"target is {kind}; expected the name of a pair, a loaded pair, or (model, tokenizer)")
    named = load_group("pair", target, PairSpec) if isinstance(target, str) else target
    own = find_pair(named) if named.draft.path else None
    found = own or find_pair(named, Ngram())
    found.check_memory()
    return named, Drafts(own.drafter, own.draft) if own else None, found.target, None


def _fit(files: PairFiles, name: str, ids: Sequence[int], settings: Settings, depth: int) -> None:
    """Raise `PromptError` where a prompt with what follows it does not fit both contexts."""
    try:
        files.fit(list(ids), settings, depth)
    except PromptError as error:
        raise PromptError(f"prompt {name!r}: {error}") from error


@contextmanager
def evaluating(models: Iterable[Any]) -> Iterator[None]:
    """Models in memory as they are for reading; afterwards each module is training again, or not, as it was."""
    modules = [module for model in models if hasattr(model, "modules") for module in model.modules()]
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training
