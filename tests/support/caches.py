"""Running a model of `transformers` with a cache, by whichever name it calls it."""

from __future__ import annotations

from typing import Any

from specdraft.models.gate import cache_name


def cached_in(model: Any, cache: Any) -> dict[str, Any]:
    """What its forward is given."""
    name = cache_name(type(model))
    assert name is not None
    return {name: cache, "use_cache": True}
