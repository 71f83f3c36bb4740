"""What steps with chains cost."""

from __future__ import annotations

import numpy as np

from specdraft.prediction.pruning.base import Costs


def step_seconds(costs: Costs, most: int) -> np.ndarray:
    """`[most + 1]` seconds of a step with so many draft tokens."""
    fed = fed_levels(np.arange(most + 1), most)
    steps = costs.of_steps(fed, most, dynamic=False)
    seconds: np.ndarray = steps.fixed_s + steps.verify_s[: most + 1]
    return seconds


def fed_levels(lengths: np.ndarray, most: int) -> np.ndarray:
    """`[V, most]` how many nodes are fed to make each level of chains of these lengths `[V]`: see `Drafted.fed`."""
    fed: np.ndarray = (np.arange(most) < lengths[:, None]).astype(np.int64)
    return fed
