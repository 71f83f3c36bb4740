"""What a shape is.

A shape turns a node budget into a tree. To add one, write a file in this folder with a dataclass that gives `kind`
a value, and put a YAML of the same name in `configs/tree/`. It derives from `StaticShape` and says how nodes are laid
out, or from `FittedShape` (`fitted.py`) and says how recorded ranks become a tree, or from `BaseShape` and gives a plan
whose trees differ from step to step, as `BestFirstPlan` (`best_first.py`). The fields of the dataclass are the
parameters that users may set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from specdraft.config import label
from specdraft.errors import ConfigError
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.topology import RankPath, Topology

if TYPE_CHECKING:
    from specdraft.trees.growth import GrownTrees, Nodes


class SaidChildren(NamedTuple):
    """What a drafter says after m nodes: its K most probable tokens, best first.

    Attributes:
        tokens: `[m, K]`.
        log_probs: `[m, K]` float64, the logarithms of their probabilities at temperature 1; `tempered`: at another one.
        entropy, second: `[m]` of the distribution at temperature 1: nats, and the logarithm of its second largest
            probability.

    To a scorer that reads no more than `tempered` the others mean nothing.
    """

    tokens: np.ndarray
    log_probs: np.ndarray
    tempered: np.ndarray
    entropy: np.ndarray
    second: np.ndarray

    @classmethod
    def only_tempered(cls, tokens: np.ndarray, tempered: np.ndarray) -> SaidChildren:
        """For a scorer that reads no more."""
        nothing = np.zeros(len(tokens))
        return cls(tokens, tempered, tempered, nothing, nothing)


class NodeScores(Protocol):
    """Scores the nodes of growing trees. Nodes have the numbers of `Growth`: the roots come first."""

    def children(self, above: np.ndarray, said: SaidChildren) -> np.ndarray:
        """`[m, K]` the logarithms of the probabilities that children are accepted where their parents `[m]` are."""

    def keep(self, rows: np.ndarray, ranks: np.ndarray) -> None:
        """Of the last children, those that become the next nodes, in the order of their numbers: `[k]` rows, ranks."""


class TextsBefore(Protocol):
    """The texts up to the roots of trees that grow, the roots included."""

    def __len__(self) -> int:
        """How many roots."""

    @property
    def last(self) -> np.ndarray:
        """`[roots, 3]` the last tokens, the newest first; -1 before the beginning of a text."""

    def had(self, root: np.ndarray, grams: np.ndarray) -> np.ndarray:
        """`[m, K]` whether 4-grams (see `drafters.grams`) stand in the texts of these roots `[m]`."""


class Scorer(Protocol):
    """What else than the drafter's own probabilities ranks nodes; equal ones rank alike."""

    @property
    def name(self) -> str:
        """What traces that depend on it call it."""

    @property
    def temperature(self) -> float:
        """Of `SaidChildren.tempered`."""

    @property
    def only_tempered(self) -> bool:
        """Whether it reads no more of `SaidChildren`; the rest costs as much again."""

    def begin(self, before: TextsBefore) -> NodeScores:
        """Start over under these roots."""


CROSS_FITTED = "cross-fitted"  # in the place of a predictor's file: a study fits one to its own texts


class DraftView(Protocol):
    """What a shape sees of the drafter while one tree grows."""

    @property
    def vocab(self) -> int:
        """How many tokens there are to choose from."""

    @property
    def before(self) -> TextsBefore:
        """The text up to the root."""

    def grow(self, topology: Topology, depth: int) -> None:
        """Put the drafter's tokens on the nodes of `topology` at `depth`; the levels above are done."""

    def finish(self, topology: Topology) -> DraftTree:
        """The tree, once every level has its tokens."""

    def newest(self, entropy: bool) -> tuple[float, float]:
        """Of a chain that grows, its newest token: the logarithm of its probability, and if it is wanted the entropy of
        its distribution. Of a token that was chosen by rank, or greedily, that is softmax at temperature 1; of another
        one what it was drawn from."""

    def score(
        self, parents: Sequence[int], tokens: np.ndarray, count: int, temperature: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The most probable children of nodes that are not in a topology yet; the first call is for the root.

        Args:
            parents: `[m]` each node's parent, as its turn among all nodes scored so far (the root's turn is 0).
            tokens: `[m]` the nodes' tokens.
            count: how many children of each.
            temperature: what logits are divided by.

        Returns:
            Tokens `[m, count]`, best first, and the logarithms of their probabilities `[m, count]`, float64.
        """

    def describe(self, parents: Sequence[int], tokens: np.ndarray, count: int, temperature: float) -> SaidChildren:
        """As `score`, with more of what the drafter says."""

    def compose(self, topology: Topology, tokens: np.ndarray, log_probs: np.ndarray, turns: Sequence[int]) -> DraftTree:
        """The tree out of nodes that `score` proposed.

        Args:
            topology: the chosen nodes, a parent before its children.
            tokens: `[n]` the draft nodes' tokens.
            log_probs: `[n]` the logarithms of their cumulative probabilities.
            turns: `[n]` each node's turn among the nodes that were scored, or -1.
        """


class Plan(Protocol):
    """A shape at one node budget: made once, expanded once for each verification step."""

    @property
    def nodes(self) -> int:
        """The most draft nodes that a tree can have."""

    @property
    def depth(self) -> int:
        """The most draft levels that a tree can have."""

    @property
    def dynamic(self) -> bool:
        """Whether trees differ from step to step."""

    @property
    def topology(self) -> Topology | None:
        """The one tree of every step; None where trees differ."""

    @property
    def nested(self) -> NestedPlan | None:
        """This plan, where trees of smaller budgets are parts of the larger ones: replay of dynamic trees needs it."""

    def expand(self, view: DraftView) -> DraftTree:
        """Draft one tree."""


class Growing(Protocol):
    """Trees that grow under several roots; see `Growth`."""

    node_budget: int
    max_children: int
    frontier: np.ndarray
    place: np.ndarray
    ahead: np.ndarray
    newest: np.ndarray
    fed: list[int]

    def nodes_at(self, numbers: np.ndarray) -> Nodes:
        """These nodes."""

    def add(self, tokens: np.ndarray, log_probs: np.ndarray, some: np.ndarray | None = None) -> None:
        """Children of the frontier, or of some of it; the next frontier follows."""

    def trees(self) -> GrownTrees:
        """Every root's tree."""


