"""What the load-time self-check said of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from specdraft.trees.topology import Topology

CHECK_TREE = Topology.from_paths([(0,), (1,), (0, 0)])  # A; B its sibling; C a child of A
PROMPT_TOKENS = 12


@dataclass(frozen=True)
class SelfCheck:
    """Largest absolute logit differences from sequential decoding.

    Attributes:
        error: of the tree forward, in float32.
        control: of the milder of two forwards that are wrong on purpose (mask, positions), in float32.
        rounding: of the tree forward in the model's own type; in a 16-bit type at least the largest logit's last place.
        layers: how many of its layers were checked in float32.
        not_covered: what a text of so few tokens cannot show of this model, for people.
    """

    error: float
    control: float
    rounding: float
    layers: int
    not_covered: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        return self.error < 1e-2 * self.control

    def as_dict(self) -> dict[str, Any]:
        """As the manifest says it."""
        tokens = PROMPT_TOKENS + len(CHECK_TREE)
        return {
            "error": self.error,
            "control": self.control,
            "rounding": self.rounding,
            "float32_layers": self.layers,
            "tokens": tokens,
            "not_covered": list(self.not_covered),
        }
