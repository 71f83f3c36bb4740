"""A study before it runs: which combinations there are, on which prompts, and whether they fit.

Everything that needs no forward pass is checked here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from specdraft.bench.points import no_room
from specdraft.config import (
    Point,
    Settings,
    compose_study,
)
from specdraft.drafters.on_demand import Memory
from specdraft.drafters.pair import PairFiles, find_pair
from specdraft.errors import ConfigError, NoWeightsError, PromptError
from specdraft.models.placement import check_loadable, dtype_label
from specdraft.prompts import Prompt, load_prompts, prompts_digest
from specdraft.results.files import absolute_paths, without_folders
from specdraft.results.tables import SCHEMA
from specdraft.study.combination import Combination, model_label
from specdraft.study.engines.costs import cost_point, note_on_table, table_costs
from specdraft.study.once import Once
from specdraft.study.pair_names import named_points
from specdraft.study.points import few_points, schemas
from specdraft.study.prompt_notes import PromptNote, notes_on_encoding, notes_on_template, notes_on_turns
from specdraft.study.refusals import (
    refuse_beside_workers,
    refuse_bundled_path,
    refuse_costs_off,
    refuse_costs_unused,
    refuse_draft_temperature,
    refuse_study_keys,
    refuse_time_unused,
)
from specdraft.study.remembered import check_once, encode_once
from specdraft.study.resources import check_resources, placed
from specdraft.study.servers import check_server, know_server, notes_on_servers, refuse_beside_server
from specdraft.study.sizing import sizing
from specdraft.study.turns import refuse_swept_answers
from specdraft.traces.memory import StoredMemory
from specdraft.traces.store import TraceStore, default_folder
from specdraft.trees import shapes
from specdraft.trees.made import Trees
from specdraft.trees.shapes import Shape
from specdraft.trees.shapes.chain import Chain


@dataclass(frozen=True)
class StudyPlan:
    """A checked study.

    Attributes:
        skipped: combinations that do not fit together, with the reason.
        notes: what else the user should know of the plan, a line each.
        config: the resolved configuration as YAML.
        prompt_notes: what to know of the prompts.
    """

    settings: Settings
    prompts: list[Prompt]
    combinations: list[Combination]
    skipped: list[tuple[str, str]]
    config: str
    notes: list[str] = field(default_factory=list)
    prompt_notes: list[PromptNote] = field(default_factory=list)

    @property
    def all_notes(self) -> list[str]:
        """All that the user should know before it runs, a line each."""
        return [*self.notes, *(note.text for note in self.prompt_notes)]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for results to belong to one study."""
        return {
            "name": self.settings.name,
            "seed": self.settings.seed,
            "prompts": prompts_digest(self.prompts),
            "schema": SCHEMA,
        }

    @cached_property
    def private_paths(self) -> list[str]:
        """Absolute paths of models and files, of which results keep the last parts only."""
        models = [files for pair in self.by_pair() for files in pair.models]
        paths = [path for files in models for path in (str(files.folder), files.spec.path)]
        return list(absolute_paths([OmegaConf.to_container(OmegaConf.create(self.config)), paths]))

    @property
    def shared_config(self) -> str:
        """The resolved configuration as results hold it."""
        config = OmegaConf.to_container(OmegaConf.create(self.config))
        return OmegaConf.to_yaml(OmegaConf.create(without_folders(config, self.private_paths)))

    def by_pair(self) -> dict[PairFiles, list[Combination]]:
        """The combinations of each pair, pairs with one target side by side."""
        first: dict[int, int] = {}
        for index, combination in enumerate(self.combinations):
            first.setdefault(id(combination.pair.target), index)
        return _grouped(sorted(self.combinations, key=lambda c: first[id(c.pair.target)]))


