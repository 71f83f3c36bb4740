"""What `specdraft tune` writes for engines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePath

from specdraft.study.tuning.answer import DO_NOT, AtPoint, Tuned
from specdraft.study.tuning.engines import ENGINES, AtBatch, TargetEngine, length_of, llama_cpp

RATES, SYNTHETIC, ANSWER = "acceptance-rates.csv", "synthetic-acceptance.txt", "tune.json"


def written_before(folder: Path) -> set[str]:
    """The files for engines that an earlier tuning wrote into a folder: an answer that changed leaves none behind."""
    try:
        files = json.loads((folder / ANSWER).read_text(encoding="utf-8"))["files"]
        return {str(name) for name in files if PurePath(str(name)).name == name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def engine_files(engine: TargetEngine, tuned: Tuned) -> dict[str, str]:
    """Name -> text: the configuration, unless nothing should be drafted; by the size of the batch, where the engine can
    be told so; and synthetic acceptance."""
    files = dict([engine.file(tuned.best.told)]) if tuned.verdict != DO_NOT else {}
    files |= by_batch(engine, tuned.points)
    if tuned.best_choices is not None and tuned.best_choices[1].value > 1:
        name, text = engine.file(tuned.best_choices[0].told)
        files[_named(name, "choices")] = text
    return files | (_acceptance(tuned) if tuned.rates else {})


def by_batch(engine: TargetEngine, points: Iterable[AtPoint]) -> dict[str, str]:
    """A file for each context of which more than one batch is known."""
    by_context: dict[int, list[AtPoint]] = {}
    for at in points:
        by_context.setdefault(at.point.context, []).append(at)
    files = {}
    for context, some in by_context.items():
        some.sort(key=lambda at: at.point.batch)
        told = next((at.best.told for at in some if at.speedup.value > 1), some[0].best.told)
        sizes = [AtBatch(at.point.batch, at.best.nodes if at.speedup.value > 1 else 0) for at in some]
        paying = {at.best.pair for at in some if at.speedup.value > 1}
        if len(some) > 1 and len(paying) < 2 and (config := engine.by_batch(told, sizes)) is not None:
            name, text = engine.file(config)
            files[_named(name, f"by-batch-context-{context}")] = text
    return files


def _named(name: str, more: str) -> str:
    path = PurePath(name)
    return f"{path.stem}-{more}{path.suffix}"


def _acceptance(tuned: Tuned) -> dict[str, str]:
    """The measured acceptance, as a table and in each engine's spelling."""
    lines = ["depth,unconditional,low,high,conditional"]
    for depth, (rate, given) in enumerate(zip(tuned.rates, tuned.conditional, strict=True), start=1):
        lines.append(f"{depth},{rate.value:.6f},{rate.low:.6f},{rate.high:.6f},{given:.6f}")
    values = [rate.value for rate in tuned.rates] + [0.0] * (tuned.best.depth - len(tuned.rates))
    spelled = [f"# tokens per step: {length_of(values):.4f}, the bonus token included"]
    for name, one in ENGINES.items():
        text = [f"{key}={value}" for key, value in one.synthetic(values).items()]
        spelled += [f"{name}: " + " ".join(text)] if text else []
    spelled.append(f"llama.cpp: {llama_cpp(values)}")
    return {RATES: "\n".join(lines) + "\n", SYNTHETIC: "\n".join(spelled) + "\n"}
