"""Acceptance rules, one file each: which draft nodes the target keeps, and the token after them."""

from __future__ import annotations

from specdraft.acceptance.base import AcceptanceRule
from specdraft.acceptance.greedy import Greedy

__all__ = ["AcceptanceRule", "Greedy", "registry"]


def registry() -> dict[str, type[AcceptanceRule]]:
    """`kind` -> the dataclass that declares its parameters."""
    return {rule.kind: rule for rule in (Greedy,)}
