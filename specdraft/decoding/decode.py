"""The one decoding loop: draft a tree, verify it, accept a path, commit it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import torch

from specdraft.acceptance import AcceptanceRule
from specdraft.acceptance.base import NO_SOURCE
from specdraft.decoding.clock import ALONE, Clock, Times, step_clock
from specdraft.decoding.ending import Ending
from specdraft.decoding.lengths import AS_PLANNED, Sizer, Sizing
from specdraft.decoding.pruning import WHOLE, Pruner, Pruning
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import Drafter, Drawing
from specdraft.drafters.base import Prefilled, ReadsBeside
from specdraft.models.sending import to_device
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.sampling.randomness import Source
from specdraft.trees.shapes import Plan
from specdraft.trees.step import Step


@dataclass
class Decoding:
    """A prompt on its way: iterate once for the steps as they happen, or `finish` it; what happened so far is kept.

    Attributes:
        first: the token that follows the prompt, from the prefill.
        steps: the verification steps so far.
        prefill_s: seconds in which both models read the prompt.
        ending: when the text is over.
    """

    first: int
    steps: list[Step] = field(default_factory=list)
    prefill_s: float = 0.0
    ending: Ending = field(default_factory=lambda: Ending(1))
    _coming: Iterator[Step] = field(default_factory=lambda: iter(()))

    def __iter__(self) -> Iterator[Step]:
        for step in self._coming:
            self.steps.append(step)
            yield step

    @property
    def tokens(self) -> list[int]:
        """Everything emitted so far."""
        return [self.first, *(token for step in self.steps for token in step.tokens)]

    @property
    def timed_out(self) -> bool:
        """Whether the text, once it is finished, ended because its time was over."""
        tokens = self.tokens
        return not self.ending.reached(len(tokens), tokens[-1])

    def finish(self) -> Decoding:
        """Decode to the end."""
        for _ in self:
            pass
        return self


def decode(
    verifier: Verifier,
    drafter: Drafter,
    plan: Plan,
    rule: AcceptanceRule,
    sampling: Sampling,
    prompt_ids: list[int],
    ending: Ending,
    source: Source = NO_SOURCE,
    pruning: Pruning = WHOLE,
    sizing: Sizing = AS_PLANNED,
    *,
    drawn: Drawn = AS_TARGET,
    earlier: Sequence[Sequence[int]] = (),
    again: bool = False,
    watched: bool = False,
    max_time_s: float | None = None,
    times: Times = ALONE,
) -> Decoding:
    """Decode one prompt; the prompt is read at once, every step when it is asked for.

    Args:
        verifier: the target; it must give the hidden states that the drafter reads.
        drafter: what proposes trees.
        plan: the tree of a step.
        rule: which nodes are accepted.
        sampling: how tokens are chosen.
        prompt_ids: the prompt.
        ending: when the continuation is over.
        source: of randomness.
        pruning: which drafted nodes are sent to the target.
        sizing: how long the chain of each step is, where the plan is a chain.
        drawn: with which temperatures the drafter draws.
        earlier: see `Prefilled`.
        again: verifier and drafter hold this very prompt from the last time: it is not read again.
        watched: keep what is needed to show a step: draft probabilities, and the target's logits.
        max_time_s: no step is begun later than so many seconds after this call.
        times: see `Times`; what a step and the prompt take is the text's share.
    """
    until = inf if max_time_s is None else times.passed() + max_time_s
    clock = Clock(verifier.model.device, times.share)
    prompt = verifier.rewind() if again else verifier.prefill(prompt_ids)
    root = choose(prompt.logits, sampling, source)
    if again:
        drafter.rewind()
    else:
        drafter.begin(Prefilled(prompt_ids, prompt.hidden, earlier))
    drawing = Drawing.by(rule, sampling, source, watched, pruning.scores(plan), drawn)
    pruner = pruning.begin(prompt_ids)
    steps = _steps(verifier, drafter, sizing.begin(plan), rule, drawing, pruner, root, ending, until, times)
    return Decoding(root, prefill_s=clock.lap(), ending=ending, _coming=steps)


def _steps(
    verifier: Verifier,
    drafter: Drafter,
    sizer: Sizer,
    rule: AcceptanceRule,
    drawing: Drawing,
    pruner: Pruner,
    root: int,
    ending: Ending,
    until: float,
    times: Times,
) -> Iterator[Step]:
    emitted, clock = 1, step_clock(verifier.model.device, times)
    while not ending.reached(emitted, root) and times.passed() < until:
        clock.restart()
        drafted = drafter.draft(root, sizer.plan(), drawing)
        clock.lap()
        sent = pruner.send(drafted)
        if pruner.prunes:
            clock.lap()
        tree, pruned = sent.tree, drafted.num_nodes - sent.tree.num_nodes
        logits, hidden, beside = verifier.verify(tree)
        clock.lap()
        target_probs = logits if rule.only_best else standardise(logits, drawing.sampling)
        accepted = rule.accept(tree, target_probs, tree.drawn_from, drawing.source)
        tokens = ending.cut(emitted, [*accepted.tokens, accepted.bonus])
        nodes = accepted.nodes[: len(tokens)]
        verifier.commit(nodes)
        pruner.learn(sent, nodes, root)
        sizer.learn(len(nodes))
        states = None if hidden is None else hidden[to_device([0, *nodes], hidden.device)]
        drafter.commit(drafted, sent.as_drafted(nodes), states)
        if beside is not None and isinstance(drafter, ReadsBeside):
            drafter.read_beside(beside)
        emitted, root = emitted + len(tokens), tokens[-1]
        kept, cut = logits if drawing.keep_probs else None, len(tokens) == len(nodes)
        draft_s, *predict_s, verify_s, other_s = clock.seconds()
        whole = replace(drafted, chosen_from=None) if pruned else None
        spent = draft_s, verify_s, other_s
        yield Step(tree, nodes, tokens, cut, *spent, accepted.tried, kept, pruned, sum(predict_s), whole)


def choose(logits: torch.Tensor, sampling: Sampling, source: Source) -> int:
    """A token after logits `[vocab]`; no randomness is used up where there is none."""
    if sampling.greedy:
        return int(logits.argmax())
    return int(source.choose(standardise(logits[None], sampling)))


def decode_plainly(
    verifier: Verifier, sampling: Sampling, prompt_ids: list[int], ending: Ending, source: Source = NO_SOURCE
) -> list[int]:
    """The target alone, one token per forward, over the same cache code: the reference for text and speed."""
    return list(plain_tokens(verifier, sampling, prompt_ids, ending, source))


def plain_tokens(
    verifier: Verifier, sampling: Sampling, prompt_ids: list[int], ending: Ending, source: Source = NO_SOURCE
) -> Iterator[int]:
    """See `decode_plainly`: each token as it is there."""
    logits, emitted = verifier.prefill(prompt_ids).logits, 0
    while True:
        token = choose(logits, sampling, source)
        emitted += 1
        yield token
        if ending.reached(emitted, token):
            return
        logits = verifier.model.extend(token)
