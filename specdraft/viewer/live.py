"""Look on while a prompt is decoded: the target's logits of a step, without touching the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from specdraft.acceptance import Typical
from specdraft.errors import OUT_OF_MEMORY, ModelError
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.study.combination import Combination
from specdraft.study.generate import Generation, SpeculativeDecoder
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.step import Step
from specdraft.trees.told import target_first, target_probs_of
from specdraft.trees.topology import Topology
from specdraft.viewer.steps import (
    ENDED,
    Seen,
    Showing,
    Shown,
    ShownStep,
    Word,
    about,
    nothing_below,
    number,
    probability_note,
    quoted,
)

Result = TypeVar("Result")


class LiveShowing:
    """See `Showing`. What the caller does between two steps is not counted as decoding time."""

    def __init__(
        self, decoder: SpeculativeDecoder, combination: Combination, prompt: str, prompt_ids: list[int]
    ) -> None:
        reader = combination.pair.reader(combination.prompts.chat_template)
        self.prompt, self.word = reader.pieces(prompt, combination.prompts.before), decoder.pair.decode_token
        self._decoder, self._combination, self._prompt_ids = decoder, combination, prompt_ids
        self._shown: list[ShownStep] = []
        self._wall_s = 0.0

    def steps(self) -> Iterator[ShownStep]:
        """See `Showing.steps`. Raises `ModelError` where memory runs out."""
        self._timed(self._begin)
        while (step := self._timed(lambda: next(self._steps, None))) is not None:
            self._shown.append(_shown(self._decoder, step))
            yield self._shown[-1]

    def _begin(self) -> None:
        self._decoding = self._decoder.start(self._prompt_ids)
        self._steps = iter(self._decoding)

    def _timed(self, work: Callable[[], Result]) -> Result:
        started = time.perf_counter()
        try:
            return work()
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(OUT_OF_MEMORY) from error
        finally:
            self._wall_s += time.perf_counter() - started

    def text(self) -> str:
        """See `Showing.text`."""
        return self._decoder.pair.files.decode(self._decoding.tokens, after=self._prompt_ids)

    def shown(self) -> Shown:
        """See `Showing.shown`."""
        note = probability_note(self._combination, drawn=self._decoder.rule.draw != "rank")
        first = self._decoding.first
        return Shown(about(self._combination), self.prompt, self.text(), first, self._shown, self.word, [note])

    def result(self) -> Generation:
        """See `Showing.result`."""
        return self._decoder.finished(self._decoding, self._wall_s)


def watched(decoder: SpeculativeDecoder, combination: Combination, prompt: str, prompt_ids: list[int]) -> Showing:
    """A prompt that is decoded while it is shown."""
    return LiveShowing(decoder, combination, prompt, prompt_ids)


def target_probs(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """What is shown as the target's probabilities: standardised, but of greedy decoding the softmax at temperature
    1."""
    return torch.softmax(logits, -1) if sampling.greedy else standardise(logits, sampling)


def _shown(decoder: SpeculativeDecoder, step: Step) -> ShownStep:
    tree, topology = step.tree, step.tree.topology
    assert step.logits is not None
    probs, tokens = target_probs(step.logits, decoder.sampling), tree.token_list()
    chance, states = {trial.node: trial.chance for trial in step.tried}, step.states
    bonus = None if step.cut else step.tokens[-1]
    target, draft = target_probs_of(probs, topology, tokens), draft_probs_of(tree, tokens)
    first = target_first(probs, topology, tokens)
    nodes = [Seen(tokens[n], states[n], draft[n], target[n], first[n], chance.get(n)) for n in range(len(topology))]
    last = step.accepted[-1] if step.accepted else 0
    why = _why(decoder, nodes, topology, last, probs[last], bonus)
    return ShownStep(topology, nodes, step.accepted, bonus, None if bonus is None else float(probs[last, bonus]), why)


def draft_probs_of(tree: DraftTree, tokens: Sequence[int]) -> list[float | None]:
    """What the children were drawn from where they were drawn, else the softmax at temperature 1."""
    if tree.drawn_from is not None:
        return [1.0, *target_probs_of(tree.drawn_from, tree.topology, tokens)[1:]]
    return tree.probability_list()


def _why(
    decoder: SpeculativeDecoder,
    nodes: Sequence[Seen],
    topology: Topology,
    last: int,
    probs: torch.Tensor,
    bonus: int | None,
) -> str:
    """One line on why the accepted path ended at the node `last`, after which the target's probabilities are `probs`
    `[vocab]`."""
    word, rule = decoder.pair.decode_token, decoder.rule
    if bonus is None:
        return ENDED
    children = [nodes[child] for child in topology.children[last]]
    above = nodes[last].token
    assert above is not None
    if not children:
        return nothing_below(word, above)
    first = children[0]
    assert first.token is not None
    if first.accept_prob is not None:
        return f"after {quoted(word, above)} {by_flip(word, first, len(children) - 1, drawn=rule.draw != 'rank')}"
    if isinstance(rule, Typical) and not decoder.sampling.greedy:
        threshold = float((rule.delta * torch.exp(-torch.special.entr(probs).sum())).clamp(max=rule.epsilon))
        most = max(children, key=lambda child: child.target_prob or 0.0)
        assert most.token is not None
        least = f"{number(most.target_prob)}, not more than {number(threshold)}"
        return f"after {quoted(word, above)} no child passes: {quoted(word, most.token)} has {least}"
    return f"after {quoted(word, above)} {by_wish(word, 'wanted', bonus, probs, first.token)}"


def by_wish(word: Word, wish: str, wanted: int, probs: torch.Tensor, child: int, drafter: str = "") -> str:
    """The target wanted another token than the children: with the target's probabilities `[vocab]` at that place."""
    rank = int((probs > probs[child]).sum())
    wished = f"the target {wish} {quoted(word, wanted)} (p={number(float(probs[wanted]))}){drafter}"
    return (
        f"{wished}; the draft's best child {quoted(word, child)} is the target's rank {rank} "
        f"(p={number(float(probs[child]))})"
    )


def by_flip(word: Word, child: Seen, more: int, drawn: bool) -> str:
    """A coin flip went against the first child, and others against `more` children."""
    assert child.token is not None
    draft = f", draft {number(child.draft_prob)}" if drawn and child.draft_prob is not None else ""
    others = (
        f", and so did the flips for {more} more" if more > 1 else ", and so did the flip for one more" if more else ""
    )
    kept = f"the draft's {quoted(word, child.token)} is kept with probability {number(child.accept_prob)}"
    return f"{kept} (target {number(child.target_prob)}{draft}): the flip said no{others}"
