"""The traces of a pair on a set of prompts: read from the store, recorded where they are missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, NamedTuple, TypeVar

from specdraft.decoding.ending import Ending
from specdraft.decoding.text_seeds import text_generator
from specdraft.drafters.base import TOP_K, Annotation, Described, Expansion, NodeFeatures, RecordedText
from specdraft.drafters.pair import Pair, PairFiles
from specdraft.errors import ResultsError
from specdraft.models.facts import facts_of_files
from specdraft.models.files import ModelFiles
from specdraft.models.server.served_files import ServedFiles
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import seeded
from specdraft.traces.record import GREEDY, Trajectory, record_trajectories
from specdraft.traces.recorder import Recorder, StepsOfBatch, read_trace
from specdraft.traces.rule_records import Part, RuleRecords, record_rules
from specdraft.traces.served import served_trajectories
from specdraft.traces.store import StoredTrace, TraceStore, libraries
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.shapes import NestedPlan
from specdraft.trees.topology import Topology

Trace = TypeVar("Trace", Expansion, NodeFeatures)


@dataclass(frozen=True)
class PairTraces:
    """What was recorded for one pair, by prompt id; `keys` names the annotations in the store.

    `records` are there of sampled trajectories only, where rules were asked for, of drafters with probabilities; `tree`
    has all nodes of which some rules kept numbers.
    """

    trajectories: dict[str, Trajectory]
    annotations: dict[str, Annotation]
    keys: dict[str, str]
    records: dict[str, RuleRecords] = field(default_factory=dict)
    greedy: bool = True
    tree: Topology | None = None


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
    parts: Sequence[Part] | None = None,
    tree: Topology | None = None,
) -> PairTraces:
    """Trajectories and annotations of every prompt; each is stored as soon as it is there.

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
        parts: where texts are sampled, what is recorded for rules, each once; None: nothing of the kind.
        tree: of rules that keep numbers by node, all nodes that will be asked for.
    """
    store = _labelled(store, pair, prompts)
    recorder = Recorder(pair, store, recorded, watch)
    abouts = {name: about_trajectory(pair, ids, sampling, ending, draw) for name, ids in prompts.items()}
    trajectories = _trajectories(recorder, abouts, pair, prompts, sampling, ending, draw, watch)
    target, drafter = pair.files.target.spec.path, drafter_name(pair.files)
    about_annotations = {
        name: _about_annotation(pair, store.key(about), trajectories[name]) for name, about in abouts.items()
    }

    def read(some: Sequence[str]) -> list[RecordedText]:
        return recorded_texts(pair, [(prompts[name], trajectories[name]) for name in some])

    def ranks(some: Sequence[str]) -> Iterator[tuple[str, Annotation]]:
        yield from zip(some, pair.drafter.annotate(read(some)), strict=True)

    lengths = _lengths(prompts, trajectories)
    note = f"annotated {{}} trajectories with {drafter}"
    annotations = recorder.complete(Annotation, about_annotations, lengths, ranks, note)
    keys = {name: store.key(about) for name, about in about_annotations.items()}
    if sampling.greedy or parts is None or not pair.traits.probabilities:
        return PairTraces(trajectories, annotations, keys, greedy=sampling.greedy)

    def judged(some: Sequence[str], by: Sequence[Part]) -> Iterator[tuple[str, RuleRecords]]:
        histories = [seeded("history", keys[name]) for name in some]
        records = record_rules(pair.target, pair.drafter, read(some), sampling, by, children, histories, tree)
        yield from zip(some, records, strict=True)

    def about_records(name: str, part: Part) -> dict[str, Any]:
        wide: dict[str, Any] = {"children": children} if "child" in part.arrays.values() else {}
        wide |= {"tree": _digest(tree.paths)} if tree is not None and part.by_node else {}
        about = {"kind": "rule_records", "of": part.name, "arrays": list(part.arrays), "annotation": keys[name]}
        return about | wide | both_models(pair)

    note = f"judged {{}} sampled texts of {target} with {drafter}"
    records = recorder.complete_records(parts, about_records, lengths, judged, note)
    return PairTraces(trajectories, annotations, keys, records, sampling.greedy, tree)


def pair_trajectories(
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    sampling: Sampling,
    ending: Ending,
    store: TraceStore,
    recorded: Callable[[str], None] = lambda what: None,
    draw: str = "",
    watch: Watch = UNWATCHED,
) -> dict[str, Trajectory]:
    """The target's texts of every prompt, without what a drafter says along them; see `pair_traces`."""
    recorder = Recorder(pair, _labelled(store, pair, prompts), recorded, watch)
    abouts = {name: about_trajectory(pair, ids, sampling, ending, draw) for name, ids in prompts.items()}
    return _trajectories(recorder, abouts, pair, prompts, sampling, ending, draw, watch)


