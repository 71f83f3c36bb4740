"""What differs between two studies beside their numbers: versions, models, machine, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from specdraft.results.study_side import StudySide

MODEL = ("path", "revision", "weights", "dtype", "quantize", "attention", "device")
MACHINE = ("cpu", "cores", "gpus")
NOTHING, SETTING = "–", "setting "


class Differing(NamedTuple):
    """One thing that is not the same: what it is in either study."""

    what: str
    a: str
    b: str


def differing(a: StudySide, b: StudySide) -> list[Differing]:
    """All that the manifests and configurations tell apart, settings last; times are not looked at. Models are compared
    of pairs that both have."""
    of_a, of_b = _facts(a), _facts(b)
    both = [name for name in _models(a) if name in _models(b)]
    of_a, of_b = (facts | {name: _models(side)[name] for name in both} for facts, side in ((of_a, a), (of_b, b)))
    return [
        Differing(what, of_a.get(what, NOTHING), of_b.get(what, NOTHING))
        for what in sorted(dict.fromkeys([*of_a, *of_b]), key=lambda what: what.startswith(SETTING))
        if of_a.get(what, NOTHING) != of_b.get(what, NOTHING)
    ]


def _facts(side: StudySide) -> dict[str, str]:
    manifest = side.manifest
    study, hardware = _mapping(manifest.get("study")), _mapping(manifest.get("hardware"))
    facts = {"seed": study.get("seed"), "prompts": _prompts(side), "python": manifest.get("python")}
    facts |= _mapping(manifest.get("libraries"))
    facts["source"] = _source(manifest.get("source"))
    facts |= {name: hardware.get(name) for name in MACHINE} | {"threads": manifest.get("threads")}
    facts |= {f"{SETTING}{key}": value for key, value in _leaves(side.config) if key != "name"}
    return {what: _said(value) for what, value in facts.items() if value not in (None, [], "")}


def _prompts(side: StudySide) -> str | None:
    digest = _mapping(side.manifest.get("study")).get("prompts")
    return f"{side.manifest.get('prompts', '?')} ({digest})" if digest else None


def _source(source: Any) -> str | None:
    commit = _mapping(source).get("commit")
    return f"{str(commit)[:12]}{' with changes' if source.get('dirty') else ''}" if commit else None


def _models(side: StudySide) -> dict[str, str]:
    """`PAIR target`, `PAIR draft` -> the model."""
    pairs = {pair: _mapping(both) for pair, both in _mapping(side.manifest.get("models")).items()}
    return {
        f"{pair} {role}": " ".join(_said(model[name]) for name in MODEL if _mapping(model).get(name) is not None)
        for pair, both in pairs.items()
        for role, model in both.items()
    }


def _leaves(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a configuration with their values; a key of the grid is one value."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
