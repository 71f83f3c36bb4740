"""When a text ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ending:
    """When a continuation ends: at `max_new_tokens`, or right after an end-of-sequence token."""

    max_new_tokens: int
    eos_ids: frozenset[int] = frozenset()

    def cut(self, emitted: int, tokens: list[int]) -> list[int]:
        """What may still be emitted of `tokens` after `emitted` tokens."""
        room = tokens[: self.max_new_tokens - emitted]
        first = next((i for i, token in enumerate(room) if token in self.eos_ids), len(room))
        return room[: first + 1]

    def reached(self, emitted: int, last: int) -> bool:
        """Whether the continuation is over after `emitted` tokens, the last being `last`."""
        return emitted >= self.max_new_tokens or last in self.eos_ids
