"""Traces that no file holds, for as long as their store lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from specdraft.traces.store import StoredTrace, TraceStore


class TracesInMemory(TraceStore):
    """A store without a folder."""

    def __init__(self) -> None:
        super().__init__(Path())
        self._kept: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}

    def labelled(self, prompt_ids: Mapping[str, str] | None = None, **labels: str) -> TraceStore:
        """See `TraceStore.labelled`; nobody reads labels here."""
        return self

    def get(self, about: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        """See `TraceStore.get`."""
        kept = self._kept.get(self.key(about))
        return None if kept is None else dict(kept[1])

    def put(self, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
        """See `TraceStore.put`."""
        key = self.key(about)
        self._kept[key] = dict(about), dict(tensors)
        return key

    def list(self) -> Iterator[StoredTrace]:
        """Nothing is found by what it is about."""
        yield from ()

    def keep_only(self, kind: str) -> None:
        """Forget the traces of every other kind."""
        self._kept = {key: kept for key, kept in self._kept.items() if kept[0]["kind"] == kind}
