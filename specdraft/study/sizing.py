"""What sizes trees that stop where it pays (`tree.stop=goodput`)."""

from __future__ import annotations

from specdraft.errors import ConfigError
from specdraft.prediction.pruning import PruningPolicy
from specdraft.prediction.pruning.adaptive import Adaptive
from specdraft.trees.shapes import Shape
from specdraft.trees.shapes.best_first import BestFirst


def sizing(shape: Shape, pruning: PruningPolicy) -> PruningPolicy:
    """What says how many nodes of a tree are sent: the policy that was asked for, or what the tree's own stop means.

    A best-first tree lists its nodes in the order in which it would grow, so stopping after n of them is sending the n
    best ones: `pruning=adaptive` by the scores that the tree goes by.

    Raises:
        ConfigError: the tree has a stop, and another policy was asked for beside it.
    """
    if not isinstance(shape, BestFirst) or shape.stop == "budget":
        return pruning
    sized = Adaptive(scores=shape.scores, predictor=shape.predictor)
    if pruning.prunes and pruning != sized:
        raise ConfigError(
            f"pruning={pruning.kind} does not go with tree.stop={shape.stop}, which says itself how many nodes are sent"
        )
    return sized
