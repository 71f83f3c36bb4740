"""The one decoding loop: draft a tree, verify it, accept a path, commit it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from specdraft.acceptance import AcceptanceRule
from specdraft.acceptance.base import NO_SOURCE
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import Drafter, Drawing
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import Source
from specdraft.trees.shapes import Plan
from specdraft.trees.step import Step


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


def decode(
    verifier: Verifier,
    drafter: Drafter,
    plan: Plan,
    rule: AcceptanceRule,
    sampling: Sampling,
    prompt_ids: list[int],
    ending: Ending,
    source: Source = NO_SOURCE,
) -> Iterator[int | Step]:
    """Decode one prompt: first the token that follows the prompt, then one `Step` per verification step."""
    root = choose(standardise(verifier.prefill(prompt_ids)[None], sampling), sampling, source)
    drawing = Drawing.by(rule, sampling, source)
    drafter.begin(prompt_ids)
    emitted = 1
    yield root
    clock = Clock(verifier.model.device)
    while not ending.reached(emitted, root):
        clock.restart()
        tree = drafter.draft(root, plan, drawing)
        draft_s = clock.lap()
        logits = verifier.verify(tree)
        verify_s = clock.lap()
        accepted = rule.accept(tree, standardise(logits, sampling), tree.drawn_from, source)
        tokens = ending.cut(emitted, [*accepted.tokens, accepted.bonus])
        nodes = accepted.nodes[: len(tokens)]
        verifier.commit(nodes)
        drafter.commit(tree, nodes)
        emitted, root = emitted + len(tokens), tokens[-1]
        yield Step(tree, nodes, tokens, len(tokens) == len(nodes), draft_s, verify_s, clock.lap())


def choose(probs: torch.Tensor, sampling: Sampling, source: Source) -> int:
    """A token from a standardised distribution `[1, vocab]`; no randomness is used up where there is none."""
    return int(probs.argmax() if sampling.greedy else source.choose(probs))


class Clock:
    """Wall-clock laps; on a GPU each lap waits for the work that was queued in it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.restart()

    def restart(self) -> None:
        """Start a lap now."""
        self._start = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap ended."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        seconds, self._start = now - self._start, now
        return seconds


def decode_plainly(
    verifier: Verifier, sampling: Sampling, prompt_ids: list[int], ending: Ending, source: Source = NO_SOURCE
) -> list[int]:
    """The target alone, one token per forward, over the same cache code: the reference for text and speed."""
    device = verifier.model.device
    logits = verifier.prefill(prompt_ids)[None]
    offset, tail = (
        torch.zeros(1, dtype=torch.long, device=device),
        torch.zeros(1, 1, dtype=verifier.model.dtype, device=device),
    )
    tokens: list[int] = []
    while True:
        tokens.append(choose(standardise(logits[-1:], sampling), sampling, source))
        if ending.reached(len(tokens), tokens[-1]):
            return tokens
        logits = verifier.model.append(torch.tensor(tokens[-1:], device=device), offset, tail)
        verifier.model.commit([0])