class NestedPlan(Plan, Protocol):
    """Trees that differ from step to step, where those of a smaller budget are parts of the larger ones: one
    recording of the largest budget serves all (see `traces` and `replay.best_first`)."""

    @property
    def max_depth(self) -> int:
        """Draft levels at most; plans with equal `max_depth`, `max_children`, `temperature`, `top_p`, `margin`,
        `beam` and `searched` share what is recorded."""

    @property
    def max_children(self) -> int:
        """Children of one node at most."""

    @property
    def least(self) -> float:
        """The logarithm of the least cumulative probability of a node."""

    @property
    def temperature(self) -> float | None:
        """What logits are divided by before nodes are scored; None: fitted to recorded texts, and not known yet."""

    @property
    def top_p(self) -> float:
        """Of a node's children only the smallest set of so much probability is considered; 1: all."""

    @property
    def margin(self) -> float:
        """How far below the best leaf a node of a tree that grows adaptively may be (see `Adaptive`); infinite: trees
        are best-first ones."""

    @property
    def beam(self) -> int | None:
        """How many nodes of a level are expanded (see `ExpandRerank`); None: all that may be in the tree."""

    @property
    def searched(self) -> bool:
        """Whether trees are what a beam search ends with (see `BeamSearch`), not the best of all that it found."""

    @property
    def scorer(self) -> Scorer | None:
        """What ranks nodes in the place of the drafter's own probabilities."""

    @property
    def predictor(self) -> str | None:
        """The file of the scorer that it still has to be given, or `CROSS_FITTED`."""

    def looked_at(self, vocab: int) -> int:
        """How many children of a node are scored."""

    def scored_by(self, scorer: Scorer | None) -> NestedPlan:
        """The plan with its scorer; None: by raw probabilities."""

    def at_temperature(self, temperature: float) -> NestedPlan:
        """The plan with a temperature that was fitted."""

    def growth(self, roots: int, vocab: int, whole: bool = False) -> Growing:
        """Trees under so many roots, not grown yet; `whole`: `least` is left to whoever reads them."""


class Limits(NamedTuple):
    """What is known of a shape's trees before anything is decoded or recorded.

    Attributes:
        nodes, depth: the most draft nodes and draft levels of a tree.
        width: the most children of one node; of a static tree its highest rank + 1.
    """

    nodes: int
    depth: int
    width: int

    @property
    def room(self) -> int:
        """The most nodes that depth and width leave room for, as far as `nodes` asks."""
        room = level = 0
        for _ in range(self.depth):
            level = min(max(level, 1) * self.width, self.nodes)
            room += level
        return min(room, self.nodes)


class Shape(Protocol):
    """A rule that turns a node budget into a tree.

    Attributes:
        kind: the shape's name.
        sized: the tree has a size of its own and ignores the budget.
        fitted: the tree is chosen by recorded ranks; there is no plan before.
        in_sample: it is fitted on the very prompts that it is scored on.
        reference: it stands beside every replayed combination, and does not compete.
    """

    kind: str
    sized: ClassVar[bool]
    fitted: ClassVar[bool]
    in_sample: ClassVar[bool]
    reference: ClassVar[bool]

    @property
    def fits_scores(self) -> bool:
        """Whether what its nodes are ranked by is fitted to recorded texts (see `NestedPlan.at_temperature`)."""

    @property
    def fits_predictor(self) -> bool:
        """Whether that is a predictor."""

    @property
    def timed(self) -> bool:
        """Whether its trees depend on how long drafting takes."""

    @property
    def label(self) -> str:
        """What the `tree` column says."""

    def identity(self) -> dict[str, Any]:
        """The parameters that decide which tree it is."""

    def limits(self, node_budget: int) -> Limits:
        """What is known at planning; raises `ConfigError` for a budget or a parameter out of range."""

    def at(self, node_budget: int) -> Plan:
        """The plan for a budget; raises `ConfigError` where there is none."""

    def fit(self, node_budget: int, packed: PackedRanks) -> Topology:
        """The tree of a fitted shape on these trajectories; raises `ConfigError` where nothing is fitted."""

    def fits(self, packed: PackedRanks) -> Callable[[int], Topology]:
        """What gives the tree of each budget on these trajectories, where budgets can share work; see `fit`."""


