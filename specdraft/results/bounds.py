"""95 % intervals of ratios of sums, and of differences of two, over prompts.

One principle: the true value is any at which the prompts' sum of `numerator - value * denominator` lies within so many
of its own standard errors of 0 (Fieller 1954). How many: Student's quantile, widened by what skewness adds to it to
second order (Hall 1992, section 2.6). A difference of two ratios has no such form; its standard error is the
jackknife's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from specdraft.results.intervals import FEWEST_PROMPTS

LEVEL = 0.95
CATEGORIES_DIFFER = 0.85  # level of the F test beyond which categories are told apart
MOST_TAKEN = 0.8  # of what differs between categories, at most so much counts as no error
ALIKE = 1e-9  # prompts that differ by less, relative to the value, are all alike
CELLS = 1 << 20  # numbers in an array at a time


class Ratios(NamedTuple):
    """n ratios of sums over the same P prompts.

    Attributes:
        estimates: `[n]`; NaN where the denominator is 0.
        above: `[n, P]` each prompt's numerator.
        below: `[n, P]` each prompt's denominator.
    """

    estimates: np.ndarray
    above: np.ndarray
    below: np.ndarray

    def at(self, rows: np.ndarray) -> Ratios:
        """Some of them, in this order."""
        return Ratios(self.estimates[rows], self.above[rows], self.below[rows])

    @property
    def influence(self) -> np.ndarray:
        """`[n, P]` how far each prompt moves the ratio."""
        moves: np.ndarray = (self.above - self.estimates[:, None] * self.below) / self.below.sum(1, keepdims=True)
        return moves

    @property
    def jackknifed(self) -> np.ndarray:
        """`[n, P]` how far the ratio would move without each prompt, times `(P - 1) / P`: influence that knows that a
        prompt with much of the denominator pulls the ratio towards itself."""
        prompts = self.below.shape[1]
        share = self.below / self.below.sum(1, keepdims=True)
        moves = self.influence * ((prompts - 1) / prompts) / (1 - share)
        centred: np.ndarray = moves - moves.mean(1, keepdims=True)
        return centred


def ratios_of_sums(above: np.ndarray, below: np.ndarray) -> Ratios:
    """`sum(above) / sum(below)`, of `[n, P]` numerators and denominators."""
    totals = below.sum(1)
    there = totals > 0
    return Ratios(np.where(there, above.sum(1) / np.where(there, totals, 1), np.nan), above, below)


def bounds(ratios: Ratios, categories: np.ndarray, possible: Any = (0.0, np.inf)) -> np.ndarray:
    """`[n, 2]` the intervals of ratios, within what is possible; NaN where there is none: with too few prompts, where
    all are alike, or where they bound nothing. Prompts without a step say nothing.

    Args:
        ratios: n of them.
        categories: `[P]` each prompt's, as a number.
        possible: `[2]` or `[n, 2]`, the least and the most.
    """
    there = (ratios.below > 0) & ~np.isnan(ratios.estimates)[:, None]

    def of(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        cells = np.ix_(rows, columns)
        chosen = Ratios(ratios.estimates[rows], ratios.above[cells], ratios.below[cells])
        return _fieller(chosen, categories[columns])

    return _within(ratios.estimates, _by_prompts(there, of), possible)


def bounds_of_differences(
    first: Ratios, second: Ratios, categories: np.ndarray, possible: Any = (-np.inf, np.inf)
) -> np.ndarray:
    """`[n, 2]` the intervals of first minus second, ratios over the same prompts: what is skewed in both cancels. Equal
    on every prompt: from 0 to 0. Otherwise as `bounds`."""
    differences = first.estimates - second.estimates
    there = ((first.below > 0) | (second.below > 0)) & ~np.isnan(differences)[:, None]

    def of(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        cells = np.ix_(rows, columns)
        a, b = (Ratios(side.estimates[rows], side.above[cells], side.below[cells]) for side in (first, second))
        scale = np.maximum(np.abs(a.estimates), np.abs(b.estimates))
        reach = _reach(a.jackknifed - b.jackknifed, categories[columns], scale)
        equal = (a.estimates == b.estimates) & (a.influence == b.influence).all(1)
        ends: np.ndarray = (a.estimates - b.estimates)[:, None] + np.where(equal, 0.0, reach)[:, None] * [-1, 1]
        return ends

    return _within(differences, _by_prompts(there, of), possible)


def with_error(values: np.ndarray, ends: np.ndarray, share: np.ndarray, most: np.ndarray | None = None) -> np.ndarray:
    """`[n, 2]` intervals that also hold an error which has nothing to do with the prompts: by their logarithms, two
    independent deviations add in squares.

    Args:
        values: `[n]` above 0.
        ends: `[n, 2]` their intervals over prompts; NaN stays NaN.
        share: `[n]` the error's standard deviation as a share of the value; NaN: there is none.
        most: `[n]` what no end exceeds, as far as it is known.
    """
    normal = float(special.ndtri((1 + LEVEL) / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.hypot(np.log(ends / values[:, None]), normal * np.nan_to_num(share)[:, None])
    wider: np.ndarray = values[:, None] * np.exp(reach * [-1, 1])
    if most is not None:
        wider[:, 1] = np.fmin(wider[:, 1], np.fmax(most, values))
    return wider


def error_share(values: np.ndarray, ends: np.ndarray, wider: np.ndarray) -> np.ndarray:
    """`[n]` the share that `with_error` was given, from intervals over prompts `[n, 2]` and what it made of them: the
    larger one of what either end says, as an end may have been cut off; 0 where there is no interval."""
    normal = float(special.ndtri((1 + LEVEL) / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.log(wider / values[:, None]) ** 2 - np.log(ends / values[:, None]) ** 2
    share: np.ndarray = np.sqrt(np.maximum(np.nan_to_num(squares, posinf=0.0, neginf=0.0), 0.0)).max(1) / normal
    return share


def _by_prompts(there: np.ndarray, of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """`[n, 2]` what `of(rows, columns)` gives for rows of a `[n, P]` mask that are equal; NaN with too few prompts."""
    ends = np.full((len(there), 2), np.nan)
    enough = np.flatnonzero(there.sum(1) >= FEWEST_PROMPTS)
    masks, which = np.unique(there[enough], axis=0, return_inverse=True)
    for number, mask in enumerate(masks):
        columns = np.flatnonzero(mask)
        for rows in blocks(enough[which == number], len(columns)):
            ends[rows] = of(rows, columns)
    return ends


def blocks(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Rows a few at a time, so that arrays of so many columns stay small."""
    size = max(1, CELLS // max(1, width))
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _fieller(ratios: Ratios, categories: np.ndarray) -> np.ndarray:
    """`[n, 2]` the values R at which `sum(above - R * below)` squared is at most what chance makes it: the roots of a
    quadratic. Where the denominator's own error leaves them without end, from -inf to inf."""
    influence, prompts = ratios.influence, len(categories)
    spread = spread_of(influence, categories)
    above, below = (spread.centred(side - side.mean(1, keepdims=True), categories) for side in ratios[1:])
    chance = spread.factor * prompts
    total_above, total_below = ratios.above.sum(1), ratios.below.sum(1)
    square = total_below**2 - chance * np.sum(below**2, 1)
    middle = total_above * total_below - chance * np.sum(above * below, 1)
    last = total_above**2 - chance * np.sum(above**2, 1)
    ends = square > 0
    root = np.sqrt(np.maximum(middle**2 - square * last, 0))
    roots = (middle[:, None] + root[:, None] * [-1, 1]) / np.where(ends, square, 1)[:, None]
    found = np.where(ends[:, None], roots, [-np.inf, np.inf])
    found[_alike(spread.centred(influence, categories), np.abs(ratios.estimates))] = np.nan
    return found


def _reach(influence: np.ndarray, categories: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`[n]` half the widths of symmetric intervals; NaN where all prompts are alike."""
    spread = spread_of(influence, categories)
    within = spread.centred(influence, categories)
    reach = np.sqrt(spread.factor * len(categories) * np.sum(within**2, 1))
    return np.where(_alike(within, scale), np.nan, reach)


def _alike(influence: np.ndarray, scale: np.ndarray) -> np.ndarray:
    alike: np.ndarray = np.sqrt(np.sum(influence**2, 1)) <= ALIKE * scale
    return alike


class Spread(NamedTuple):
    """How what varies between prompts becomes the width of an interval.

    Attributes:
        taken: `[n]` the share of the categories' means that is no error.
        factor: `[n]` the squared number of standard errors by the degrees of freedom.
    """

    taken: np.ndarray
    factor: np.ndarray

    def centred(self, values: np.ndarray, categories: np.ndarray) -> np.ndarray:
        """`[n, P]` values less what is taken of their categories' means."""
        centred: np.ndarray = values - self.taken[:, None] * category_means(values, categories)
        return centred


def spread_of(influence: np.ndarray, categories: np.ndarray) -> Spread:
    """Of `[n, P]` influences, which sum to 0.

    Prompts are stratified: what differs between categories is no error. Of a few prompts per category that is known
    badly, so of the categories' means `1 - c / F` is taken, at most `MOST_TAKEN`: F is the ratio of mean squares
    between and within categories and c what F exceeds by chance in 15 cases of 100.
    """
    prompts, kinds = len(categories), len(np.unique(categories))
    taken = np.zeros(len(influence))
    if kinds > 1 and prompts - kinds >= 3:
        means = category_means(influence, categories)
        between = np.sum(means**2, 1) / (kinds - 1)
        by_chance = float(special.fdtri(kinds - 1, prompts - kinds, CATEGORIES_DIFFER))
        by_chance = by_chance * np.sum((influence - means) ** 2, 1) / (prompts - kinds)
        differ = between > by_chance
        taken[differ] = np.minimum(1 - by_chance[differ] / between[differ], 1) * MOST_TAKEN
    freedom = prompts - 1 - taken * (kinds - 1)
    return Spread(taken, (students(freedom) * widening(influence)) ** 2 / freedom)


def widening(influence: np.ndarray) -> np.ndarray:
    """`[n]` how much farther skewness puts the quantile of a mean's t statistic, to second order:
    `1 + skewness^2 / P * (t^4 + 2 t^2 - 3) / 18` (Hall 1992, the term in the squared skewness)."""
    prompts = influence.shape[1]
    variance = np.mean(influence**2, 1)
    squared = np.mean(influence**3, 1) ** 2 / np.where(variance > 0, variance, 1) ** 3
    t = students(prompts - 1)
    wider: np.ndarray = 1 + squared / prompts * (t**4 + 2 * t**2 - 3) / 18
    return wider


def category_means(values: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """`[n, P]` the mean over each prompt's category."""
    _, codes, counts = np.unique(categories, return_inverse=True, return_counts=True)
    means: np.ndarray = (values @ np.eye(len(counts))[codes] / counts)[:, codes]
    return means


def students(freedom: Any) -> Any:
    """Student's t that 95 % lie within, either side of 0."""
    return special.stdtrit(freedom, (1 + LEVEL) / 2)


def _within(values: np.ndarray, ends: np.ndarray, possible: Any) -> np.ndarray:
    """Intervals cut to what is possible; none where that is without end."""
    least, most = np.moveaxis(np.asarray(possible, float), -1, 0)
    low, high = np.maximum(ends[:, 0], np.minimum(least, values)), np.minimum(ends[:, 1], np.maximum(most, values))
    cut = np.stack([low, high], 1)
    cut[np.isinf(cut).any(1)] = np.nan
    return cut