def plan_study(overrides: list[str], config_dir: Path | None = None, weights: bool = True) -> StudyPlan:
    """Compose a study and check all that can be checked without a forward pass.

    Args:
        overrides: in Hydra's grammar.
        config_dir: the user's configs.
        weights: False does without weights that are not here yet (a dry run does not download them).

    Raises:
        ConfigError, TreeError: the configuration.
        PromptError: the prompts, or one that does not fit a model's context.
        ModelError: a model that is not there, is not supported, or does not fit its pair.
    """
    study = compose_study(overrides, schemas(), config_dir)
    settings, prompt_spec = study.points[0].settings, study.points[0].groups["prompts"]
    for name in ("name", "seed", "repeats", "output", "max_prompt_tokens", "threads", "executor", "resources"):
        if any(getattr(point.settings, name) != getattr(settings, name) for point in study.points):
            raise ConfigError(f"{name} cannot be swept: it belongs to the whole study")
    for name in ("measure", "table"):
        if any(getattr(point.settings.cost, name) != getattr(settings.cost, name) for point in study.points):
            raise ConfigError(f"cost.{name} cannot be swept: it belongs to the whole study")
    if any(point.groups["prompts"] != prompt_spec for point in study.points):
        raise ConfigError(
            "prompts cannot be swept: a study has one set of prompts (a text with commas wants quotes of its own: "
            "'prompts.system=\"a, b\"')"
        )
    trees = Trees()
    for point in study.points:
        point.groups["sampling"].check()
        point.groups["acceptance"].check()
        point.groups["pruning"].check()
        point.groups["length"].check()
        trees.limits(point.groups["tree"], point.settings.budget)
    refuse_bundled_path(overrides, prompt_spec)
    study.resolved["prompts"]["kind"] = prompt_spec.kind  # a path may have made it another one
    prompts = load_prompts(prompt_spec)
    points = placed(named_points(study.points), settings.resources.target.gpus)
    memory = StoredMemory(TraceStore(default_folder()))
    pairs, without = _find_pairs(points, weights, memory)
    combinations, skipped = _combinations(points, pairs, without, prompts, trees)
    if not combinations:
        raise ConfigError(f"no combination is left to run; {skipped[0][0]}: {skipped[0][1]}")
    refuse_swept_answers(prompts, combinations)
    engines = {combination.engine for combination in combinations}
    refuse_costs_unused(settings, combinations)
    refuse_time_unused(settings, engines)
    _check_predictors(combinations)
    refuse_beside_server(settings, combinations)
    refuse_beside_workers(settings, combinations)
    check_resources(settings, pairs.values())
    refuse_costs_off(settings, [(name, getattr(c, name)) for c in combinations for name in ("pruning", "length")])
    shapes_beside = [Chain(), *(shape() for shape in shapes.registry().values() if shape.reference)]
    beside: list[Combination] = []
    too_deep: list[Combination] = []
    prompt_notes = notes_on_turns(prompts)
    for files, asked in _grouped(combinations).items():
        encoded = encode_once(files, prompts, asked, memory)
        if weights:
            check_server(files, prompts, encoded, asked, TraceStore(default_folder()))
        prompt_notes += notes_on_template(files, prompt_spec.chat_template, len(prompts))
        prompt_notes += notes_on_encoding(encoded, settings.max_prompt_tokens, files.label)
        longest = max((prompt.ids for prompt in encoded.values()), key=len, default=[])
        for reference in _references(asked, shapes_beside, prompts):
            (beside if _has_room(reference, longest) else too_deep).append(reference)
    notes = [
        *study.notes,
        *_adapting(combinations),
        *_persisting(combinations),
        *_left_out(too_deep),
        *_without_costs(settings),
        *notes_on_servers(combinations),
    ]
    notes += list(dict.fromkeys(map(note_on_table, combinations))) if settings.cost.table else []
    return StudyPlan(settings, prompts, [*combinations, *beside], skipped, study.yaml(), notes, prompt_notes)


def one_combination(command: str, overrides: list[str], config_dir: Path | None = None) -> Combination:
    """The one combination that overrides name; without them the bundled pair and a chain. Its prompt is not looked at.

    Raises:
        ConfigError: the overrides make several combinations, cannot be meant, or say something of a study.
        ModelError: see `find_pair`.
    """
    return _few_combinations(command, overrides, config_dir, f"{command} shows one combination", 1)[0]


def one_or_two_combinations(command: str, overrides: list[str], config_dir: Path | None = None) -> list[Combination]:
    """Likewise, one or two."""
    return _few_combinations(command, overrides, config_dir, f"{command} shows one combination, or two side by side", 2)


