"""Medusa heads that learn from recorded states of the target (Cai et al. 2024, section 2.2).

Head k, from 0, reads the state after token s and is asked what the target says after token s + 1 + k, where the root is
token s + 1. Letters: m places, K heads, V ids, C of them that are compared,
h numbers of a state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from specdraft.drafters.loaded.medusa import Block
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.models.output_layer import OutputLayer
from specdraft.training.loop import NUMBERS, Objective, shuffled
from specdraft.training.settings import HeadTraining, MedusaTraining
from specdraft.training.states import TextStates

RUN = 64  # places in a row that are learnt together: what the target says is made once for all heads


def medusa_objective(pair: Pair, states: TextStates, asked: MedusaTraining) -> Objective:
    """Heads of a target, which share its output layer.

    Raises:
        ConfigError: the texts are too short to learn from.
        ModelError: the target's output layer is no linear one on its last state.
    """
    output = OutputLayer(pair.target, pair.files.target.spec.path)
    parameters = new_heads(asked.heads, asked.blocks, output.width, pair.target.device)
    heads = blocks_of(parameters, asked)

    def inner(here: torch.Tensor, places: np.ndarray) -> Iterator[torch.Tensor]:
        for blocks in heads:
            states = here
            for block in blocks:
                states = block(states)
            yield states

    return Objective(parameters, HeadsOfStates(pair, output, inner, states, asked).step)


def new_heads(heads: int, blocks: int, width: int, device: torch.device) -> dict[str, torch.nn.Parameter]:
    """Heads in the authors' layout that say what the target says: all zero."""
    shapes = {"weight": (width, width), "bias": (width,)}
    return {
        f"{head}.{block}.linear.{part}": torch.nn.Parameter(torch.zeros(shape, device=device))
        for head in range(heads)
        for block in range(blocks)
        for part, shape in shapes.items()
    }


def blocks_of(parameters: dict[str, torch.nn.Parameter], asked: MedusaTraining) -> list[list[Block]]:
    """The residual blocks of each head."""

    def block(head: int, number: int) -> Block:
        return Block(*(parameters[f"{head}.{number}.linear.{part}"] for part in ("weight", "bias")))

    return [[block(head, number) for number in range(asked.blocks)] for head in range(asked.heads)]