@dataclass(frozen=True)
class StaticPlan:
    """The same topology in every step."""

    topology: Topology
    dynamic: ClassVar[bool] = False
    nested: ClassVar[None] = None

    @property
    def nodes(self) -> int:
        return self.topology.num_nodes

    @property
    def depth(self) -> int:
        return self.topology.depth

    def expand(self, view: DraftView) -> DraftTree:
        for depth in range(1, self.depth + 1):
            view.grow(self.topology, depth)
        return view.finish(self.topology)


@dataclass
class BaseShape(ABC):
    """What most shapes say alike; see `Shape`."""

    kind: str = ""
    sized: ClassVar[bool] = False
    fitted: ClassVar[bool] = False
    in_sample: ClassVar[bool] = False
    reference: ClassVar[bool] = False

    @property
    def fits_scores(self) -> bool:
        """No: most shapes rank nothing."""
        return False

    @property
    def fits_predictor(self) -> bool:
        """Likewise."""
        return False

    @property
    def timed(self) -> bool:
        """No: most trees take the time that they take."""
        return False

    @property
    def label(self) -> str:
        """The kind, and the parameters that differ from their defaults: `beam-w3`."""
        return label(self)

    def identity(self) -> dict[str, Any]:
        """All parameters."""
        return asdict(self)

    @abstractmethod
    def limits(self, node_budget: int) -> Limits:
        """See `Shape.limits`."""

    @abstractmethod
    def at(self, node_budget: int) -> Plan:
        """See `Shape.at`."""

    def fit(self, node_budget: int, packed: PackedRanks) -> Topology:
        """Raise `ConfigError`: most shapes have nothing to fit."""
        raise ConfigError(f"tree={self.kind} is not fitted to traces")

    def fits(self, packed: PackedRanks) -> Callable[[int], Topology]:
        """See `Shape.fits`: budgets share nothing."""
        return lambda node_budget: self.fit(node_budget, packed)


@dataclass
class StaticShape(BaseShape):
    """A shape whose tree depends on the budget only."""

    kind: str = ""

    def layout(self) -> Iterator[RankPath]:
        """Rank paths in the order in which a growing budget adds them, parents first; may be endless."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise `ConfigError` for parameters out of range."""

    def limits(self, node_budget: int) -> Limits:
        """See `Shape.limits`. Raises as `at`."""
        topology = self.at(node_budget).topology
        return Limits(topology.num_nodes, topology.depth, int(topology.ranks.max()) + 1)

    def at(self, node_budget: int) -> StaticPlan:
        """The first `node_budget` nodes of the layout; all of them for a shape with a size of its own.

        Raises:
            ConfigError: the budget or a parameter is out of range, or the layout has too few nodes.
            TreeError: the layout is not a tree.
        """
        self.check()
        check_budget(node_budget)
        if self.sized:
            return StaticPlan(Topology.from_paths(self.layout()))
        paths = list(islice(self.layout(), node_budget))
        if len(paths) < node_budget:
            raise ConfigError(f"tree {self.label} has only {len(paths)} nodes; budget={node_budget} does not fit")
        return StaticPlan(Topology.from_paths(paths))


def check_budget(node_budget: int) -> None:
    """Raise `ConfigError` unless a budget is a number of nodes."""
    if isinstance(node_budget, bool) or not isinstance(node_budget, int) or node_budget < 1:
        raise ConfigError(
            f"budget={node_budget} is not a node budget; expected a whole number of draft nodes, 1 or more"
        )
    if node_budget > MAX_BUDGET:
        raise ConfigError(f"budget={node_budget} is too large; at most {MAX_BUDGET} draft nodes")


MAX_BUDGET = 4096  # a step's mask has (budget + 1)^2 entries


def check_positive(shape: Shape, name: str) -> None:
    """Raise `ConfigError` unless a parameter is 1 or more."""
    if getattr(shape, name) < 1:
        raise ConfigError(f"tree.{name}={getattr(shape, name)} is out of range for {shape.kind}; expected 1 or more")


def breadth_first(factors: Iterator[int]) -> Iterator[RankPath]:
    """Every node of depth d - 1 has `factors[d - 1]` children; depth by depth."""
    level: list[RankPath] = [()]
    for factor in factors:
        following = []
        for path in level:
            for rank in range(factor):
                following.append((*path, rank))
                yield following[-1]
        level = following