def _few_combinations(
    command: str, overrides: list[str], config_dir: Path | None, expectation: str, most: int
) -> list[Combination]:
    refuse_study_keys(command, overrides)
    refuse_draft_temperature(command, overrides)
    points = few_points(overrides, {"tree": "chain"}, config_dir, expectation, most)
    for point in points:
        refuse_bundled_path(overrides, point.groups["prompts"])
        point.groups["tree"].limits(point.settings.budget)
        for group in ("sampling", "acceptance", "pruning", "length", "prompts"):
            point.groups[group].check()
    return [
        combination_at(point, find_pair(point.groups["pair"], point.groups["drafter"]))
        for point in named_points(points)
    ]


def combination_at(
    point: Point, pair: PairFiles, digest: str = "", trees: Trees | None = None, once: Once | None = None
) -> Combination:
    """The combination of a point, of a pair whose files are here."""
    groups = point.groups
    return Combination(
        pair,
        groups["tree"],
        groups["sampling"].target,
        groups["acceptance"],
        point.settings,
        groups["prompts"],
        point.overrides,
        sizing(groups["tree"], groups["pruning"]),
        groups["length"],
        groups["sampling"].drawn,
        digest,
        trees or Trees(),
        once or Once(),
    )


def _find_pairs(
    points: Iterable[Point], weights: bool, memory: Memory
) -> tuple[dict[str, PairFiles], dict[str, NoWeightsError]]:
    """Each pair's files, checked, one `ModelFiles` for a model that several pairs share; and the pairs whose drafter's
    weights nobody names, if there are others.
    """
    pairs: dict[str, PairFiles] = {}
    without: dict[str, NoWeightsError] = {}
    names: dict[tuple[str, ...], str] = {}
    for point in points:
        spec, drafter = point.groups["pair"], point.groups["drafter"]
        key = repr((spec, drafter))
        if key in pairs or key in without:
            continue
        try:
            files = find_pair(spec, drafter, weights)
        except NoWeightsError as error:
            without[key] = error
            continue
        labels = [model_label(model.spec) for model in files.models]
        columns = (spec.name, drafter.label, *labels, dtype_label(files.target))
        if names.setdefault(columns, key) != key:
            raise ConfigError(
                f"two different pairs are called {spec.name!r} and look alike in the results; give one another "
                "pair.name"
            )
        same = next((p.target for p in pairs.values() if p.target.spec == spec.target), files.target)
        pairs[key] = replace(files, target=same)
        know_server(same, memory)
        check_once(pairs[key], memory)
        for model in pairs[key].models:
            check_loadable(model)
        if weights:
            pairs[key].check_memory()
    if not pairs:
        raise next(iter(without.values()))
    return pairs, without


def _combinations(
    points: Iterable[Point],
    pairs: dict[str, PairFiles],
    without: dict[str, NoWeightsError],
    prompts: list[Prompt],
    trees: Trees,
) -> tuple[list[Combination], list[tuple[str, str]]]:
    combinations: dict[str, Combination] = {}
    skipped, digest, once = [], prompts_digest(prompts), Once()
    _check_tree_names(points)
    for point in points:
        shape, key = point.groups["tree"], repr((point.groups["pair"], point.groups["drafter"]))
        if key in without:
            skipped.append((" ".join(point.overrides), str(without[key])))
            continue
        files = pairs[key]
        try:
            combination = combination_at(point, files, digest, trees, once)
        except ConfigError as error:
            skipped.append((" ".join(point.overrides), str(error)))
            continue
        if why := misfit(combination, prompts) or _no_costs(combination):
            skipped.append((" ".join(point.overrides), why))
        elif combination.identifier not in combinations:
            combinations[combination.identifier] = combination
        elif shape.sized:
            why = f"{shape.label} has a size of its own ({combination.limits.nodes} nodes) and runs once"
            skipped.append((" ".join(point.overrides), why))
    return list(combinations.values()), skipped


def _check_tree_names(points: Iterable[Point]) -> None:
    """Raise `ConfigError` where two trees have one name, or a tree has the name of a shape that it is not."""
    known: dict[str, Shape] = {}
    for shape in {id(point.groups["tree"]): point.groups["tree"] for point in points}.values():
        kind = shape.label.partition("-")[0]
        if getattr(shape, "name", None) == shape.label and kind in shapes.registry():
            raise ConfigError(f"tree.name={shape.label!r} reads as the shape {kind!r}; choose another name")
        if known.setdefault(shape.label, shape).identity() != shape.identity():
            raise ConfigError(f"two different trees are called {shape.label!r}; give one another tree.name")