class HeadsOfStates:
    """Cross-entropy of heads along recorded states.

    Args:
        pair: whose target.
        output: its output layer.
        inner: gives what the output layer reads of each head in turn, `[m, h]`, out of the target's states `[m, h]` at
            places `[m]` of the texts.
        states: of the texts.
        asked: how they learn.
        joined: heads share what they compute.
    """

    def __init__(
        self,
        pair: Pair,
        output: OutputLayer,
        inner: Callable[[torch.Tensor, np.ndarray], Iterator[torch.Tensor]],
        states: TextStates,
        asked: HeadTraining,
        joined: bool = False,
    ) -> None:
        self._device, self._states, self._asked = pair.target.device, states, asked
        self._inner, self._joined = inner, joined
        self._said = Candidates(output, pair.target.vocab, states.learnt_ids, asked)
        self._runs = _runs(states, asked.heads)  # [runs, 2]
        if not len(self._runs):
            raise ConfigError(f"no text is longer than train.heads={asked.heads} heads need; nothing can be learnt")
        self._at_once = max(1, NUMBERS // self._said.count // RUN)  # runs

    def step(self, step: int) -> dict[str, torch.Tensor]:
        """See `Objective.losses`."""
        runs = self._runs_of(step)
        self._said.choose(step)
        count = int((runs[:, 1] - runs[:, 0]).sum())
        losses = torch.zeros(self._asked.heads)
        for first in range(0, len(runs), self._at_once):
            some = runs[first : first + self._at_once]
            places = np.concatenate([np.arange(begin, end) for begin, end in some])
            losses += self._learn(places, count)
        weights = self._asked.decay ** torch.arange(len(losses))
        return {"loss": (weights * losses).sum(), **{f"head_{k}": loss for k, loss in enumerate(losses)}}

    def _runs_of(self, step: int) -> np.ndarray:
        """`[some, 2]` runs of a step: all are used once before any is used again, in another order."""
        each = max(1, min(len(self._runs), self._asked.positions // RUN))
        turns = np.arange(step * each, (step + 1) * each)
        runs: np.ndarray = self._runs[shuffled(len(self._runs), turns, self._asked.seed)]
        return runs

    def _learn(self, places: np.ndarray, count: int) -> torch.Tensor:
        """`[K]` the heads' losses at places `[m]`, summed over them and divided by `count`; gradients are added."""
        asked = places[:, None] + 1 + np.arange(self._asked.heads)  # [m, K]
        wanted, which = np.unique(asked, return_inverse=True)
        here, labels = self._states.at(places, self._device), self._labels(wanted)
        losses = []
        for number, states in enumerate(self._inner(here, places)):
            rows = torch.from_numpy(which.reshape(asked.shape)[:, number]).to(labels.device)
            loss = F.cross_entropy(self._said.logits(states), labels[rows], reduction="sum") / count
            torch.autograd.backward(loss * self._asked.decay**number, retain_graph=self._joined)
            losses.append(loss.detach().cpu())
        return torch.stack(losses)

    def _labels(self, places: np.ndarray) -> torch.Tensor:
        """`[u, C]` what the target says at these places, or `[u]` the tokens that follow them."""
        if self._asked.labels == "text":
            return self._said.place_of(self._states.ids[places + 1])
        with torch.no_grad():
            return torch.softmax(self._said.logits(self._states.at(places, self._device)), -1)


class Candidates:
    """The ids that a step compares: all, or those of the texts and some others that stand for the rest.

    Args:
        output: what makes logits.
        vocab: V.
        ids: of the texts, as far as they are learnt from.
        asked: `candidates` and `seed`.

    Attributes:
        count: C, how many ids are compared.
    """

    def __init__(self, output: OutputLayer, vocab: int, ids: np.ndarray, asked: HeadTraining) -> None:
        self._output, self._seed, device = output, asked.seed, output.weight.device
        there = np.zeros(vocab, dtype=bool)
        there[ids] = True
        self._texts, self._others = np.flatnonzero(there), np.flatnonzero(~there)
        self._drawn = min(asked.candidates or vocab, len(self._others))
        self._ids: torch.Tensor | None = None  # all
        self._stands_for = torch.zeros(vocab, device=device)
        self.count = len(self._texts) + self._drawn

    def choose(self, step: int) -> None:
        """The ids of a step."""
        if self._drawn == len(self._others):
            return  # all of them, always
        drawn = np.random.default_rng([self._seed, step]).choice(self._others, self._drawn, replace=False)
        chosen, device = np.concatenate([self._texts, drawn]), self._output.weight.device
        self._ids = torch.from_numpy(chosen).to(device)
        self._stands_for = torch.zeros(len(chosen), device=device)
        self._stands_for[len(self._texts) :] = math.log(len(self._others) / self._drawn)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """`[m, h]` -> `[m, C]`."""
        logits = self._output(states, self._ids)
        return logits[..., : len(self._stands_for)] + self._stands_for.to(logits.device)

    def place_of(self, ids: np.ndarray) -> torch.Tensor:
        """`[u]` where ids of the texts stand among the candidates."""
        if self._drawn < len(self._others):
            ids = np.searchsorted(self._texts, ids)
        return torch.from_numpy(ids).to(self._output.weight.device)


def _runs(states: TextStates, heads: int) -> np.ndarray:
    """`[runs, 2]` first and last + 1 places of runs, after each of which `heads` more tokens and states are there."""
    return np.array(list(_all_runs(states, heads)), dtype=np.int64).reshape(-1, 2)


def _all_runs(states: TextStates, heads: int) -> Iterator[tuple[int, int]]:
    for first, begin, end in zip(states.first, states.starts[:-1], states.starts[1:], strict=True):
        last = end - 1 - heads
        for place in range(begin + first, last, RUN):
            yield place, min(place + RUN, last)
