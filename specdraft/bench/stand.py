"""Texts with a pair, ready to be timed: everything that costs are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch

from specdraft.acceptance import Greedy
from specdraft.acceptance.base import NO_SOURCE
from specdraft.bench.in_batch import SideBySide, drafter_of
from specdraft.bench.measuring import Cell, sizes_up_to
from specdraft.bench.trust import TWIN
from specdraft.decoding.clock import Clock
from specdraft.decoding.decode import Decoding, choose, decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.seat import Seat
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Prefilled
from specdraft.drafters.pair import Pair
from specdraft.models.language_model import Forward
from specdraft.sampling.distribution import Sampling
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.base import Growing, StaticPlan
from specdraft.trees.shapes.best_first import BestFirst, BestFirstPlan
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.step import Step
from specdraft.trees.topology import Topology

IN_A_ROW = 4  # steps of plain decoding that are timed together, as nothing is drafted between them
STEPS = 2  # of a short run: the last is timed, the one before it prepares what later steps find
PERIOD = 16  # tokens of the prompt, over and over
LEVELS = 3  # of a draft, behind the first one, that are timed together
SLOW_S = 0.1  # a draft that takes longer is drafted once
PREFILLS = 5  # rounds in which prompts are read


class Selection(NamedTuple):
    """A step with a dynamic tree: how many nodes were fed for each level, how many there are, seconds of it all."""

    fed: list[int]
    nodes: int
    seconds: float


class Stand:
    """Texts with a prompt in both models of a pair, ready to be timed; whatever is timed leaves them like that.

    Args:
        pair: target and drafter.
        texts: how many go together; seconds are of all of them, but for those of reading a prompt.
        prefix: committed tokens of each.
        largest: tokens of the largest forward, of each.

    Attributes:
        selections: steps with dynamic trees, each time that they were timed.
    """

    def __init__(self, pair: Pair, texts: int, prefix: int, largest: int) -> None:
        self._pair, self._largest = pair, largest
        generator = torch.Generator().manual_seed(0)
        period = torch.randint(0, pair.target.vocab, (PERIOD,), generator=generator).tolist()
        self._ids = (period * -(-prefix // PERIOD))[:prefix]  # so that there is something to be found in it
        self._together, self._clock = SideBySide(pair, texts), Clock(pair.target.device)
        self._prompt = Prefilled(self._ids, self._together.all(self._read_target)[0].hidden)
        self._together.all(self._read_draft)
        self.selections: list[Selection] = []

    def cells(self) -> list[Cell]:
        """Everything that costs are made of; what a step of drafting and verifying takes in turns stands side by
        side."""
        sizes = sizes_up_to(self._largest)
        needed = (1, min(2, self._largest), self._largest)
        middle = sizes[len(sizes) // 2]
        cells = [
            Cell("target_prefill_s", self._timed(lambda: self._together.first(self._read_target)), most=PREFILLS),
            Cell("draft_prefill_s", self._timed(lambda: self._together.first(self._read_draft)), most=PREFILLS),
            self._verification(TWIN, middle, spare=middle not in needed),
        ]
        for size in sizes:
            spare = size not in needed
            cells.append(self._drafting("draft_s", self._levels(size), size, spare))
            cells.append(self._verification("verify_s", size, spare))
        cells.append(self._drafting("draft_first_s", Topology([-1, 0])))
        cells += [Cell("plain_s", self._plain), Cell("other_s", self._rest_of_a_step)]
        if self._pair.traits.probabilities:
            cells.append(Cell("select_s", self._selection, varies=True))
        return cells

    def leave(self) -> None:
        """Forget the prompt."""
        hidden = self._prompt.hidden
        nothing = Prefilled([], None if hidden is None else hidden[:0])
        self._together.all(lambda seat: seat.verifier.model.reset())
        self._together.all(lambda seat: drafter_of(seat).begin(nothing))

    def _timed(self, run: Callable[[], object]) -> Callable[[], float]:
        def sample() -> float:
            self._clock.restart()
            run()
            return self._clock.lap()

        return sample

    def _read_target(self, seat: Seat) -> Forward:
        return seat.verifier.prefill(self._ids)

    def _read_draft(self, seat: Seat) -> None:
        drafter_of(seat).begin(self._prompt)

    def _drafting(self, quantity: str, topology: Topology, size: int = 0, spare: bool = False) -> Cell:
        """Drafting a tree behind a verification, as every step but the first does it."""
        together, plan, root = self._together, StaticPlan(topology), self._ids[-1]
        verify = self._verification("verify_s", 2, spare=False).sample
        draft = self._timed(lambda: together.all(lambda seat: drafter_of(seat).draft(root, plan)))

        def once() -> float:
            verify()
            seconds = draft()
            together.all(lambda seat: drafter_of(seat).rewind())
            return seconds

        def sample() -> float:
            seconds = once()
            return once() if seconds < SLOW_S else seconds  # of a quick draft, what a static shape makes once is a part

        return Cell(quantity, sample, size, spare)

    @property
    def levels(self) -> int:
        """How many levels a draft that is timed has behind the first one: `LEVELS`, as far as the drafter goes."""
        return min(LEVELS, (self._pair.traits.deepest or 1 + LEVELS) - 1)

    def _levels(self, parents: int) -> Topology:
        """A level below the root, and `levels` more below so many nodes each."""
        wide = min(parents, self._pair.files.shared_ids) if self.levels else 1
        below = [1 + row * wide + column for row in range(self.levels) for column in range(wide)]
        return Topology([-1, *[0] * wide, *below], [0, *range(wide), *[0] * len(below)])

    def _verification(self, quantity: str, size: int, spare: bool) -> Cell:
        """The target's forward over a tree of so many tokens, root included, as a step has it."""
        target, together = self._pair.target, self._together
        topology = Wide().at(size - 1).topology if size > 1 else Topology([-1])
        tree = DraftTree(topology, torch.arange(size, device=target.device) % target.vocab)
        verifiers = together.all(lambda seat: Verifier(seat.verifier.model, seat.verifier.layers))
        forwards = [partial(_verify, verifier, tree) for verifier in verifiers]
        forward = self._timed(lambda: together.each(forwards))

        def sample() -> float:
            seconds = forward()
            together.all(lambda seat: seat.verifier.model.commit([]))
            return seconds

        return Cell(quantity, sample, size, spare)

    def _plain(self) -> float:
        """Seconds of a step of plain decoding, as `decode_plainly` takes it; the first one only makes it warm."""
        self._together.all(partial(_extend, 1))
        seconds = self._timed(lambda: self._together.all(partial(_extend, IN_A_ROW - 1)))()
        self._together.all(_rewind)
        return seconds / (IN_A_ROW - 1)

    def _rest_of_a_step(self) -> float:
        """Seconds of all but drafting and verifying, which is done text by text."""
        plan, first = Chain().at(min(4, self._pair.traits.deepest or 4)), self._together.first
        run = first(partial(self._run, plan))
        step = first(lambda seat: list(islice(run, STEPS)))[-1]
        first(_rewind)
        return self._together.texts * step.other_s

    def _selection(self) -> float:
        """Seconds of a step with a dynamic tree."""
        plan = _Remembering(**vars(BestFirst(max_depth=min(4, self._pair.traits.deepest or 4)).at(16)))
        together = self._together
        runs = [iter(run) for run in together.all(partial(self._run, plan))]
        steps = [partial(_step_of, run) for run in runs]
        for _ in range(STEPS - 1):
            together.each(steps)
        self._clock.restart()
        step, seconds = together.each(steps)[0], self._clock.lap()
        together.all(_rewind)
        fed = plan.grown[-1].fed  # of all levels that were drafted: the tree may have no node of the last ones
        self.selections.append(Selection(fed, step.tree.num_nodes, seconds))
        return seconds

    def _run(self, plan: Plan, seat: Seat) -> Decoding:
        """A few steps of a live run behind the prompt."""
        ending = Ending(1 + STEPS * (1 + plan.depth))
        given = (plan, Greedy(), Sampling(), self._ids, ending)
        return decode(seat.verifier, drafter_of(seat), *given, again=True, times=seat.times)


def _verify(verifier: Verifier, tree: DraftTree, seat: Seat) -> None:
    verifier.verify(tree)


def _extend(count: int, seat: Seat) -> None:
    """So many steps of plain decoding behind the prompt."""
    logits = seat.verifier.rewind().logits
    for _ in range(count):
        logits = seat.verifier.model.extend(choose(logits, Sampling(), NO_SOURCE))


def _step_of(run: Iterator[Step], seat: Seat) -> Step:
    return next(run)


def _rewind(seat: Seat) -> None:
    """Back to the end of the prompt."""
    seat.verifier.rewind()
    drafter_of(seat).rewind()


@dataclass(frozen=True)
class _Remembering(BestFirstPlan):
    """A plan that keeps how its trees grew."""

    grown: list[Growing] = field(default_factory=list)

    def growth(self, roots: int, vocab: int, whole: bool = False) -> Growing:
        """See `BestFirstPlan.growth`."""
        self.grown.append(super().growth(roots, vocab, whole))
        return self.grown[-1]
