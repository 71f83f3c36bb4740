"""Traces of workers that do not see the folder of whoever they work for: what they need is handed over, and what they
record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from specdraft.traces.store import TraceFiles, TraceStore


class Found(NamedTuple):
    """What there is of a trace.

    Attributes:
        there: whether it is there.
        files: None where it is not, or is what was known of it.
    """

    there: bool
    files: TraceFiles | None = None


class Shelf(Protocol):
    """The traces of whoever one works for."""

    def look(self, key: str, known: str | None) -> Found:
        """What there is of a trace, of whose tensors one knows a digest."""

    def put(self, key: str, files: TraceFiles) -> None:
        """Hand a trace over. Raises `ResultsError` where it cannot be written."""

    def sees(self, name: str) -> bool:
        """Whether its folder has a file of this name."""


class StoreShelf:
    """A store as others reach it, who do not see its folder.

    Args:
        folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._store = TraceStore(folder)

    def look(self, key: str, known: str | None) -> Found:
        """See `Shelf.look`."""
        files = self._store.files(key)
        return Found(files is not None, None if files is None or files.digest == known else files)

    def put(self, key: str, files: TraceFiles) -> None:
        """See `Shelf.put`."""
        self._store.put_files(key, files)

    def sees(self, name: str) -> bool:
        """See `Shelf.sees`."""
        return (self._store.folder / name).exists()


class BorrowingStore(TraceStore):
    """A folder of one's own that has what is on a shelf: the shelf's trace stands where the two differ.

    Args:
        folder: one's own.
        shelf: the other one.
        labels, prompt_ids: see `TraceStore`.
        equal: traces that were compared with the shelf; `look_again` forgets them.
    """

    def __init__(
        self,
        folder: Path,
        shelf: Shelf,
        labels: Mapping[str, str] | None = None,
        prompt_ids: Mapping[str, str] | None = None,
        equal: set[str] | None = None,
    ) -> None:
        super().__init__(folder, labels, prompt_ids)
        self._shelf, self._equal = shelf, set[str]() if equal is None else equal

    def labelled(self, prompt_ids: Mapping[str, str] | None = None, **labels: str) -> TraceStore:
        """See `TraceStore.labelled`."""
        prompts = self._prompt_ids | dict(prompt_ids or {})
        return BorrowingStore(self.folder, self._shelf, self._labels | labels, prompts, self._equal)

    def look_again(self) -> None:
        """Others may have handed something over meanwhile."""
        self._equal.clear()

    def files(self, key: str) -> TraceFiles | None:
        """See `TraceStore.files`. Raises `ResultsError` where what is handed over cannot be written."""
        own = super().files(key)
        if key in self._equal and own is not None:
            return own
        found = self._shelf.look(key, None if own is None else own.digest)
        if found.files is not None:
            super().put_files(key, found.files)
        elif own is not None and not found.there:
            self._shelf.put(key, own)
        elif own is None:
            return None
        self._equal.add(key)
        return found.files or own

    def put_files(self, key: str, files: TraceFiles) -> None:
        """See `TraceStore.put_files`."""
        super().put_files(key, files)
        self._shelf.put(key, files)
        self._equal.add(key)
