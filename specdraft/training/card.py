"""The README.md beside trained weights: what they are, what they learnt from, how far they got."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from specdraft.results.files import without_folders
from specdraft.training.held_out import HeldOut
from specdraft.training.loop import Trained
from specdraft.training.settings import Training


class Made(NamedTuple):
    """What was trained.

    Attributes:
        kind: for people.
        target, weights: the target's name and the digest of its weights.
        source: of the texts; `texts`, `tokens`: how many were learnt from.
        parameters: numbers that were trained.
        trained: how that went.
        held_out: what it is worth.
        use: the overrides that draft with it; DIR is the folder.
    """

    kind: str
    target: str
    weights: str
    source: str
    texts: int
    tokens: int
    parameters: int
    trained: Trained
    held_out: HeldOut
    use: str

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        plain = self._replace(trained=self.trained.log[-1:], held_out=self.held_out._asdict())  # type: ignore[arg-type]
        return {**plain._asdict(), "seconds": round(self.trained.seconds, 1)}


def card(made: Made, asked: Training) -> str:
    """As Markdown."""
    first, last = made.trained.log[0], made.trained.log[-1]
    facts: Mapping[str, object] = {
        "target": f"{made.target} (weights {made.weights})",
        "parameters": f"{made.parameters:,}",
        "learnt from": f"{made.source}: {made.texts:,} texts, {made.tokens:,} tokens",
        "training": f"{last['step']:.0f} steps in {made.trained.seconds:,.0f} s on {_machine()}",
        "loss": f"{first['loss']:.3f} (first {first['step']:.0f} steps) -> {last['loss']:.3f}; see training_log.csv",
    }
    held = made.held_out
    depths = "".join(f"| {depth} | {share:.3f} |\n" for depth, share in enumerate(held.by_depth, start=1))
    told = without_folders({key: value for key, value in asdict(asked).items() if value is not None})
    settings = "\n".join(f"train.{key}={value}" for key, value in told.items())
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    return (
        f"# {made.kind} for {made.target}\n\n| | |\n| --- | --- |\n{rows}\n"
        f"Draft with it: `{made.use}`.\n\n## Held-out texts\n\n"
        f"Greedy, {held.texts} prompts that were not learnt from, {held.tokens:,} tokens, a chain of {held.depth}, by "
        f"replay: {held.block_efficiency:.3f} tokens a verification step, the bonus token included "
        f"({held.loop_share:.0%} of the tokens are in loops, which are easy). Of the steps that "
        f"got so far, how many accepted one more token:\n\n| depth | accepted |\n| --- | --- |\n{depths}\n"
        f"## Settings\n\n```\n{settings}\n```\n"
    )


def _machine() -> str:
    import torch

    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
