"""What a drafter is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from specdraft.draft_tree import DraftTree
from specdraft.shapes import Plan


class Drafter(Protocol):
    """Proposes trees below the last committed token."""

    def begin(self, prompt_ids: Sequence[int]) -> None:
        """Start over with a prompt."""

    def draft(self, root: int, plan: Plan) -> DraftTree:
        """One tree below `root`, the last committed token."""

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int]) -> None:
        """Of the last tree, these nodes were accepted; the next root follows them."""
