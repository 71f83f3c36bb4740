"""The only source of randomness: categorical draws and coin flips, and a tree's children drawn with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

from specdraft.errors import ConfigError

if TYPE_CHECKING:
    import torch

# How a rule needs a node's children to be chosen: the drafter's best by raw score, or drawn at random.
Draw = Literal["rank", "iid", "without_replacement"]

Flip = Callable[[int], bool]  # number of a coin -> what it says
Asking = Callable[[Flip], Any]  # asks for the coins that matter, one after the other


class Source(Protocol):
    """Whatever answers random questions; every draw and every decision under sampling goes through one."""

    def choose(self, weights: torch.Tensor) -> torch.Tensor:
        """One categorical draw per row of non-negative, not normalised weights: `[m, vocab]` -> `[m]` ids.

        An id of weight 0 is never chosen. A row without any weight gives some id.
        """

    def flips(self, chances: torch.Tensor, asking: Asking) -> torch.Tensor:
        """One coin flip for each chance, without waiting for the device: `[m]` float64 -> `[m]` bool.

        What the coins say that `asking` does not ask for matters to nobody: they are there so that the device need not
        be asked which those are.
        """


class RandomSource:
    """The real one.

    Args:
        generator: on the CPU, so that a seed means the same on every device.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def choose(self, weights: torch.Tensor) -> torch.Tensor:
        """See `Source.choose`: by the inverse of the distribution function, in float64, on the weights' device."""
        import torch

        return at_quantile(weights, torch.rand(len(weights), 1, generator=self._generator, dtype=torch.float64))

    def flips(self, chances: torch.Tensor, asking: Asking) -> torch.Tensor:
        """See `Source.flips`."""
        import torch

        uniforms = torch.rand(len(chances), generator=self._generator, dtype=torch.float64)
        return uniforms.to(chances.device, non_blocking=True) < chances


def at_quantile(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Where each row's distribution function exceeds its quantile: `[m, vocab]` weights, `[m, 1]` in [0, 1) -> `[m]`
    ids."""
    import torch

    cumulative = weights.double().cumsum(-1)
    beyond = (cumulative > uniforms.to(weights.device, non_blocking=True) * cumulative[:, -1:]) & (weights > 0)
    # a parallel sum need not rise monotonically, so rounding may leave nothing beyond
    return torch.where(beyond.any(-1), beyond.byte().argmax(-1), weights.argmax(-1))


def seeded(*parts: object) -> torch.Generator:
    """A generator that depends on nothing but the text of `parts`, so that no result depends on the order of work."""
    import torch

    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class NoSource:
    """For what is decided without randomness; asking it is an error."""

    def choose(self, weights: torch.Tensor) -> torch.Tensor:
        """Raise."""
        raise ConfigError("this acceptance rule needs a source of randomness")

    def flips(self, chances: torch.Tensor, asking: Asking) -> torch.Tensor:
        """Raise."""
        raise ConfigError("this acceptance rule needs a source of randomness")


def draw_children(
    draft_probs: torch.Tensor, count: int, draw: Draw, source: Source
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `count` children for each of `m` nodes; a child's index is its draw order.

    Args:
        draft_probs: `[m, vocab]` the standardised draft distribution after each node.
        count: children per node, 1 or more.
        draw: `"iid"` draws may repeat a token. `"without_replacement"` takes what was drawn out and
            renormalises. `"rank"` is no draw: the drafter takes its best by raw logits.
        source: where the randomness comes from.

    Returns:
        Tokens `[m, count]`, and `[m, count]` whether each was drawn: without replacement, a row whose
        support is used up has no further child (its token there means nothing).
    """
    import torch

    if draw == "iid":
        drawn = source.choose(draft_probs.repeat_interleave(count, 0)).view(-1, count)
        return drawn, torch.ones_like(drawn, dtype=torch.bool)
    if draw != "without_replacement":
        raise ValueError(f"{draw!r} children are not drawn at random")
    left, tokens, valid = draft_probs, list[torch.Tensor](), list[torch.Tensor]()
    for _ in range(count):
        valid.append((left > 0).any(-1))
        tokens.append(source.choose(left))
        left = left.scatter(-1, tokens[-1][:, None], 0.0)
    return torch.stack(tokens, -1), torch.stack(valid, -1)
