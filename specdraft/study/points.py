"""What each config group may say, and the one point or tree that overrides name."""

from __future__ import annotations

from pathlib import Path

from specdraft import acceptance, drafters
from specdraft.config import Point, Schema, Settings, compose_study, override_groups, unless_said
from specdraft.errors import ConfigError
from specdraft.models.spec import PairSpec
from specdraft.prediction import length, pruning
from specdraft.prompts import PromptSpec
from specdraft.sampling.draft import PairSampling
from specdraft.study.refusals import refuse_without_effect
from specdraft.trees import shapes
from specdraft.trees.shapes import Shape


def schemas() -> dict[str, Schema]:
    """What each config group may say."""
    return {
        "pair": PairSpec,
        "drafter": drafters.registry(),
        "tree": shapes.registry(),
        "prompts": PromptSpec,
        "sampling": PairSampling,
        "acceptance": acceptance.registry(),
        "pruning": pruning.registry(),
        "length": length.registry(),
    }


def shape_of(overrides: list[str], config_dir: Path | None = None) -> tuple[Shape, int]:
    """The one shape and budget that overrides name. Raises `ConfigError`."""
    point = one_point(overrides, {}, config_dir, "one tree at a time")
    others = set(override_groups(overrides)) - {"tree", "budget", "experiment"}
    refuse_without_effect("trees show", overrides, others, "it draws one tree at one budget")
    shape: Shape = point.groups["tree"]
    return shape, point.settings.budget


def one_point(overrides: list[str], defaults: dict[str, str], config_dir: Path | None, expectation: str) -> Point:
    """The one point that overrides name; `expectation` says that there must be no more."""
    return few_points(overrides, defaults, config_dir, expectation, 1)[0]


def few_points(
    overrides: list[str], defaults: dict[str, str], config_dir: Path | None, expectation: str, most: int
) -> list[Point]:
    """The points that overrides name, at most so many; `expectation` says so."""
    mine = unless_said(overrides, {"pair": "zoo", **defaults, "budget": str(Settings.budget)})
    points = compose_study([*mine, *overrides], schemas(), config_dir).points
    if not 1 <= len(points) <= most:
        raise ConfigError(f"{expectation}; the overrides make {len(points)}")
    return points
