"""Given trees along a pair's trajectories, each node with its probability: read from the store, or scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specdraft.drafters.base import Described, Expansion, GivenTrees, RecordedText
from specdraft.drafters.pair import Pair
from specdraft.errors import ResultsError
from specdraft.prediction.predictor import Predictor
from specdraft.prediction.rows import tree_features
from specdraft.prediction.survival import cumulative
from specdraft.prediction.tree_walks import depths
from specdraft.traces.library import PairTraces, both_models, drafter_name, lengths_of, recorded_texts
from specdraft.traces.recorder import Recorder, read_trace
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch


@dataclass(frozen=True)
class ScoredTrees:
    """Trees of some prompts.

    Attributes:
        pair: whose drafter scores them.
        prompts: prompt id -> token ids.
        traces: of these prompts.
        store: where traces are kept.
        trees: of each prompt, at every start.
        temperatures: of each prompt.
        predictors: what says a node's chance in each prompt in place of its own probability; none: nothing does.
    """

    pair: Pair
    prompts: Mapping[str, Sequence[int]]
    traces: PairTraces
    store: TraceStore
    trees: Mapping[str, GivenTrees]
    temperatures: Mapping[str, float]
    predictors: Mapping[str, Predictor] = field(default_factory=dict)

    def record(self, recorded: Callable[[str], None] = lambda what: None, watch: Watch = UNWATCHED) -> None:
        """Score what is missing; each prompt's trees are stored as soon as they are scored."""
        every = lengths_of({name: self.prompts[name] for name in self.trees}, self.traces)
        lengths = {
            name: length
            for name, length in every.items()
            if read_trace(Expansion, self.store.get(self._about(name))) is None
        }

        def scored(some: Sequence[str]) -> Iterator[tuple[str, Expansion]]:
            alike: dict[float, list[str]] = {}
            for name in some:
                alike.setdefault(self.temperatures[name], []).append(name)
            for temperature, names in alike.items():
                recorded = [(self.prompts[name], self.traces.trajectories[name]) for name in names]
                texts, trees = recorded_texts(self.pair, recorded), [self.trees[name] for name in names]
                found = self.pair.drafter.score(texts, trees, temperature, bool(self.predictors))
                yield from zip(names, map(self._told, names, found, texts), strict=True)

        def keep(name: str, scores: Expansion) -> None:
            self.store.put(self._about(name), scores._asdict())

        note = f"scored the drafted nodes along {{}} trajectories with {drafter_name(self.pair.files)}"
        Recorder(self.pair, self.store, recorded, watch).record("score", lengths, scored, keep, note)

    def of(self, name: str) -> Expansion:
        """One prompt's. Raises `ResultsError` where it is gone from the store."""
        found: Expansion | None = read_trace(Expansion, self.store.get(self._about(name)))
        if found is None:
            raise ResultsError(f"{self.store.folder}: a trace that was there is gone; run the same command again")
        return found

    def _told(self, name: str, trees: Described, text: RecordedText) -> Expansion:
        """A prompt's trees with what its predictor says of their nodes' survival, if there is one."""
        if not self.predictors or trees.nodes is None:
            return trees.expansion
        conditional = self.predictors[name].log_conditional(tree_features(trees.expansion, trees.nodes, text))
        parent = trees.expansion.parent
        survival = cumulative(parent.astype(np.int64), depths(parent), conditional)
        return trees.expansion._replace(log_prob=survival)

    def _about(self, name: str) -> dict[str, Any]:
        return {
            "kind": "scored_trees",
            "annotation": self.traces.keys[name],
            **both_models(self.pair),
            "trees": _digest(self.trees[name]),
            "temperature": self.temperatures[name],
            **({"predictor": self.predictors[name].digest} if self.predictors else {}),
        }


def _digest(trees: GivenTrees) -> str:
    digest = hashlib.sha256(str(trees.parent.shape).encode())
    for values in trees:
        digest.update(np.ascontiguousarray(values, dtype=np.int64).tobytes())
    return digest.hexdigest()
