"""A pair's costs as a file, which other machines and studies can take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from specdraft.bench.curve import CostCurve
from specdraft.bench.kept import LISTS, NUMBERS
from specdraft.bench.points import CostPoint
from specdraft.drafters.pair import PairFiles
from specdraft.errors import ConfigError
from specdraft.results.files import write_atomically

KIND = "specdraft costs"


def _models(files: PairFiles) -> dict[str, Any]:
    """Whose costs they are."""
    return {"drafter": files.drafter.as_dict(), "target_weights": files.weights[0], "draft_weights": files.weights[1]}


def write_costs(path: Path, files: PairFiles, curves: list[CostCurve]) -> None:
    """Write the file. Raises `ResultsError` where that is not possible."""
    about = {"kind": KIND, "pair": files.spec.name, **_models(files)}
    content = json.dumps(about | {"curves": [curve.as_dict() for curve in curves]}, indent=1) + "\n"
    write_atomically(path, content.encode())


def read_costs(path: Path, files: PairFiles) -> list[CostCurve]:
    """The curves of a file. Raises `ConfigError` where it is none, holds what no cost can be, or is of another pair."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        curves = [CostCurve.of(curve) for curve in known["curves"]]
        if known["kind"] != KIND or not curves or not all(curve.device for curve in curves):
            raise ValueError(KIND)
        wrong = next((what for curve in curves for what in _wrong(curve)), None)
    except OSError as error:
        raise ConfigError(f"cost.table={path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "expected what specdraft bench costs --out FILE writes"
        raise ConfigError(f"cost.table={path}: is no table of costs; {expected}") from error
    if wrong is not None:
        raise ConfigError(f"cost.table={path}: {wrong}")
    for name, value in _models(files).items():
        if name == "target_weights" and files.target.spec.served:
            continue  # they were measured where the weights are
        if known.get(name) != value:
            what = name.replace("_", " ")
            raise ConfigError(
                f"cost.table={path}: is of another {what.split()[0]} ({known.get('pair')}: {what} "
                f"{json.dumps(known.get(name))}); {files.label} has {json.dumps(value)}"
            )
    return curves


def _wrong(curve: CostCurve) -> Iterator[str]:
    """What is wrong with the numbers of a curve that was read."""
    for name in ("threads", *CostPoint._fields):
        if not (_is_number(value := getattr(curve, name)) and value >= 1 and value == int(value)):
            yield f"{name} is {json.dumps(value)}; expected a whole number, 1 or more"
    for name in NUMBERS:
        if not (_is_number(value := getattr(curve, name)) and value >= 0):
            yield f"{name} is {json.dumps(value)}; expected seconds, 0 or more"
    for name in LISTS:
        values = getattr(curve, name)
        if not (isinstance(values, list) and all(map(_is_number, values)) and min(values, default=0) >= 0):
            yield f"{name} is {json.dumps(values)}; expected a list of numbers, 0 or more"
            return
        if len(values) != len(curve.sizes):
            yield f"{name} has {len(values)} values; expected one for each of the {len(curve.sizes)} sizes"
    if len(curve.sizes) < 2 or not all(a < b for a, b in pairwise([0, *curve.sizes])):
        yield f"sizes is {json.dumps(curve.sizes)}; expected two numbers of tokens or more, ascending from 1 or more"
    for name, ends in (curve.measured.quartiles if curve.measured else {}).items():
        count = len(curve.sizes) if name in LISTS else 1
        if not (isinstance(ends, list) and len(ends) == count and all(map(_are_quartiles, ends))):
            yield f"quartiles of {name} are {json.dumps(ends)}; expected {count} times a lower and an upper one"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _are_quartiles(ends: Any) -> bool:
    return isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends)) and ends[0] <= ends[1]
