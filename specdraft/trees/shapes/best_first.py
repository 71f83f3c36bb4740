"""Dynamic trees: in each step the nodes that the drafter itself thinks most likely to be accepted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import inf, log
from typing import Any, ClassVar

from specdraft.config import label
from specdraft.errors import ConfigError, did_you_mean
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.growth import Growth, add_scored
from specdraft.trees.shapes.base import (
    CROSS_FITTED,
    BaseShape,
    DraftView,
    Growing,
    Limits,
    SaidChildren,
    Scorer,
    check_budget,
    check_positive,
)
from specdraft.trees.topology import Topology

SCORES = ("raw", "calibrated", "predictor")
STOPS = ("budget", "goodput")


@dataclass
class BestFirst(BaseShape):
    """The `budget` nodes with the largest cumulative draft probability (EAGLE-2's idea, OPT-Tree's objective).

    A node's cumulative probability is the product of the drafter's probabilities (softmax of its logits over a
    temperature) from the root down to it. Equals: the shallower node first, then the lower rank path.

    Attributes:
        max_depth: draft levels at most; each costs one forward of the drafter.
        max_children: children of one node at most.
        min_prob: nodes with a smaller cumulative probability are left out, so a tree can be smaller than its budget.
        candidate_top_k: of a node's children only so many are considered, the most probable ones (0: all).
        candidate_top_p: of these, by the scores, only the smallest set of so much probability.
        scores: `raw` probabilities (temperature 1), `calibrated` ones, or what a `predictor` says.
        temperature: of calibrated ones; left out: fitted to recorded texts (see `prediction.temperature`).
        predictor: the file of a predictor (see `specdraft fit predictor`); left out: fitted to the study's other
            prompts.
        stop: what ends a tree: its `budget` alone, or before that the `goodput`: of its nodes, the best first, as many
            are sent as make the most expected tokens per second by the pair's measured costs, in each step anew.
    """

    kind: str = "best_first"
    max_depth: int = 8
    max_children: int = 16
    min_prob: float = 0.0
    scores: str = "raw"
    temperature: float | None = None
    candidate_top_k: int = 0
    candidate_top_p: float = 1.0
    predictor: str | None = None
    stop: str = "budget"

    def identity(self) -> dict[str, Any]:
        """See `Shape.identity`: with raw scores and without filters it is what it was before there were any."""
        plain = {"scores": "raw", "temperature": None, "candidate_top_k": 0, "candidate_top_p": 1.0, "predictor": None}
        plain |= {"stop": "budget"}
        return {name: value for name, value in asdict(self).items() if (name, value) not in plain.items()}

    @property
    def label(self) -> str:
        """See `BaseShape.label`: `best_first-calibrated`."""
        kind = self.kind if self.scores == "raw" else f"{self.kind}-{self.scores}"
        filters = [f"-topk{self.candidate_top_k}"] if self.candidate_top_k else []
        filters += [f"-topp{self.candidate_top_p:g}"] if self.candidate_top_p < 1 else []
        others = label(self, "scores", "candidate_top_k", "candidate_top_p", "predictor", "stop").removeprefix(
            self.kind
        )
        return "".join([kind, others, *filters, *([] if self.stop == "budget" else [f"-{self.stop}"])])

    @property
    def fits_scores(self) -> bool:
        """See `Shape.fits_scores`."""
        return self.fits_predictor or (self.scores == "calibrated" and self.temperature is None)

    @property
    def fits_predictor(self) -> bool:
        """See `Shape.fits_predictor`."""
        return self.scores == "predictor" and self.predictor is None

    def limits(self, node_budget: int) -> Limits:
        """See `Shape.limits`."""
        check_budget(node_budget)
        check_positive(self, "max_depth")
        check_positive(self, "max_children")
        if not 0 <= self.min_prob < 1:
            raise ConfigError(
                f"tree.min_prob={self.min_prob} is out of range for {self.kind}; expected 0 (off) or more, below 1"
            )
        self._check_scores()
        self._check_filters()
        self._check_stop()
        return Limits(node_budget, min(node_budget, self.max_depth), min(node_budget, self._children))

    def at(self, node_budget: int) -> BestFirstPlan:
        """See `Shape.at`. Raises as `limits`."""
        self.limits(node_budget)
        least = log(self.min_prob) if self.min_prob > 0 else -inf
        temperature = None if self.fits_scores and not self.fits_predictor else self.temperature or 1.0
        limits = (node_budget, self.max_depth, self._children, least, temperature, self.candidate_top_p)
        predictor = self.predictor or (CROSS_FITTED if self.fits_predictor else None)
        return BestFirstPlan(*limits, predictor=predictor)

    @property
    def _children(self) -> int:
        """Of a node, at most."""
        return min(self.max_children, self.candidate_top_k or self.max_children)

    def _check_filters(self) -> None:
        if self.candidate_top_k < 0:
            raise ConfigError(f"tree.candidate_top_k={self.candidate_top_k} is out of range; expected 1 or more, or 0")
        if not 0 < self.candidate_top_p <= 1:
            raise ConfigError(
                f"tree.candidate_top_p={self.candidate_top_p} is out of range; expected above 0, at most 1 (off)"
            )

    def _check_stop(self) -> None:
        if self.stop not in STOPS:
            raise ConfigError(f"tree.stop={self.stop} is not known{did_you_mean(self.stop, STOPS)}")
        if self.stop == "goodput" and self.temperature is not None:
            raise ConfigError(
                f"tree.temperature={self.temperature} does not go with tree.stop=goodput, which weighs fitted scores"
            )

    def _check_scores(self) -> None:
        if self.scores not in SCORES:
            raise ConfigError(f"tree.scores={self.scores} is not known{did_you_mean(self.scores, SCORES)}")
        if self.predictor is not None and self.scores != "predictor":
            raise ConfigError(
                f"tree.predictor={self.predictor} has no effect with tree.scores={self.scores}; it goes with "
                "tree.scores=predictor"
            )
        if self.temperature is None:
            return
        if self.scores != "calibrated":
            raise ConfigError(
                f"tree.temperature={self.temperature} goes with tree.scores=calibrated, not with {self.scores}"
            )
        if not 0 < self.temperature < inf:
            raise ConfigError(f"tree.temperature={self.temperature} is out of range; expected a number above 0")


@dataclass(frozen=True)
class BestFirstPlan:
    """The limits of trees that differ from step to step.

    Attributes:
        nodes: the budget.
        max_depth, max_children: see `BestFirst`; plans with equal ones share what replay records.
        least: the logarithm of the least cumulative probability.
        temperature: what logits are divided by before nodes are scored; None: not fitted yet.
        top_p: see `BestFirst.candidate_top_p`.
        scorer: ranks nodes in the place of the drafter's probabilities.
        predictor: the file of a scorer that is not there yet, or `CROSS_FITTED`.
        margin, beam, searched: see `NestedPlan`.
    """

    nodes: int
    max_depth: int
    max_children: int
    least: float = -inf
    temperature: float | None = 1.0
    top_p: float = 1.0
    scorer: Scorer | None = None
    predictor: str | None = None
    margin: float = inf
    beam: int | None = None
    searched: bool = False
    dynamic: ClassVar[bool] = True
    topology: ClassVar[None] = None

    @property
    def depth(self) -> int:
        """The most levels that a tree can have."""
        return min(self.nodes, self.max_depth)

    @property
    def nested(self) -> BestFirstPlan | None:
        """See `Plan.nested`."""
        return self

    def at_temperature(self, temperature: float) -> BestFirstPlan:
        """See `NestedPlan.at_temperature`."""
        return replace(self, temperature=temperature)

    def scored_by(self, scorer: Scorer | None) -> BestFirstPlan:
        """See `NestedPlan.scored_by`."""
        return replace(self, scorer=scorer, predictor=None)

    def growth(self, roots: int, vocab: int, whole: bool = False) -> Growing:
        """See `NestedPlan.growth`."""
        least = -inf if whole else self.least
        return Growth(roots, self.nodes, self.depth, self.looked_at(vocab), least, self.top_p)

    def looked_at(self, vocab: int) -> int:
        """See `NestedPlan.looked_at`."""
        most = min(self.max_children, vocab)
        return most if self.scorer else min(most, self.nodes)  # by probability, all siblings before a child are better

    def expand(self, view: DraftView) -> DraftTree:
        """One forward and one transfer to the host for each level."""
        assert self.temperature is not None, "its temperature is fitted first"
        assert self.predictor is None, "its predictor is read first"
        growth = self.growth(1, view.vocab)
        scores = self.scorer.begin(view.before) if self.scorer else None
        scored = 0
        slot = {0: 0}  # node -> its turn among the nodes that were scored
        while len(growth.frontier):
            above = growth.nodes_at(growth.frontier)
            turns = [slot.get(parent, -1) for parent in above.parent.tolist()]
            asked = (turns, above.token, growth.max_children)
            slot |= {node: scored + i for i, node in enumerate(growth.frontier.tolist())}
            scored += len(growth.frontier)
            if self.scorer is None or scores is None:
                growth.add(*view.score(*asked, self.temperature))
            elif self.scorer.only_tempered:
                said = SaidChildren.only_tempered(*view.score(*asked, self.scorer.temperature))
                add_scored(growth, scores, said)
            else:
                add_scored(growth, scores, view.describe(*asked, self.scorer.temperature))
        grown = growth.trees()
        nodes, parent, rank, token, log_prob = (field[0, : grown.sizes[0]] for field in grown[1:])
        topology = Topology([-1, *parent.tolist()], [0, *rank.tolist()])
        return view.compose(topology, token, log_prob, [slot.get(node, -1) for node in nodes.tolist()])
