"""What was run, and on what: the manifest in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from specdraft.bench.curve import CostCurve, not_reliable
from specdraft.report.certificate import certificate_text
from specdraft.report.study_files import StudyFiles, visible
from specdraft.report.words import Name, Text, plural, say

EMPTY: tuple[Any, ...] = (None, "", [], {})


class Fact(NamedTuple):
    """A line: what it is about, and what the manifest says."""

    label: str
    text: Text


def run_facts(study: StudyFiles) -> list[Fact]:
    """The manifest in words; parts that are not there, or not as expected, are passed over."""
    about = study.about
    skipped, wall_s = about("skipped"), about("wall_s")
    facts = [
        _fact("study", study.name, *_identity(about("study"))),
        _fact("prompts", about("prompts")),
        *_models(about("models")),
        *_costs(about("costs")),
        *_calibrations(about("calibrations")),
        *(Fact(f"{visible(one.pair)}, {visible(one.what)}", say("{}", one.held)) for one in memory_facts(study)),
        _fact("hardware", *_hardware(about("hardware"))),
        _fact("threads", about("threads")),
        _fact("software", _marked("Python ", about("python")), *_libraries(about("libraries"))),
        _fact("source", *_source(about("source"))),
        _fact("time", f"{wall_s:,.0f} s" if isinstance(wall_s, int | float) else None, *_stages(about("stages_s"))),
        _fact("skipped", _skipped(len(skipped)) if isinstance(skipped, list) and skipped else None),
        _certificate(study),
        _fact("intervals", about("intervals")),
    ]
    return [fact for fact in facts if fact is not None]


def _fact(label: str, *values: Any) -> Fact | None:
    words = [visible(value) for value in values if value not in EMPTY]
    return Fact(label, say("{}", ", ".join(words))) if words else None


def _identity(identity: Any) -> Iterator[Any]:
    if isinstance(identity, dict):
        yield from (_marked("seed ", identity.get("seed")), _marked("prompts ", identity.get("prompts")))


def _stages(stages: Any) -> Iterator[str]:
    """Seconds of each stage over all pairs, the longest first; those of half a second or more."""
    total: dict[str, float] = {}
    for _, of_pair in _items(stages):
        for name, seconds in _items(of_pair):
            if isinstance(seconds, int | float):
                total[str(name)] = total.get(str(name), 0.0) + seconds
    for name, seconds in sorted(total.items(), key=lambda item: -item[1]):
        if seconds >= 0.5:
            yield f"{name} {seconds:,.0f} s"


def _models(models: Any) -> Iterator[Fact]:
    for pair, roles in _items(models):
        for role, model in _items(roles):
            if isinstance(model, dict):
                yield Fact(f"{visible(pair)}, {visible(role)}", _model(model))


def _model(model: dict[str, Any]) -> Text:
    size = model.get("parameters")
    return say(
        "{}{}{}{}{}",
        Name(visible(model.get("path", "?"))),
        f", {size:,} parameters" if isinstance(size, int) else "",
        *(f", {visible(model[key])}" if model.get(key) else "" for key in ("dtype", "device")),
        f", weights {visible(model['weights'])}" if model.get("weights") else "",
    )


def _costs(costs: Any) -> Iterator[Fact]:
    for pair, curve in _items(costs):
        if isinstance(curve, dict) and isinstance(measured := curve.get("measured"), dict):
            yield Fact(f"{visible(pair)}, costs measured", say("{}", ", ".join(_circumstances(curve, measured))))


def _calibrations(calibrations: Any) -> Iterator[Fact]:
    """The temperature that each pair's scores were fitted to: how much too unsure of itself a drafter is."""
    for pair, texts in _items(calibrations):
        for text, fitted in _items(texts):
            numbers = [fitted.get(name) for name in ("value", "loss", "plain_loss")] if isinstance(fitted, dict) else []
            if numbers and all(isinstance(number, int | float) for number in numbers):
                value, loss, plain_loss = numbers
                said = "{} on {}: {} nats a token instead of {} at temperature 1"
                what = say(said, f"{value:g}", visible(text), f"{loss:.3f}", f"{plain_loss:.3f}")
                yield Fact(f"{visible(pair)}, calibrated temperature", what)


