"""What is missing in the store is recorded, batch by batch, and stored trace by trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair
from specdraft.models.memory import tokens_that_fit
from specdraft.models.placement import device_type_of
from specdraft.traces.batches import READ_TOKENS, Record, batches, in_memory, most_rows
from specdraft.traces.rule_records import Part, RuleRecords
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import Watch

Trace = TypeVar("Trace", bound=NamedTuple)


class StepsOfBatch:
    """Tells how far a batch of texts is, in tokens.

    Args:
        watch: who is told.
        most: tokens that the batch has at most; texts that end early count as whole ones.
    """

    def __init__(self, watch: Watch, most: int) -> None:
        self._watch, self._left, self._ready = watch, most, False

    def gained(self, tokens: int) -> None:
        """So many tokens more; the first ones come with the prompts."""
        if self._ready:
            self._left -= tokens
            self._watch.done(tokens)
        else:
            self._ready = True
            self._watch.ready(self._left)

    def end(self) -> None:
        """The texts are there."""
        self._watch.done(self._left)


class Recorder:
    """Reads traces of some prompts from the store, and records in batches what is missing; each trace is stored as soon
    as it is there."""

    def __init__(self, pair: Pair, store: TraceStore, recorded: Callable[[str], None], watch: Watch) -> None:
        self._pair, self._store, self._recorded, self._watch = pair, store, recorded, watch

    def complete(
        self,
        kind: type[Trace],
        abouts: Mapping[str, Mapping[str, Any]],
        lengths: Mapping[str, int],
        record: Record[Trace],
        note: str,
        ending: Ending | None = None,
        stage: str = "annotate",
    ) -> dict[str, Trace]:
        """Every prompt's trace of one kind.

        Args:
            kind: what a trace holds.
            abouts: what each prompt's trace depends on.
            lengths: tokens of each text.
            record: makes the traces of a batch.
            note: what to say of a batch; `{}` is how many.
            ending: of texts that are continued; see `read_trace`.
            stage: what reading texts is called.
        """
        stored = {name: read_trace(kind, self._store.get(about), ending) for name, about in abouts.items()}
        traces: dict[str, Trace] = {name: trace for name, trace in stored.items() if trace is not None}

        def keep(name: str, trace: Trace) -> None:
            self._store.put(abouts[name], trace._asdict())
            traces[name] = trace

        missing = {name: lengths[name] for name in abouts if name not in traces}
        if ending is None:
            self.record(stage, missing, record, keep, note)
        else:
            self._watch.stage("record", len(missing) * ending.max_new_tokens, "tokens")
            self._in_batches(missing, record, keep, note)
        return {name: traces[name] for name in abouts}

    def complete_records(
        self,
        parts: Sequence[Part],
        about: Callable[[str, Part], dict[str, Any]],
        lengths: Mapping[str, int],
        judge: Callable[[Sequence[str], Sequence[Part]], Iterator[tuple[str, RuleRecords]]],
        note: str,
    ) -> dict[str, RuleRecords]:
        """Every prompt's records of some parts: of a part that was asked for before nothing is recorded again.

        Args:
            parts: each once.
            about: what a prompt's record of a part depends on.
            lengths: tokens of each text.
            judge: makes the records of a batch, of some of the parts.
            note: what to say of a batch; `{}` is how many.
        """
        records: dict[str, RuleRecords] = {name: {} for name in lengths}
        alike: dict[tuple[str, ...], dict[str, int]] = {}  # parts that are missing -> of which prompts
        for name, length in lengths.items():
            stored = {part.name: self._store.get(about(name, part)) for part in parts}
            for tensors in stored.values():
                records[name] |= tensors or {}
            if missing := tuple(part for part, tensors in stored.items() if tensors is None):
                alike.setdefault(missing, {})[name] = length

        def keep(name: str, judged: RuleRecords) -> None:
            for part in parts:
                if part.arrays.keys() <= judged.keys():
                    self._store.put(about(name, part), {array: judged[array] for array in part.arrays})
            records[name] |= judged

        self._watch.stage("judge", sum(map(len, alike.values())), "prompts")
        for missing, some in alike.items():
            by = [part for part in parts if part.name in missing]
            self._read(some, lambda names, by=by: judge(names, by), keep, note)  # type: ignore[misc]
        return records

    def record(
        self, stage: str, lengths: Mapping[str, int], record: Record[Any], keep: Callable[[str, Any], None], note: str
    ) -> None:
        """A stage that reads texts of these lengths in batches; `keep` is called with each as soon as it is there."""
        self._watch.stage(stage, len(lengths), "prompts")
        self._read(lengths, record, keep, note)

    def _read(
        self, lengths: Mapping[str, int], record: Record[Any], keep: Callable[[str, Any], None], note: str
    ) -> None:
        def keep_and_tell(name: str, trace: Any) -> None:
            keep(name, trace)
            self._watch.done(1)

        self._in_batches(lengths, record, keep_and_tell, note, READ_TOKENS)

    def _in_batches(
        self,
        lengths: Mapping[str, int],
        record: Record[Any],
        keep: Callable[[str, Any], None],
        note: str,
        most: int | None = None,
    ) -> None:
        if not lengths:
            return  # no model is needed
        for some in self._batches(lengths, most):
            for name, trace in in_memory(record, some):
                keep(name, trace)
            self._recorded(note.format(len(some)))

    def _batches(self, lengths: Mapping[str, int], most: int | None) -> Iterator[list[str]]:
        """What goes through the models side by side; a server is told of all at once."""
        files = self._pair.files
        runs = files.draft if files.target.spec.served else files.target
        if most is None and files.target.spec.served:
            return iter([list(lengths)])
        if runs is None:
            return batches(lengths, most_rows("cpu"), READ_TOKENS)
        fitting = tokens_that_fit(runs)
        return batches(lengths, most_rows(device_type_of(runs)), min(fitting, most or fitting))


def read_trace(kind: Any, tensors: dict[str, np.ndarray] | None, ending: Ending | None = None) -> Any:
    """The tensors as `kind`, or None where they are not a whole trace of that kind."""
    if tensors is None or not set(kind._fields) <= tensors.keys():
        return None
    trace = kind(**{name: tensors[name] for name in kind._fields})  # what earlier versions kept besides is left out
    if ending is not None and not ending.reached(len(trace.tokens), int(trace.tokens[-1])):
        return None
    return trace
