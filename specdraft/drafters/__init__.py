"""Drafters, one file each: whatever proposes the tokens of a tree."""

from __future__ import annotations

from specdraft.drafters.base import Drafter, Drawing
from specdraft.drafters.draft_model import DraftModel

__all__ = ["DraftModel", "Drafter", "Drawing"]