class Beside(NamedTuple):
    """What a pair has in memory beside its models, and how much that is."""

    pair: str
    what: str
    held: str


def memory_facts(study: StudyFiles) -> Iterator[Beside]:
    """Alignments and predictors, as the manifest has them."""
    for pair, roles in _items(study.about("models")):
        said = roles.get("draft") if isinstance(roles, dict) else None
        alignment = said.get("alignment") if isinstance(said, dict) else None
        if isinstance(alignment, dict) and (held := _held(alignment.get("memory"))):
            yield Beside(str(pair), f"alignment {alignment.get('file', '')}".rstrip(), held)
    for pair, predictors in _items(study.about("predictors")):
        for name, about in _items(predictors):
            if isinstance(about, dict) and (held := _held(about.get("memory"))):
                yield Beside(str(pair), f"predictor {name}", held)


def _held(memory: Any) -> str | None:
    """In words; an alignment's file has it as JSON."""
    try:
        known = json.loads(memory) if isinstance(memory, str) else memory
        return f"{known['percent']:.2g} % of both models ({known['megabytes']:.3g} MB)"
    except (ValueError, TypeError, KeyError):
        return None


def _circumstances(curve: dict[str, Any], measured: dict[str, Any]) -> Iterator[str]:
    yield visible(measured.get("date", "?"))
    if isinstance(threads := curve.get("threads"), int):
        yield plural(threads, "thread")
    if isinstance(load := measured.get("load"), int | float):
        yield f"load {load:.1f}"
    if isinstance(used := measured.get("elsewhere"), int | float):
        yield f"other work used {used:.1f} of {plural(int(measured.get('cores') or 0), 'core')}"
    if isinstance(seconds := measured.get("seconds"), int | float):
        yield f"in {seconds:,.0f} s"
    if (spread := _spread(curve, measured)) is not None:
        yield f"quartiles of verification up to {spread:.0%} of the median apart"


def doubted_costs(study: StudyFiles) -> Iterator[str]:
    """A line for each pair whose costs cannot be trusted."""
    for pair, values in _items(study.about("costs")):
        try:
            doubts = CostCurve.of(values).doubts
        except (TypeError, AttributeError, LookupError):  # of another version, or not as expected
            continue
        if doubts:
            yield visible(not_reliable(str(pair), [str(doubts[0])]))


def _spread(curve: dict[str, Any], measured: dict[str, Any]) -> float | None:
    """How far the quartiles of verification are apart, at most, as a share of the median."""
    try:
        quartiles = zip(measured["quartiles"]["verify_s"], curve["verify_s"], strict=True)
        return max(float((high - low) / median) for (low, high), median in quartiles)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _hardware(hardware: Any) -> Iterator[Any]:
    if not isinstance(hardware, dict):
        return
    yield from (hardware.get("system"), hardware.get("cpu"))
    yield _marked("", hardware.get("cores"), " cores")
    yield _marked("", hardware.get("memory_gib"), " GiB")
    gpus = hardware.get("gpus")
    yield from gpus if isinstance(gpus, list) and gpus else ["no GPU"]


def _libraries(libraries: Any) -> Iterator[str]:
    return (f"{name} {version}" for name, version in _items(libraries))


def _source(source: Any) -> Iterator[Any]:
    if isinstance(source, dict):
        yield from (source.get("commit"), "changed since" if source.get("dirty") else "unchanged")


def _skipped(count: int) -> str:
    return plural(count, "combination") + " that do not fit together (manifest.json names each)"


def _marked(before: str, value: Any, after: str = "") -> str | None:
    return None if value is None else f"{before}{value}{after}"


def _certificate(study: StudyFiles) -> Fact | None:
    said = certificate_text(study.about("certificate"), study.summary)
    return Fact("certificate", said) if said else None


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else []
