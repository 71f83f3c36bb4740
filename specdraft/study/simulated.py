"""What a simulation is told, as values: trees and drafters by name, by folder, or in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from specdraft.config import Point, Settings, compose_study, override_groups, unless_said
from specdraft.drafters import DrafterSpec
from specdraft.drafters import registry as drafters
from specdraft.drafters.draft_model import Model
from specdraft.drafters.pair import PairFiles
from specdraft.errors import ConfigError, did_you_mean
from specdraft.models.files import ModelFiles, ModelInMemory, find_model
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.study.points import schemas
from specdraft.trees.shapes import Shape

Tree = str | Mapping[str, Any] | tuple[Shape, int]
OF_TREES = ("tree", "budget", "acceptance", "pruning", "length")  # what may differ from tree to tree
MARKS = {  # a key of a checkpoint's config.json -> the drafter that reads it
    "medusa_num_heads": "medusa",
    "hydra_num_heads": "hydra",
    "eagle_aux_hidden_state_layer_ids": "eagle",
    "num_draft_layers": "redrafter",
}
ARCHITECTURES = {"eagle": "eagle", "dflash": "parallel", "windowmodel": "nano"}


class InTraining(ModelInMemory):
    """A model that changes between two looks at it: what depends on its weights is not kept, so they need no digest."""

    weights_hash = "in training"


def words_of(told: str | Mapping[str, Any], group: str) -> list[str]:
    """`chain budget=4`, or `{"tree": "kary", "k": 2, "budget": 8}`, as overrides: other keys are the choice's own."""
    if isinstance(told, str):
        first, *rest = told.split() or [""]
        pairs = [(group, first) if "=" not in first else _split(first), *map(_split, rest)]
    elif group in told:
        pairs = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in told.items()]
    else:
        raise ConfigError(f"{told!r} names no {group}; expected {{{group!r}: 'chain', ...}} or a text")
    known = (*OF_TREES, "drafter")
    return [f"{key if key.partition('.')[0] in known else f'{group}.{key}'}={value}" for key, value in pairs]


def _split(word: str) -> tuple[str, str]:
    key, found, value = word.partition("=")
    if not found:
        raise ConfigError(f"{word!r}: expected key=value")
    return key, value


def points_of(trees: Sequence[Tree], acceptance: str, settings: Settings) -> list[Point]:
    """The trees that are asked for; one with several budgets, `chain budget=2,4`, is several. Raises `ConfigError`."""
    return [point for tree in trees for point in _points_of(tree, acceptance, settings)]


def _points_of(tree: Tree, acceptance: str, settings: Settings) -> list[Point]:
    if isinstance(tree, tuple):
        shape, budget = tree
        (point,) = _points_of(f"chain budget={budget}", acceptance, settings)
        return [replace(point, groups=point.groups | {"tree": shape})]
    words = words_of(tree, "tree")
    if others := set(override_groups(words)) - set(OF_TREES):
        raise ConfigError(f"{tree!r}: {sorted(others)[0]} is not of a tree; expected {', '.join(OF_TREES)}")
    mine = unless_said(words, {"budget": str(settings.budget), "acceptance": acceptance})
    points = compose_study(["pair=zoo", *mine, *words], schemas()).points
    return [replace(point, settings=replace(settings, budget=point.settings.budget)) for point in points]


class Drafts(NamedTuple):
    """A drafter as a value, and its weights if it has any."""

    spec: DrafterSpec
    weights: ModelFiles | None


def drafts_of(told: Any, pair: PairSpec, target: ModelFiles, sampled: bool) -> Drafts:
    """What drafts for a target.

    Args:
        told: a model in memory, a folder, a kind with its parameters, or a drafter's spec.
        pair: names the target, a draft model and heads.
        target: its files.
        sampled: texts are; then what is drawn at random beside them depends on a digest of the weights.

    Raises:
        ConfigError: it is none of these.
        ModelError: its weights cannot be found.
    """
    if hasattr(told, "forward") and hasattr(told, "config"):
        held = ModelInMemory if sampled else InTraining
        return _completed(Model(), held(ModelSpec("draft"), told, target.tokenizer), pair, target)
    if isinstance(told, DrafterSpec):
        return _found(told, pair, target)
    if isinstance(told, Path) or (isinstance(told, str) and _is_folder(told)):
        return _of_folder(str(told), pair, target)
    if isinstance(told, str) and told.split():
        return _found(_by_name(told), pair, target)
    raise ConfigError(
        f"drafter is {type(told).__name__}; expected a model in memory, a folder, or the name of a drafter (`ngram`)"
    )


def _is_folder(told: str) -> bool:
    return told.startswith("zoo:") or Path(told).expanduser().is_dir()


def _by_name(told: str) -> DrafterSpec:
    """`ngram variant=vllm` as a drafter."""
    name = told.split(maxsplit=1)[0]
    if "=" not in name and name not in drafters():
        raise ConfigError(f"drafter={name!r}: neither a folder nor a drafter{did_you_mean(name, drafters())}")
    points = compose_study(["pair=zoo", "tree=chain", "budget=4", *words_of(told, "drafter")], schemas()).points
    if len(points) > 1:
        raise ConfigError(f"drafter={told!r} is several; expected one drafter at a time")
    drafter: DrafterSpec = points[0].groups["drafter"]
    return drafter


def _found(drafter: DrafterSpec, pair: PairSpec, target: ModelFiles) -> Drafts:
    drafter.check()
    weights = drafter.weights(pair)
    return _completed(drafter, None if weights is None else find_model(weights, "drafter"), pair, target)


def _completed(drafter: DrafterSpec, weights: ModelFiles | None, pair: PairSpec, target: ModelFiles) -> Drafts:
    return Drafts(drafter, weights and drafter.complete(weights, pair, target))


def _of_folder(folder: str, pair: PairSpec, target: ModelFiles) -> Drafts:
    """A checkpoint, by what its config.json says it is; a causal language model drafts as one."""
    spec = ModelSpec(folder, dtype=pair.target.dtype, device=pair.target.device)
    files = find_model(spec, "drafter")
    kind = kind_of(json.loads((files.folder / "config.json").read_text(encoding="utf-8")))
    if kind == Model.kind:
        return _completed(Model(), files, replace(pair, draft=spec), target)
    return _found(drafters()[kind](path=folder), pair, target)


def kind_of(config: Mapping[str, Any]) -> str:
    """Which drafter a checkpoint is for."""
    by_key = [kind for key, kind in MARKS.items() if key in config]
    names = " ".join(map(str, config.get("architectures") or ())).lower()
    return next(iter([*by_key, *(kind for part, kind in ARCHITECTURES.items() if part in names)]), Model.kind)


def files_of(pair: PairSpec, target: ModelFiles, drafts: Drafts) -> PairFiles:
    """Both, checked. Raises `ModelError`."""
    files = PairFiles(pair, drafts.spec, target, drafts.weights)
    files.check()
    return files