def _trajectories(
    recorder: Recorder,
    abouts: Mapping[str, Mapping[str, Any]],
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    sampling: Sampling,
    ending: Ending,
    draw: str,
    watch: Watch,
) -> dict[str, Trajectory]:
    def asked(some: Sequence[str]) -> Iterator[tuple[str, Any]]:
        assert isinstance(files, ServedFiles)
        for name, trajectory in served_trajectories(files, {n: prompts[n] for n in some}, ending, pair.files.chats):
            yield name, trajectory
            watch.done(ending.max_new_tokens)

    def texts(some: Sequence[str]) -> Iterator[tuple[str, Trajectory]]:
        generators = [] if sampling.greedy else [text_generator(pair, sampling, prompts[name], draw) for name in some]
        listed, steps = [prompts[name] for name in some], StepsOfBatch(watch, len(some) * ending.max_new_tokens)
        for row, trajectory in record_trajectories(pair.target, listed, ending, sampling, generators, steps.gained):
            yield some[row], trajectory
        steps.end()

    files = pair.files.target
    longest = {name: len(ids) + ending.max_new_tokens for name, ids in prompts.items()}
    note = f"recorded {{}} trajectories of {files.spec.path}"
    if files.spec.served:
        return recorder.complete(Trajectory, abouts, longest, asked, note, ending)
    return recorder.complete(Trajectory, abouts, longest, texts, note, ending)


def _labelled(store: TraceStore, pair: Pair, prompts: Mapping[str, Sequence[int]]) -> TraceStore:
    prompt_ids = {_prompt_digest(ids): name for name, ids in prompts.items()}
    files = pair.files.target
    target = f"{files.identity.model} (served)" if isinstance(files, ServedFiles) else files.spec.path
    return store.labelled(prompt_ids, target=target, draft=drafter_name(pair.files))


def lengths_of(prompts: Mapping[str, Sequence[int]], traces: PairTraces) -> dict[str, int]:
    """Tokens of each prompt and what follows it."""
    return _lengths(prompts, traces.trajectories)


def _lengths(prompts: Mapping[str, Sequence[int]], trajectories: Mapping[str, Trajectory]) -> dict[str, int]:
    return {name: len(ids) + len(trajectories[name].tokens) for name, ids in prompts.items()}


def drafter_name(files: PairFiles) -> str:
    """The drafter in a line for people: its weights, or its label where it has none."""
    if files.draft is None:
        return f"drafter={files.drafter.label}"
    return " and ".join([files.draft.spec.path, *(path.name for path in files.draft.beside)])


def recorded_texts(pair: Pair, recorded: Sequence[tuple[Sequence[int], Trajectory]]) -> list[RecordedText]:
    """A batch of prompts with their trajectories as the pair's drafter reads them: with the states that it asks for."""
    layers = pair.drafter.traits.hidden_layers
    prompts, tokens = [prompt for prompt, _ in recorded], [trajectory.tokens for _, trajectory in recorded]
    if not layers:
        return [RecordedText(*text) for text in zip(prompts, tokens, strict=True)]
    states = pair.target.states_along(prompts, tokens, layers)
    return [RecordedText(*text) for text in zip(prompts, tokens, states, strict=True)]


class Expansions:
    """Best-first trees along a pair's trajectories: read from the store, drafted where they are missing.

    Args:
        pair: whose drafter grows the trees.
        prompts: prompt id -> token ids.
        traces: of these prompts.
        plans: each prompt's: the largest budget, the limits and the temperature.
        store: where traces are kept.
        described: what predictors learn from is recorded too.
    """

    def __init__(
        self,
        pair: Pair,
        prompts: Mapping[str, Sequence[int]],
        traces: PairTraces,
        plans: Mapping[str, NestedPlan],
        store: TraceStore,
        described: bool = False,
    ) -> None:
        self._pair, self._prompts, self._traces, self._plans, self._store = pair, prompts, traces, plans, store
        self.described = described

    def record(self, recorded: Callable[[str], None] = lambda what: None, watch: Watch = UNWATCHED) -> None:
        """Draft what is missing; each prompt's trees are stored as soon as they are grown."""
        trajectories = self._traces.trajectories
        lengths = {
            name: length for name, length in _lengths(self._prompts, trajectories).items() if self._missing(name)
        }

        def grown(some: Sequence[str]) -> Iterator[tuple[str, Described]]:
            alike: dict[NestedPlan, list[str]] = {}
            for name in some:
                alike.setdefault(self._plans[name], []).append(name)
            for plan, names in alike.items():
                texts = recorded_texts(self._pair, [(self._prompts[name], trajectories[name]) for name in names])
                yield from zip(names, self._trees(texts, plan), strict=True)

        def keep(name: str, trees: Described) -> None:
            self._store.put(self._about(name), trees.expansion._asdict())
            if trees.nodes is not None:
                self._store.put(self._about_nodes(name), trees.nodes._asdict())

        note = f"drafted best-first trees along {{}} trajectories with {drafter_name(self._pair.files)}"
        Recorder(self._pair, self._store, recorded, watch).record("expand", lengths, grown, keep, note)

    def _trees(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Described]:
        drafter = self._pair.drafter
        return drafter.describe_trees(texts, plan) if self.described else map(Described, drafter.expand(texts, plan))

    def of(self, name: str) -> Expansion:
        """One prompt's. Raises `ResultsError` where it is gone from the store."""
        found: Expansion | None = read_trace(Expansion, self._store.get(self._about(name)))
        return self._there(found)

    def nodes_of(self, name: str) -> NodeFeatures:
        """What the drafter said in one prompt's trees, where that was recorded too. Raises as `of`."""
        found: NodeFeatures | None = read_trace(NodeFeatures, self._store.get(self._about_nodes(name)))
        return self._there(found)

    def _there(self, trace: Trace | None) -> Trace:
        if trace is None:
            raise ResultsError(f"{self._store.folder}: a trace that was there is gone; run the same command again")
        return trace

    def _missing(self, name: str) -> bool:
        kinds = {Expansion: self._about(name)} | ({NodeFeatures: self._about_nodes(name)} if self.described else {})
        return any(read_trace(kind, self._store.get(about)) is None for kind, about in kinds.items())

    def _about_nodes(self, name: str) -> dict[str, Any]:
        return self._about(name) | {"kind": "node_features"}

    def _about(self, name: str) -> dict[str, Any]:
        plan = self._plans[name]
        return {
            "kind": "expansion",
            "annotation": self._traces.keys[name],
            **both_models(self._pair),
            "budget": plan.nodes,
            "max_depth": plan.depth,
            "max_children": plan.max_children,
            **_grown_by(plan),
        }


