"""Which methods `specdraft bench methods` sets side by side: from a file of `configs/bench` to checked pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from specdraft.bench.methods import Until
from specdraft.config import Point, Settings, override_keys, own_group
from specdraft.drafters.draft_model import Model
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.pair import PairFiles, find_pair
from specdraft.errors import ConfigError, ModelError, PromptError, check_name, did_you_mean
from specdraft.prompts import Prompt, PromptSpec, load_prompts
from specdraft.study.combination import encode_all
from specdraft.study.pair_names import named_points
from specdraft.study.points import one_point
from specdraft.study.refusals import STUDY_KEYS, refuse_bundled_path, refuse_engine, refuse_without_effect

COMMAND = "bench methods"
PLAIN = "autoregressive"
OF_METHODS = ("drafter", "tree", "budget", "pruning", "length", "acceptance")
OF_STUDIES = (*(key for key in STUDY_KEYS if key != "threads"), "experiment", "most_combinations")
NO_DRAFTER = Ngram()  # needs no weights: what loads with it is the target


@dataclass
class PeerSpec:
    """A way of `transformers`' own `generate`; left out: its defaults.

    Attributes:
        assisted: with the pair's draft model as `assistant_model`.
        num_assistant_tokens, assistant_confidence_threshold: of the assistant.
        prompt_lookup_num_tokens: of prompt lookup.
    """

    assisted: bool = False
    num_assistant_tokens: int | None = None
    assistant_confidence_threshold: float | None = None
    prompt_lookup_num_tokens: int | None = None

    def check(self, name: str) -> None:
        """Raise `ConfigError` for values out of range, and for those that mean nothing together."""
        for key in ("num_assistant_tokens", "prompt_lookup_num_tokens"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise ConfigError(f"bench.peers.{name}: {key}={value} is out of range; expected 1 or more")
        if self.assisted and self.prompt_lookup_num_tokens is not None:
            raise ConfigError(f"bench.peers.{name}: assisted does not go with prompt_lookup_num_tokens")
        if not self.assisted and (self.num_assistant_tokens, self.assistant_confidence_threshold) != (None, None):
            raise ConfigError(f"bench.peers.{name}: settings of an assistant have no effect without assisted: true")


@dataclass
class MethodsSpec(Until):
    """The keys `bench.*`, and what a file of `configs/bench` may say.

    Attributes:
        defaults: overrides of the benchmark, where the user does not say otherwise.
        methods: name -> its overrides: `drafter`, `tree`, `budget`, `pruning`, `length`, `acceptance` and other drafts
            of `pair`.
        peers: name -> a way of `transformers`.
        only: of both, these.
    """

    defaults: list[str] = field(default_factory=list)
    methods: dict[str, list[str]] = field(default_factory=dict)
    peers: dict[str, PeerSpec] = field(default_factory=dict)
    only: list[str] | None = None

    def check(self) -> None:
        """Raise `ConfigError` for values out of range, names that cannot be meant, and where nothing is left."""
        super().check()
        for name in (*self.methods, *self.peers):
            check_name("bench.methods", name)
        if twice := ({PLAIN} & {*self.methods, *self.peers}) or (self.methods.keys() & self.peers.keys()):
            raise ConfigError(f"bench.methods: two methods are called {min(twice)!r}; give one another name")
        for name, peer in self.peers.items():
            peer.check(name)
        for name in self.only or ():
            if name not in (known := [*self.methods, *self.peers]):
                raise ConfigError(f"bench.only: there is no method {name!r}{did_you_mean(name, known)}")
        if not (self.chosen or self.chosen_peers):
            key = "bench.methods" if self.only is None else "bench.only"
            raise ConfigError(f"{key} leaves no method to compare with {PLAIN}; expected one or more")

    @property
    def chosen(self) -> dict[str, list[str]]:
        """The methods that run."""
        return {name: said for name, said in self.methods.items() if self.only is None or name in self.only}

    @property
    def chosen_peers(self) -> dict[str, PeerSpec]:
        """The peers that run."""
        return {name: peer for name, peer in self.peers.items() if self.only is None or name in self.only}


@dataclass(frozen=True)
class PlannedMethod:
    """A method before it is loaded.

    Attributes:
        point: what its overrides say.
        files: its pair; None where it cannot run.
        reason: why it cannot.
    """

    name: str
    point: Point
    files: PairFiles | None
    reason: str = ""


@dataclass(frozen=True)
class MethodsPlan:
    """A checked benchmark.

    Attributes:
        target: the pair without a drafter of its own.
        assistant: the pair with its draft model, for peers that want one; None: there is none, and `no_assistant` says
            why.
        prompt_ids: prompt id -> token ids.
    """

    spec: MethodsSpec
    settings: Settings
    prompt_spec: PromptSpec
    prompts: list[Prompt]
    prompt_ids: Mapping[str, list[int]]
    target: PairFiles
    assistant: PairFiles | None
    no_assistant: str
    methods: list[PlannedMethod]

    @property
    def said(self) -> dict[str, list[str]]:
        """Method -> its overrides."""
        return {method.name: self.spec.methods[method.name] for method in self.methods}


def plan_methods(overrides: list[str], config_dir: Path | None = None) -> MethodsPlan:
    """Find every method's models and encode the prompts.

    Raises:
        ConfigError: the file of methods, or an override, cannot be meant.
        PromptError, ModelError: as `plan_study`, of the target; what a single method lacks is the reason in its row.
    """
    spec, rest = own_group("bench", "methods", overrides, MethodsSpec, config_dir)
    spec.check()
    _refuse(rest)
    common = [*_unsaid(spec.defaults, rest), *rest, "engine=live"]
    base = _point("no method", common, config_dir)
    methods = [_planned(name, said, common, base, config_dir) for name, said in spec.chosen.items()]
    prompt_spec: PromptSpec = base.groups["prompts"]
    refuse_bundled_path(rest, prompt_spec)
    prompts, target = load_prompts(prompt_spec), find_pair(base.groups["pair"], NO_DRAFTER)
    depth = max((_depth(method.point) for method in methods if method.files), default=0)
    ids = encode_all(target, prompts, prompt_spec.chat_template, base.settings, depth)
    methods = [_fitting(method, ids.values()) for method in methods]
    wanted = any(peer.assisted for peer in spec.chosen_peers.values())
    assistant = _found(base.groups["pair"], Model()) if wanted else (None, "")
    return MethodsPlan(spec, base.settings, prompt_spec, prompts, ids, target, *assistant, methods)


def _unsaid(defaults: list[str], overrides: list[str]) -> list[str]:
    """The defaults that stand: `prompts=instruct` beside `prompts.limit=8`, not beside another `prompts.path`."""
    said = set(override_keys(overrides))

    def stands(text: str) -> bool:
        (key,) = override_keys([text])
        return said.isdisjoint({key, f"{key}.path", f"{key}.kind"})

    return [text for text in defaults if stands(text)]


def _refuse(overrides: Iterable[str]) -> None:
    """Overrides that belong to a method, or to studies."""
    of_methods = "it belongs to a method: a file of the group bench says it (--config-dir, bench=NAME)"
    refuse_without_effect(COMMAND, overrides, OF_METHODS, of_methods)
    refuse_without_effect(COMMAND, overrides, ("sampling", "seed"), "texts are greedy, so that they can be compared")
    refuse_without_effect(COMMAND, overrides, OF_STUDIES, "it is for a study (specdraft sweep)")
    refuse_engine(COMMAND, overrides, "live")


def _point(name: str, overrides: list[str], config_dir: Path | None) -> Point:
    point = one_point(overrides, {"tree": "chain"}, config_dir, f"{name}: one value for each key")
    for group in ("drafter", "sampling", "acceptance", "pruning", "length", "prompts"):
        point.groups[group].check()
    point.groups["tree"].limits(point.settings.budget)
    return named_points([point])[0]


def _planned(name: str, said: list[str], common: list[str], base: Point, config_dir: Path | None) -> PlannedMethod:
    key = f"bench.methods.{name}"
    try:
        point = _point(key, [*common, *said], config_dir)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    if point.groups["pair"].target != base.groups["pair"].target:
        raise ConfigError(f"{key}: pair.target is another one; all methods have one target")
    if (point.groups["prompts"], point.settings) != (base.groups["prompts"], _with_budget(base, point)):
        raise ConfigError(f"{key}: expected {', '.join(OF_METHODS)} and pair only; other keys belong to all methods")
    if why := _misplaced(point):
        return PlannedMethod(name, point, None, why)
    return PlannedMethod(name, point, *_found(point.groups["pair"], point.groups["drafter"]))


def _with_budget(base: Point, point: Point) -> Settings:
    return replace(base.settings, budget=point.settings.budget)


def _misplaced(point: Point) -> str:
    """Why a method needs a study, if it does."""
    shape, pruning, drafter = (point.groups[group] for group in ("tree", "pruning", "drafter"))
    where = "specdraft sweep engine=live measures it"
    if shape.fitted or shape.fits_scores or pruning.fits_scores:
        what = f"tree={shape.kind}" if shape.fitted or shape.fits_scores else f"pruning={pruning.kind}"
        return (
            f"{what} is fitted to texts of other prompts; {where} (or write a fitted tree: tree=paths tree.file=FILE)"
        )
    return f"drafter={drafter.label} reads a study's earlier prompts; {where}" if drafter.traits.earlier else ""


def _found(pair: Any, drafter: Any) -> tuple[PairFiles | None, str]:
    """A pair's files, or why there are none."""
    try:
        files = find_pair(pair, drafter)
        files.check()
    except (ConfigError, ModelError) as error:
        return None, str(error)
    return files, ""


def _depth(point: Point) -> int:
    return int(point.groups["tree"].limits(point.settings.budget).depth)


def _fitting(method: PlannedMethod, prompts: Iterable[list[int]]) -> PlannedMethod:
    """The method, if the prompts fit its models' contexts."""
    if method.files is None:
        return method
    try:
        for ids in prompts:
            method.files.fit(ids, method.point.settings, _depth(method.point))
    except PromptError as error:
        return PlannedMethod(method.name, method.point, None, str(error))
    return method
