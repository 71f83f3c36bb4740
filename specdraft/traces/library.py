"""The traces of a pair on a set of prompts: read from the store, recorded where they are missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from specdraft.decoding.decode import Ending
from specdraft.decoding.text_seeds import text_generator
from specdraft.drafters.base import TOP_K, Annotation, Expansion, RecordedText
from specdraft.drafters.pair import Pair, PairFiles
from specdraft.errors import ResultsError
from specdraft.models.files import ModelFiles
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import seeded
from specdraft.traces.record import Trajectory, batches, record_trajectories
from specdraft.traces.rule_records import RuleRecords, record_arrays, record_rules
from specdraft.traces.store import StoredTrace, TraceStore, libraries
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.shapes import NestedPlan

BATCH = 16
Trace = TypeVar("Trace", Trajectory, Annotation, RuleRecords)


@dataclass(frozen=True)
class PairTraces:
    """What was recorded for one pair, by prompt id; `keys` names the annotations in the store.

    `records` are there for sampled trajectories only, of drafters with probabilities.
    """

    trajectories: dict[str, Trajectory]
    annotations: dict[str, Annotation]
    keys: dict[str, str]
    records: dict[str, RuleRecords] = field(default_factory=dict)
    greedy: bool = True


def pair_traces(
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    sampling: Sampling,
    ending: Ending,
    store: TraceStore,
    recorded: Callable[[str], None] = lambda what: None,
    draw: str = "",
    children: int = 1,
    watch: Watch = UNWATCHED,
) -> PairTraces:
    """Trajectories and annotations of every prompt; each batch is stored as soon as it is recorded.

    Args:
        pair: target and drafter; the trajectory depends on the target alone.
        prompts: prompt id -> token ids.
        sampling: how the target chooses tokens.
        ending: when a continuation is over.
        store: where traces are kept.
        recorded: called with a line of text for each batch that had to be recorded.
        draw: which of the sampled texts of a prompt (the study's seed and the repeat).
        children: where texts are sampled, the most children of one node that will be asked for.
        watch: told of the stages record, annotate and judge.
    """
    prompt_ids = {_prompt_digest(ids): name for name, ids in prompts.items()}
    store = store.labelled(prompt_ids, target=pair.files.target.spec.path, draft=drafter_name(pair.files))
    store_all = _Stored(store, prompts, recorded)
    abouts = {name: _about_trajectory(pair, ids, sampling, ending, draw) for name, ids in prompts.items()}

    def texts(some: Sequence[str]) -> list[Trajectory]:
        generators = [] if sampling.greedy else [text_generator(pair, sampling, prompts[name], draw) for name in some]
        steps = _StepsOfBatch(watch, len(some) * ending.max_new_tokens)
        made = record_trajectories(
            pair.target, [prompts[name] for name in some], ending, sampling, generators, steps.gained
        )
        steps.end()
        return made

    target, drafter = pair.files.target.spec.path, drafter_name(pair.files)
    note = f"recorded {{}} trajectories of {target}"
    trajectories = store_all.complete(
        Trajectory, abouts, texts, note, lambda n: watch.stage("record", n * ending.max_new_tokens, "tokens"), ending
    )
    about_annotations = {
        name: _about_annotation(pair, store.key(about), trajectories[name]) for name, about in abouts.items()
    }

    def ranks(some: Sequence[str]) -> list[Annotation]:
        made = pair.drafter.annotate(recorded_texts(pair, [(prompts[name], trajectories[name]) for name in some]))
        watch.done(len(some))
        return made

    note = f"annotated {{}} trajectories with {drafter}"
    annotations = store_all.complete(
        Annotation, about_annotations, ranks, note, lambda n: watch.stage("annotate", n, "prompts")
    )
    keys = {name: store.key(about) for name, about in about_annotations.items()}
    if sampling.greedy or not pair.traits.probabilities:
        return PairTraces(trajectories, annotations, keys, greedy=sampling.greedy)

    def judged(some: Sequence[str]) -> list[RuleRecords]:
        histories = [seeded("history", keys[name]) for name in some]
        texts = recorded_texts(pair, [(prompts[name], trajectories[name]) for name in some])
        made = record_rules(pair.target, pair.drafter, texts, sampling, children, histories)
        watch.done(len(some))
        return made

    about = {"kind": "rule_records", "arrays": list(record_arrays()), "children": children} | _both_models(pair)
    about_records = {name: about | {"annotation": key} for name, key in keys.items()}
    note = f"judged {{}} sampled texts of {target} with {drafter}"
    records = store_all.complete(RuleRecords, about_records, judged, note, lambda n: watch.stage("judge", n, "prompts"))
    return PairTraces(trajectories, annotations, keys, records, sampling.greedy)


def drafter_name(files: PairFiles) -> str:
    """The drafter in a line for people: its weights, or its label where it has none."""
    return files.draft.spec.path if files.draft else f"drafter={files.drafter.label}"


def recorded_texts(pair: Pair, recorded: Sequence[tuple[Sequence[int], Trajectory]]) -> list[RecordedText]:
    """A batch of prompts with their trajectories as the pair's drafter reads them: with the states that it asks for."""
    layers = pair.traits.hidden_layers
    prompts, tokens = [prompt for prompt, _ in recorded], [trajectory.tokens for _, trajectory in recorded]
    if not layers:
        return [RecordedText(*text) for text in zip(prompts, tokens, strict=True)]
    states = (forward.hidden for forward in pair.target.along(prompts, tokens, layers))
    return [RecordedText(*text) for text in zip(prompts, tokens, states, strict=True)]


class _StepsOfBatch:
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


class _Stored:
    """Traces of some prompts: read from the store, recorded in batches where they are missing."""

    def __init__(
        self, store: TraceStore, prompts: Mapping[str, Sequence[int]], recorded: Callable[[str], None]
    ) -> None:
        self._store, self._recorded = store, recorded
        self._by_length = sorted(prompts, key=lambda name: len(prompts[name]))  # little padding within a batch

    def complete(
        self,
        kind: type[Trace],
        abouts: Mapping[str, Mapping[str, Any]],
        record: Callable[[Sequence[str]], list[Trace]],
        note: str,
        begin: Callable[[int], None],
        ending: Ending | None = None,
    ) -> dict[str, Trace]:
        """Every prompt's trace of one kind; each batch is stored as soon as it is recorded.

        Args:
            kind: what a trace holds.
            abouts: what each prompt's trace depends on.
            record: makes the traces of a batch.
            note: what to say of a batch; `{}` is how many.
            begin: told before the first batch how many are missing.
            ending: see `_read`.
        """
        traces: dict[str, Trace | None] = {
            name: _read(kind, self._store.get(about), ending) for name, about in abouts.items()
        }
        missing = [name for name in self._by_length if traces[name] is None]
        begin(len(missing))
        for some in batches(missing, BATCH):
            for name, trace in zip(some, _in_memory(record, some), strict=True):
                self._store.put(abouts[name], trace if isinstance(trace, dict) else trace._asdict())
                traces[name] = trace
            self._recorded(note.format(len(some)))
        return {name: trace for name, trace in traces.items() if trace is not None}


class Expansions:
    """Best-first trees along a pair's trajectories: read from the store, drafted where they are missing.

    Args:
        pair: whose drafter grows the trees.
        prompts: prompt id -> token ids.
        traces: of these prompts.
        plan: the largest budget and the limits.
        store: where traces are kept.
    """

    def __init__(
        self,
        pair: Pair,
        prompts: Mapping[str, Sequence[int]],
        traces: PairTraces,
        plan: NestedPlan,
        store: TraceStore,
    ) -> None:
        self._pair, self._prompts, self._traces, self._plan, self._store = pair, prompts, traces, plan, store

    def record(self, recorded: Callable[[str], None] = lambda what: None, watch: Watch = UNWATCHED) -> None:
        """Draft what is missing; each prompt's trees are stored as soon as they are grown."""
        missing = [name for name in self._prompts if _read(Expansion, self._store.get(self._about(name))) is None]
        watch.stage("expand", len(missing), "prompts")
        for some in batches(missing, BATCH):
            for name in some:
                (text,) = recorded_texts(self._pair, [(self._prompts[name], self._traces.trajectories[name])])
                self._store.put(self._about(name), self._pair.drafter.expand(text, self._plan)._asdict())
                watch.done(1)
            recorded(f"drafted best-first trees along {len(some)} trajectories with {drafter_name(self._pair.files)}")

    def of(self, name: str) -> Expansion:
        """One prompt's. Raises `ResultsError` where it is gone from the store."""
        expansion: Expansion | None = _read(Expansion, self._store.get(self._about(name)))
        if expansion is None:
            raise ResultsError(f"{self._store.folder}: a trace that was there is gone; run the same command again")
        return expansion

    def _about(self, name: str) -> dict[str, Any]:
        return {
            "kind": "expansion",
            "annotation": self._traces.keys[name],
            **_both_models(self._pair),
            "budget": self._plan.nodes,
            "max_depth": self._plan.depth,
            "max_children": self._plan.max_children,
        }


class FoundTraces(NamedTuple):
    """What the store holds of one prompt without a model at hand; `expansion` for best-first trees that were asked
    for."""

    trajectory: Trajectory
    annotation: Annotation
    expansion: Expansion | None


def find_traces(
    files: PairFiles,
    prompt_ids: Sequence[int],
    sampling: Sampling,
    max_new_tokens: int,
    store: TraceStore,
    draw: str = "",
    plan: NestedPlan | None = None,
) -> FoundTraces | None:
    """The recorded trajectory of a prompt with its annotation, on whatever device and with whatever library versions
    it was recorded.

    Arguments as `pair_traces`; `plan` asks for best-first trees too. None where something is missing.
    """
    same = {
        "kind": "trajectory",
        "sampling": asdict(sampling),
        "prompt": _prompt_digest(prompt_ids),
        "max_new_tokens": max_new_tokens,
        **({} if sampling.greedy else {"draw": draw}),
    }
    traces = [trace for trace in store.list() if trace.about["kind"] in ("trajectory", "annotation", "expansion")]
    for trajectory in (
        trace for trace in traces if _says(trace.about, same) and _weighs(trace.about, "target", files.target)
    ):
        for annotation in (t for t in traces if _says(t.about, {"kind": "annotation", "trajectory": trajectory.key})):
            if not _drafts(annotation.about, files):
                continue
            text = _read(Trajectory, store.get(trajectory.about))
            ranks = _read(Annotation, store.get(annotation.about))
            expansion = _find_expansion(traces, annotation.key, store, plan) if plan else None
            if text and ranks and (expansion or not plan):
                return FoundTraces(text, ranks, expansion)
    return None


def _find_expansion(
    traces: Sequence[StoredTrace], annotation: str, store: TraceStore, plan: NestedPlan
) -> Expansion | None:
    """Trees of this budget or a larger one, with limits that give the same trees."""
    wanted = {"kind": "expansion", "annotation": annotation, "max_children": plan.max_children}
    for trace in traces:
        if _says(trace.about, wanted) and trace.about["budget"] >= plan.nodes:
            levels = trace.about["max_depth"]
            unlimited = levels == trace.about["budget"] <= plan.max_depth
            if (levels == plan.max_depth or unlimited) and (
                expansion := _read(Expansion, store.get(trace.about))
            ) is not None:
                return Expansion(*expansion)
    return None


def _says(about: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(about.get(key) == value for key, value in wanted.items())


def _weighs(about: Mapping[str, Any], role: str, files: ModelFiles) -> bool:
    return bool(about[role]["weights"] == files.weights_hash)


def _drafts(about: Mapping[str, Any], files: PairFiles) -> bool:
    """Whether an annotation is of this drafter: by its weights, or by its parameters where it has none."""
    facts = about["draft"]
    if files.draft is None:
        return bool(facts.get("drafter") == files.drafter.as_dict())
    return bool(facts.get("weights") == files.draft.weights_hash)


def _both_models(pair: Pair) -> dict[str, Any]:
    """What a trace depends on of both models."""
    return {"target": pair.target_facts, "draft": pair.draft_facts}


def _in_memory(record: Callable[[Sequence[str]], list[Any]], some: Sequence[str]) -> list[Any]:
    """Record a batch; where the GPU's memory runs out, in halves."""
    try:
        return record(some)
    except torch.cuda.OutOfMemoryError:
        if len(some) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(some) // 2
    return [*_in_memory(record, some[:half]), *_in_memory(record, some[half:])]


def _read(kind: Any, tensors: dict[str, np.ndarray] | None, ending: Ending | None = None) -> Any:
    """The tensors as `kind`, or None where they are not a whole trace of that kind (of records their key tells)."""
    if tensors is None or (kind is not RuleRecords and set(tensors) != set(kind._fields)):
        return None
    trace = kind(**tensors)
    if ending is not None and not ending.reached(len(trace.tokens), int(trace.tokens[-1])):
        return None
    return trace


def _about_trajectory(
    pair: Pair, prompt_ids: Sequence[int], sampling: Sampling, ending: Ending, draw: str
) -> dict[str, Any]:
    """Everything that a trajectory depends on."""
    drawn = {} if sampling.greedy else {"draw": draw}
    return drawn | {
        "kind": "trajectory",
        "target": pair.target_facts,
        "sampling": asdict(sampling),
        "prompt": _prompt_digest(prompt_ids),
        "prompt_tokens": len(prompt_ids),
        "max_new_tokens": ending.max_new_tokens,
        "eos_ids": sorted(ending.eos_ids),
        "libraries": libraries(),
    }


def _prompt_digest(prompt_ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(prompt_ids)).encode()).hexdigest()


def _about_annotation(pair: Pair, trajectory_key: str, trajectory: Trajectory) -> dict[str, Any]:
    """Everything that an annotation depends on; a trajectory recorded again can differ in a near-tie."""
    return {
        "kind": "annotation",
        "trajectory": trajectory_key,
        "tokens": hashlib.sha256(trajectory.tokens.tobytes()).hexdigest(),
        "draft": pair.draft_facts,
        "top_k": TOP_K,
        "libraries": libraries(),
    }