GROWN_BY = ("temperature", "predictor", "top_p", "margin", "beam", "searched")


def _grown_by(plan: NestedPlan) -> dict[str, Any]:
    """What a plan's trees depend on, beside the drafter and their limits."""
    assert plan.temperature is not None, "its temperature is fitted first"
    scored: dict[str, Any] = {} if plan.temperature == 1 else {"temperature": plan.temperature}
    scored |= {"predictor": plan.scorer.name} if plan.scorer else {}
    scored |= {} if plan.top_p == 1 else {"top_p": plan.top_p}
    scored |= {} if plan.margin == inf else {"margin": plan.margin}
    scored |= {} if plan.beam is None else {"beam": plan.beam}
    return scored | ({"searched": True} if plan.searched else {})


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
            text = read_trace(Trajectory, store.get(trajectory.about))
            ranks = read_trace(Annotation, store.get(annotation.about))
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
        alike = {name: trace.about[name] for name in GROWN_BY if name in trace.about} == _grown_by(plan)
        if _says(trace.about, wanted) and alike and trace.about["budget"] >= plan.nodes:
            levels = trace.about["max_depth"]
            unlimited = levels == trace.about["budget"] <= plan.max_depth
            if (levels == plan.max_depth or unlimited) and (
                expansion := read_trace(Expansion, store.get(trace.about))
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
    told = facts.get("drafter", files.drafter.parameters)  # of weights that several drafters may share
    return bool(facts.get("weights") == files.draft.weights_hash and told == files.drafter.parameters)


def both_models(pair: Pair) -> dict[str, Any]:
    """What a trace depends on of both models."""
    return {"target": pair.target_facts, "draft": pair.draft_facts}


def unrecorded(files: ModelFiles, prompts: Mapping[str, Sequence[int]], ending: Ending, store: TraceStore) -> list[str]:
    """The prompts whose greedy text is not in the store."""
    abouts = {name: _about_text(facts_of_files(files), ids, GREEDY, ending, "") for name, ids in prompts.items()}
    return [name for name, about in abouts.items() if read_trace(Trajectory, store.get(about), ending) is None]


def about_trajectory(
    pair: Pair, prompt_ids: Sequence[int], sampling: Sampling, ending: Ending, draw: str
) -> dict[str, Any]:
    """Everything that a trajectory depends on."""
    return _about_text(pair.target_facts, prompt_ids, sampling, ending, draw)


def _about_text(
    target: dict[str, Any], prompt_ids: Sequence[int], sampling: Sampling, ending: Ending, draw: str
) -> dict[str, Any]:
    drawn = {} if sampling.greedy else {"draw": draw}
    return drawn | {
        "kind": "trajectory",
        "target": target,
        "sampling": asdict(sampling),
        "prompt": _prompt_digest(prompt_ids),
        "prompt_tokens": len(prompt_ids),
        "max_new_tokens": ending.max_new_tokens,
        "eos_ids": sorted(ending.eos_ids),
        "libraries": libraries(),
    }


def _prompt_digest(prompt_ids: Sequence[int]) -> str:
    return _digest(list(prompt_ids))


def _digest(listed: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


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
