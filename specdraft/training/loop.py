"""One training loop: steps of AdamW, checkpoints, and going on at the step that a killed run had."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specdraft.errors import ResultsError
from specdraft.results.files import write_atomically
from specdraft.traces.watch import Watch
from specdraft.training.settings import Training

CHECKPOINT = "checkpoint.pt"
LOGGED = 25  # steps of a row of the loss log
NUMBERS = 2**24  # of logits that an objective makes at once


@dataclass
class Objective:
    """What is learnt.

    Attributes:
        parameters: name -> what is trained.
        losses: adds a step's gradients, given its number, and says its losses by name; the first one is the whole.
        rates: the highest learning rate of some parameters, by name, where it is not `train.lr`.
    """

    parameters: dict[str, torch.nn.Parameter]
    losses: Callable[[int], dict[str, torch.Tensor]]
    rates: dict[str, float] = field(default_factory=dict)


@dataclass
class Trained:
    """How training went.

    Attributes:
        log: rows of the loss log.
        seconds: of all steps, those before an interruption too.
    """

    log: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def train(objective: Objective, asked: Training, about: dict[str, Any], folder: Path, watch: Watch) -> Trained:
    """Train; checkpoints lie in `folder`.

    Args:
        objective: what is learnt.
        asked: how.
        about: what the weights depend on: a checkpoint of something else is not gone on with.
        folder: where the checkpoint is.
        watch: told of each step.

    Raises:
        ResultsError: a checkpoint cannot be written, or is of another training; or a loss is no number.
    """
    parameters = objective.parameters
    optimizer, schedule = _optimizer(objective, asked)
    trained, first = Trained(), 0
    recent: list[dict[str, float]] = []  # losses that are in no row yet
    if saved := checkpoint(folder, about):
        for name, parameter in parameters.items():
            parameter.data.copy_(saved["parameters"][name])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        trained, first, recent = Trained(saved["log"], saved["seconds"]), saved["step"], saved["recent"]
        del saved
    watch.stage("train", asked.steps - first, "steps")
    before, begun = trained.seconds, time.perf_counter()
    for step in range(first, asked.steps):
        optimizer.zero_grad(set_to_none=True)
        recent.append({name: float(loss) for name, loss in objective.losses(step).items()})
        if not all(map(np.isfinite, recent[-1].values())):
            raise ResultsError(f"step {step + 1}: the loss is no number; a smaller train.lr may help")
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), asked.clip)
        if not norm.isfinite():
            raise ResultsError(f"step {step + 1}: the gradient is no number; a smaller train.lr may help")
        optimizer.step()
        schedule.step()
        trained.seconds = before + time.perf_counter() - begun
        last = step + 1 == asked.steps
        if (step + 1) % LOGGED == 0 or last:
            trained.log.append(_row(step + 1, recent, trained.seconds))
            recent = []
        if (step + 1) % asked.save_every == 0 or last:
            state = {"parameters": {name: p.detach() for name, p in parameters.items()}, "step": step + 1}
            state |= {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            state |= {"log": trained.log, "recent": recent, "seconds": trained.seconds, "about": about}
            _save(folder / CHECKPOINT, state)
        watch.done(1)
    return trained


def _optimizer(objective: Objective, asked: Training) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW with a linear rise and a cosine fall; what has one dimension is not decayed."""
    from transformers import get_cosine_schedule_with_warmup

    groups = [
        {
            "params": [parameter],
            "lr": objective.rates.get(name, asked.lr),
            "weight_decay": asked.weight_decay if parameter.ndim > 1 else 0.0,
        }
        for name, parameter in objective.parameters.items()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    return optimizer, get_cosine_schedule_with_warmup(optimizer, round(asked.warmup * asked.steps), asked.steps + 1)


def _row(step: int, recent: Sequence[dict[str, float]], seconds: float) -> dict[str, float]:
    means = {name: round(float(np.mean([row[name] for row in recent])), 5) for name in recent[0]}
    return {"step": step, **means, "seconds": round(seconds, 1)}


def _save(path: Path, state: dict[str, Any]) -> None:
    held = io.BytesIO()
    torch.save(state | {"about": json.dumps(state["about"], sort_keys=True)}, held)
    write_atomically(path, held.getvalue())


def checkpoint(folder: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """What a killed run left, on the host; None where there is nothing.

    Raises:
        ResultsError: it cannot be read, or is of another training.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise ResultsError(f"{path}: cannot be read; --fresh starts over") from error
    if saved["about"] != json.dumps(about, sort_keys=True):
        raise ResultsError(f"{path}: is of another training (settings, texts or weights); --fresh starts over")
    return saved


def shuffled(count: int, turns: np.ndarray, seed: int) -> np.ndarray:
    """Which of `count` things has each turn, where each has one before any has a second."""
    rounds = {number: np.random.default_rng([seed, number]).permutation(count) for number in set(turns // count)}
    return np.array([rounds[turn // count][turn % count] for turn in turns])
