"""What a pruning policy is.

A policy looks at a drafted tree and says which of its nodes are sent to the target. To add one, write a file in this
folder with a dataclass that derives from `ScoredPolicy`, gives `kind` a value and says what is kept, and put a YAML of
the same name in `configs/pruning/`. The fields of the dataclass are the parameters that users may set.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from specdraft.config import label
from specdraft.errors import ConfigError, did_you_mean

SCORES = ("raw", "calibrated", "predictor")


class Drafted(NamedTuple):
    """Drafted trees, V of them side by side, each with its nodes in an order that has parents first.

    Attributes:
        parent: `[V, N]` a node's parent as a place in this order, from 1; 0 is the root, -1 no node.
        depth: `[V, N]` from 1; 0: no node.
        log_survival: `[V, N]` float64, the logarithm of the probability that the node will be accepted: of the product
            of the conditional ones from the root down, so never more than the parent's.
    """

    parent: np.ndarray
    depth: np.ndarray
    log_survival: np.ndarray

    @property
    def there(self) -> np.ndarray:
        """`[V, N]` which places hold a node."""
        some: np.ndarray = self.depth > 0
        return some

    @property
    def fed(self) -> np.ndarray:
        """`[V, D]` how many nodes have children at each depth from 0: what drafting the trees fed, at least."""
        with_children = np.zeros((self.parent.shape[0], self.parent.shape[1] + 1), dtype=bool)
        row, place = np.nonzero(self.there)
        with_children[row, self.parent[row, place]] = True
        depth = np.concatenate([np.zeros((len(self.depth), 1), dtype=np.int64), self.depth], axis=1)
        levels = np.arange(int(self.depth.max(initial=0)))
        return np.stack([(with_children & (depth == level)).sum(1) for level in levels], axis=1)

    def best_first(self) -> np.ndarray:
        """`[V, N]` the places in the order in which a growing tree takes them: the likeliest first, of equals the one
        listed first, so a parent before its children; what is no node comes last."""
        order: np.ndarray = np.lexsort((-self.log_survival, ~self.there), axis=1)
        return order

    def best(self, count: np.ndarray) -> np.ndarray:
        """`[V, N]` which nodes are the `count` `[V]` best ones."""
        chosen = np.zeros(self.parent.shape, dtype=bool)
        among = np.arange(self.parent.shape[1]) < count[:, None]
        np.put_along_axis(chosen, self.best_first(), among, axis=1)
        best: np.ndarray = chosen & self.there
        return best


class StepCosts(NamedTuple):
    """What V verification steps take, by the pair's measured costs.

    Attributes:
        fixed_s: `[V]` seconds that do not depend on what is sent: drafting, acceptance, cache upkeep.
        verify_s: `[N + 1]` seconds of the target's forward with so many draft nodes.
    """

    fixed_s: np.ndarray
    verify_s: np.ndarray


def file_digest(path: Path) -> str:
    """Of what is in a file. Raises `ConfigError` where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"pruning.predictor={path}: cannot be read: {error.strerror or error}") from error


class Costs(Protocol):
    """What steps with a pair cost (see `bench.curve.CostCurve`)."""

    def of_steps(self, fed: np.ndarray, most: int, dynamic: bool) -> StepCosts:
        """Of steps that fed so many nodes for each level (see `Drafted.fed`) and send `most` nodes at most.

        `dynamic`: the nodes of each level were chosen when it was there.
        """


@dataclass
class PruningPolicy(ABC):
    """A pure function of the survival of drafted nodes; what it keeps has every kept node's ancestors too.

    Attributes:
        kind: the policy's name.
        prunes: it can leave nodes out.
        needs_costs: it weighs what verifying costs.
    """

    kind: str = ""
    prunes: ClassVar[bool] = True
    needs_costs: ClassVar[bool] = False

    @abstractmethod
    def keep(self, drafted: Drafted, costs: StepCosts | None = None) -> np.ndarray:
        """`[V, N]` bool: the nodes that are sent.

        Args:
            drafted: the trees.
            costs: of these steps, for a policy that needs them.
        """

    @property
    def fits_scores(self) -> bool:
        """Whether what it scores by is fitted to recorded texts of a study's prompts."""
        return False

    @property
    def fits_predictor(self) -> bool:
        """Whether these are a predictor's."""
        return False

    @property
    def adapts(self) -> bool:
        """Whether it depends on the steps before."""
        return False

    @property
    def label(self) -> str:
        """What the `pruning` column says: the kind, and the parameters that differ from their defaults."""
        return label(self, "predictor")

    def identity(self) -> dict[str, Any]:
        """The parameters that decide what is pruned."""
        return asdict(self)

    def check(self) -> None:  # noqa: B027  (one that prunes nothing has no parameters)
        """Raise `ConfigError` for parameters out of range."""


@dataclass
class ScoredPolicy(PruningPolicy):
    """A policy that scores nodes.

    Attributes:
        scores: what survival is: the drafter's own probabilities (`raw`), those at a fitted temperature (`calibrated`),
            or what a `predictor` says.
        predictor: its file, for `scores=predictor`; left out: fitted to the study's other prompts.
        online: what was accepted so far in a prompt changes what is pruned next; live only.
    """

    scores: str = "calibrated"
    predictor: str | None = None
    online: bool = False

    @property
    def fits_scores(self) -> bool:
        """See `PruningPolicy.fits_scores`."""
        return self.scores == "calibrated" or self.fits_predictor

    @property
    def fits_predictor(self) -> bool:
        """See `PruningPolicy.fits_predictor`."""
        return self.scores == "predictor" and self.predictor is None

    @property
    def scored_by(self) -> str:
        """Policies with equal ones are told the same of a node."""
        return self.scores if self.predictor is None else f"predictor {self.predictor}"

    def identity(self) -> dict[str, Any]:
        """See `PruningPolicy.identity`: of a predictor what is in its file."""
        told_by = {} if self.predictor is None else {"predictor": file_digest(Path(self.predictor))}
        return super().identity() | told_by

    @property
    def adapts(self) -> bool:
        """See `PruningPolicy.adapts`."""
        return self.online

    def check(self) -> None:
        """See `PruningPolicy.check`."""
        if self.scores not in SCORES:
            raise ConfigError(f"pruning.scores={self.scores} is not known{did_you_mean(self.scores, SCORES)}")
        if self.predictor is not None and self.scores != "predictor":
            raise ConfigError(
                f"pruning.predictor={self.predictor} has no effect with pruning.scores={self.scores}; it goes with "
                "pruning.scores=predictor"
            )

    def check_share(self, name: str) -> None:
        """Raise `ConfigError` unless a parameter is in [0, 1]."""
        if not 0 <= getattr(self, name) <= 1:
            raise ConfigError(f"pruning.{name}={getattr(self, name)} is out of range; expected 0 to 1")