def _no_costs(combination: Combination) -> str | None:
    """Why a combination's pair cannot be measured at its point, or None. Raises `ConfigError` for a table that does not
    have it."""
    settings, files = combination.settings, combination.pair
    if combination.engine != "replay" or settings.cost.measure == "off":
        return None
    if settings.cost.table is None and files.target.spec.served:
        return None
    if settings.cost.table is None:
        return no_room(files, cost_point(combination), 1 + combination.limits.nodes)
    table_costs(combination)
    return None


def misfit(combination: Combination, prompts: list[Prompt]) -> str | None:
    """Why a combination cannot run on these prompts, or None."""
    return replace(combination.together, prompts=len(prompts)).misfit


def _references(
    asked: Iterable[Combination], shapes_beside: Iterable[Shape], prompts: list[Prompt]
) -> list[Combination]:
    """What stands beside replayed combinations of whole trees unasked: these shapes at the same budgets."""
    there = {combination.identifier: combination for combination in asked}
    replayed = [c for c in there.values() if c.engine == "replay" and not c.shape.sized and _whole(c)]
    settings = {(id(c.settings), id(c.sampling), id(c.rule), id(c.prompts), c.drawn): c for c in reversed(replayed)}
    beside: dict[str, Combination] = {}
    for combination in reversed(settings.values()):
        rest = tuple(o for o in combination.overrides if not o.startswith("tree"))
        for shape in shapes_beside:
            reference = replace(combination, shape=shape, overrides=(f"tree={shape.kind}", *rest))
            if misfit(reference, prompts) is None and reference.identifier not in there:
                beside.setdefault(reference.identifier, reference)
    return list(beside.values())


def _whole(combination: Combination) -> bool:
    """Whether every step has the budget's tree."""
    return not combination.pruning.prunes and combination.length.usual


def _has_room(reference: Combination, longest: list[int]) -> bool:
    """Whether the longest prompt leaves room for a reference's draft levels."""
    if not longest:
        return True
    try:
        reference.pair.fit(longest, reference.settings, reference.limits.depth)
    except PromptError:
        return False
    return True


def _without_costs(settings: Settings) -> list[str]:
    if settings.cost.measure != "off":
        return []
    return ["cost.measure=off: times of replayed rows are not estimated, so their est_ columns are empty"]


def _check_predictors(combinations: Iterable[Combination]) -> None:
    """Read every predictor that trees are pruned by. Raises as `predictor_of`."""
    told = [combination for combination in combinations if getattr(combination.pruning, "predictor", None)]
    if told:
        from specdraft.study.engines.pruning import predictor_of

        for combination in told:
            predictor_of(combination)


def _adapting(combinations: Iterable[Combination]) -> list[str]:
    if not any(combination.pruning.adapts for combination in combinations):
        return []
    return [
        "pruning.online=true: one slope and an intercept for each depth are learnt from the steps of a prompt; they "
        "start anew, at 1 and 0, with every prompt"
    ]


def _persisting(combinations: Iterable[Combination]) -> list[str]:
    kinds = sorted({combination.length.kind for combination in combinations if combination.length.adapts})
    if not kinds:
        return []
    return [f"length={','.join(kinds)}: what is learnt from the steps of a prompt starts anew with every prompt"]


def _left_out(references: Iterable[Combination]) -> list[str]:
    """A line for each reference tree that has no room."""
    said = {(reference.keys["tree"], reference.settings.budget): reference for reference in references}
    return [
        f"the reference tree={tree} budget={budget} is left out: with its {reference.limits.depth} levels prompts do "
        f"not fit the context of {reference.pair.context_length}"
        for (tree, budget), reference in said.items()
    ]


def _grouped(combinations: Iterable[Combination]) -> dict[PairFiles, list[Combination]]:
    grouped: dict[PairFiles, list[Combination]] = {}
    for combination in combinations:
        grouped.setdefault(combination.pair, []).append(combination)
    return grouped
