"""What a study's work is cut into, so that several workers can do it.

The rows of a unit are those that the whole work would make: it says the same of every text, and is due of a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from specdraft.prompts import Prompt, turn_of_name
from specdraft.study.combination import Combination, by_texts, largest_first
from specdraft.study.engines.base import Due, Work

DESCRIBE, RECORD, COSTS, ROWS = "describe", "record", "costs", "rows"
RECORDED_AT_ONCE = 16  # prompts of a unit: a batch of the recorder
UNITS_OF_A_WORKER = 4  # of rows: a slow one is not waited for by all the others


@dataclass(frozen=True)
class Unit:
    """What one worker does at once.

    Attributes:
        kind: `describe` loads a pair for the first time; `record` makes traces; `costs` measures; `rows` makes rows.
        engine: `replay` or `live`.
        work: with the prompts, or the rows, of this unit alone.
    """

    kind: str
    engine: str
    work: Work

    @property
    def amount(self) -> int:
        """How much it is: prompts, or rows."""
        if self.kind == ROWS:
            return sum(map(len, self.work.due.values()))
        return len(self.work.prompts) if self.kind == RECORD else 1

    def without(self, done: Mapping[tuple[str, int], frozenset[str]]) -> Unit:
        """What is left of it, once these rows are there."""
        left = {key: prompts - done.get(key, frozenset()) for key, prompts in self.work.due.items()}
        return replace(self, work=replace(self.work, due={key: prompts for key, prompts in left.items() if prompts}))


class Phase(NamedTuple):
    """Units that may run side by side; the next phase wants all of them done."""

    kind: str
    units: list[Unit]


def phases(engine: str, work: Work, workers: int) -> list[Phase]:
    """A work as units, for so many workers."""
    cut = _live(work, workers) if engine == "live" else _replay(work, workers)
    return [phase for phase in cut if phase.units]


def _replay(work: Work, workers: int) -> Iterator[Phase]:
    yield Phase(RECORD, [Unit(RECORD, "replay", replace(work, prompts=some)) for some in shards(work.prompts, workers)])
    cost = work.combinations[0].settings.cost
    if cost.measure != "off" and cost.table is None:
        yield Phase(COSTS, [Unit(COSTS, "replay", work)])
    yield Phase(ROWS, [Unit(ROWS, "replay", part) for part in _by_combinations(work, workers)])


def _live(work: Work, workers: int) -> Iterator[Phase]:
    """Fitted trees, drafters that read earlier texts and later turns want texts recorded; batches are made of many
    prompts."""
    later = any(prompt.earlier for prompt in work.prompts)
    read = tuple(
        c for c in work.combinations if later or c.shape.fitted or c.fits_scores or c.pair.drafter.traits.earlier
    )
    parts = shards(work.prompts, workers)
    if read:
        yield Phase(RECORD, [Unit(RECORD, "replay", replace(work, combinations=read, prompts=some)) for some in parts])
    alone = [c for c in work.combinations if c.settings.batch == 1]
    together = [c for c in work.combinations if c.settings.batch > 1]
    units = [Unit(ROWS, "live", part) for some in parts
             if (part := _due(work, alone, {prompt.prompt_id for prompt in some})).due]  # fmt: skip
    units += [Unit(ROWS, "live", part) for one in together if (part := _due(work, [one])).due]
    yield Phase(ROWS, units)


def shards(prompts: Sequence[Prompt], workers: int) -> list[tuple[Prompt, ...]]:
    """Prompts in groups of like number, all turns of one in the same group: one for each worker at least, where there
    are as many."""
    by_id: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_id.setdefault(turn_of_name(prompt.prompt_id).prompt_id, []).append(prompt)
    whole = [*by_id.values()]
    count = min(len(whole), max(workers, -(-len(whole) // RECORDED_AT_ONCE)))
    return [tuple(prompt for turns in whole[number::count] for prompt in turns) for number in range(count)]


def _by_combinations(work: Work, workers: int) -> Iterator[Work]:
    """Works due of some combinations each. What is fitted, or measured of scores, is so for all of a text at once."""
    for group in by_texts(work.combinations, work.repeats):
        static = tuple(one for one in group.combinations if not _at_once(one))
        whole = _due(work, filter(_at_once, group.combinations), repeats=group.repeats)
        if whole.due:
            yield whole
        due = [one for one in largest_first(static) if work.due_rows(one, group.repeats)]
        count = min(len(due), workers * UNITS_OF_A_WORKER)
        for number in range(count):  # trees that share their work stay together
            some = due[number * len(due) // count : (number + 1) * len(due) // count]
            yield replace(_due(work, some, repeats=group.repeats), combinations=static)


def _at_once(combination: Combination) -> bool:
    """Whether its rows want what is made of a text for several combinations together."""
    return combination.fits_scores or combination.pruning.prunes or combination.together.dynamic


def _due(
    work: Work, combinations: Iterable[Combination], prompts: set[str] | None = None, repeats: range | None = None
) -> Work:
    """The same work, due of these combinations alone, on these prompts, in these repeats."""
    names = {combination.identifier for combination in combinations}
    due: Due = {
        (name, repeat): some
        for (name, repeat), all_of_it in work.due.items()
        if name in names and (repeats is None or repeat in repeats)
        and (some := all_of_it if prompts is None else all_of_it & prompts)
    }  # fmt: skip
    return replace(work, due=due)
