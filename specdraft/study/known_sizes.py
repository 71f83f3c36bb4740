"""What a dry run says of a pair whose models are out of reach: memory, by the geometry that the pair's file gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from specdraft.config import Settings, compose_study
from specdraft.models.placement import device_type
from specdraft.models.sizes import FLOAT32_BYTES, QUANTISED_BYTES, gib
from specdraft.models.spec import KnownSize, ModelSpec, PairSpec
from specdraft.prompts import Prompt, load_prompts
from specdraft.study.estimates import AT_ONCE
from specdraft.study.forecast import CHARACTERS
from specdraft.study.points import schemas

ROLES = ("target", "draft")


def known_sizes(overrides: list[str], config_dir: Path | None = None) -> Iterator[str]:
    """A line for each pair of a study whose file gives its geometry. Raises as `compose_study` and `load_prompts`."""
    study = compose_study(overrides, schemas(), config_dir)
    pairs = {point.groups["pair"].name: point.groups["pair"] for point in study.points}
    known = [pair for pair in pairs.values() if all(role in pair.sizes for role in ROLES)]
    prompts = load_prompts(study.points[0].groups["prompts"]) if known else []
    for pair in known:
        yield _line(pair, study.points[0].settings, prompts)


def _line(pair: PairSpec, settings: Settings, prompts: list[Prompt]) -> str:
    target, draft = (pair.sizes[role] for role in ROLES)
    weights = [_weights(pair.target, target), _weights(pair.draft, draft)]
    longest = max(len(prompt.text) for prompt in prompts) // CHARACTERS + settings.max_new_tokens
    batch = AT_ONCE * (longest * _state(pair.target, target) + target.vocabulary * FLOAT32_BYTES)
    said = f"weights {' + '.join(map(gib, weights))}, {gib(batch)} for {AT_ONCE} prompts at once"
    return f"estimate: {pair.name}: {said}: {gib(sum(weights) + batch)} in all, by the geometry in the pair's file"


def _weights(spec: ModelSpec, size: KnownSize) -> float:
    return size.parameters * QUANTISED_BYTES.get(spec.quantize, _item(spec))


def _state(spec: ModelSpec, size: KnownSize) -> int:
    """Bytes of the keys and values of a token."""
    return 2 * size.layers * size.cached_heads * size.head_width * _item(spec)


def _item(spec: ModelSpec) -> int:
    """Bytes of a number, the checkpoint's own type being one of 16 bits."""
    if spec.dtype == "auto":
        return FLOAT32_BYTES if device_type(spec) == "cpu" else FLOAT32_BYTES // 2
    return FLOAT32_BYTES if spec.dtype == "float32" else FLOAT32_BYTES // 2
