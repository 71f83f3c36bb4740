"""What several combinations of a study read of a file, read once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Read = TypeVar("Read")


class Once:
    """What was read so far, by what it was asked for."""

    def __init__(self) -> None:
        self._read: dict[Hashable, Any] = {}

    def of(self, asked: Hashable, read: Callable[[], Read]) -> Read:
        """What `read` gives, or gave for the same `asked`. Raises what that does."""
        if asked not in self._read:
            self._read[asked] = read()
        found: Read = self._read[asked]
        return found
