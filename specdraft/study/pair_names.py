"""What pairs that are given by path are called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from specdraft.config import Point, override_keys, override_text
from specdraft.models.spec import PairSpec


def named_points(points: Sequence[Point]) -> list[Point]:
    """The points, their pairs called by the models' folders where these were set by hand: `target+draft`.

    Where two different pairs would have one name, the later one's folders are named with more of their paths. A target
    that was set by hand, of no pair that was named, has no heads but those that were set too.
    """
    names: dict[str, PairSpec] = {}
    named = []
    for point in map(_with_own_heads, points):
        keys, spec = set(override_keys(point.overrides)), point.groups["pair"]
        by_hand = {"pair.target.path", "pair.draft.path"} & keys and "pair.name" not in keys
        named.append(_named(point, replace(spec, name=""), names) if by_hand else point)
    return named


def _with_own_heads(point: Point) -> Point:
    keys, spec = set(override_keys(point.overrides)), point.groups["pair"]
    if "pair.target.path" not in keys or "pair" in keys:
        return point
    own = {kind: path for kind, path in spec.heads.items() if f"pair.heads.{kind}" in keys}
    return replace(point, groups={**point.groups, "pair": replace(spec, heads=own)})


def _named(point: Point, spec: PairSpec, names: dict[str, PairSpec]) -> Point:
    """A point with the first name for its pair that no other pair has; `names` are given away."""
    name = next(name for name in _names(spec) if names.setdefault(name, spec) == spec)
    alone = next(_names(spec))  # what it is called where no other pair is
    said = () if name == alone else (f"pair.name={override_text(name)}",)
    groups = {**point.groups, "pair": replace(spec, name=name)}
    return replace(point, groups=groups, overrides=(*point.overrides, *said))


def _names(spec: PairSpec) -> Iterator[str]:
    """What a pair may be called: its models' last folders, then with the folders above them, then with a number."""
    models = [model.path for model in (spec.target, spec.draft) if model.path]
    whole = [str(Path(path).expanduser().resolve()) if path.startswith((".", "~")) else path for path in models]
    paths = [re.split(r"[/:]+", path.rstrip("/")) for path in whole]
    for parts in range(1, 1 + max(map(len, paths), default=1)):
        yield "+".join("/".join(filter(None, path[-parts:])) for path in paths)
    yield from (f"{'+'.join(path[-1] for path in paths)}-{number}" for number in count(2))
