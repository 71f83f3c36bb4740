"""A pair's costs as a file, which other machines and studies can take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specdraft.bench.curve import CostCurve
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
    """The curves of a file. Raises `ConfigError` where it is none, or of another pair."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        curves = [CostCurve.of(curve) for curve in known["curves"]]
        if known["kind"] != KIND or not curves or not all(curve.device for curve in curves):
            raise ValueError(KIND)
    except OSError as error:
        raise ConfigError(f"cost.table={path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = "expected what specdraft bench costs --out FILE writes"
        raise ConfigError(f"cost.table={path}: is no table of costs; {expected}") from error
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
