"""Closed forms of speculative decoding with a chain, acceptances taken as independent (Leviathan et al. 2023).

`alpha` is the mean probability that a draft token is accepted, `gamma` the length of the chain, `cost` the
time of one draft step over the time of one target step.
"""

from __future__ import annotations

from typing import Any

from specdraft.errors import ConfigError

LONGEST = 1000
SHORTEST = 8  # a table lists every gamma up to this


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens per target call, bonus included: `(1 - alpha^(gamma + 1)) / (1 - alpha)` (equation 1)."""
    _check(alpha=alpha, gamma=gamma)
    return float(sum(alpha**accepted for accepted in range(gamma + 1)))  # the same sum, also at alpha = 1


def expected_steps(alpha: float, gamma: int, tokens: int) -> float:
    """Target calls for a text of so many tokens: as `expected_tokens`, but the last step is cut where the text ends."""
    _check(alpha=alpha, gamma=gamma)
    exactly = [alpha**accepted * (1 - alpha) for accepted in range(gamma)] + [alpha**gamma]
    steps = [0.0]
    for left in range(1, tokens + 1):
        steps.append(1 + sum(chance * steps[left - accepted - 1] for accepted, chance in enumerate(exactly[:left])))
    return steps[-1]


def speedup(alpha: float, gamma: int, cost: float) -> float:
    """Factor in wall time over plain decoding: `expected_tokens / (gamma cost + 1)` (theorem 3.8)."""
    _check(cost=cost)
    return expected_tokens(alpha, gamma) / (gamma * cost + 1)


def operations(alpha: float, gamma: int, cost: float) -> float:
    """Factor in arithmetic operations: `(gamma cost + gamma + 1) / expected_tokens` (theorem 3.11).

    Here `cost` is the operations of one draft token over those of one target token.
    """
    _check(cost=cost)
    return (gamma * cost + gamma + 1) / expected_tokens(alpha, gamma)


def best_gamma(alpha: float, cost: float, longest: int = LONGEST) -> int:
    """The chain length from 0 to `longest` with the largest `speedup`, the shortest of equals.

    0 says that drafting does not pay: a gain exists iff alpha > cost. Where drafting is free, or always
    accepted and cheaper than the target, there is no best length and `longest` (or where float64 sees no
    more gain) is returned.
    """
    _check(alpha=alpha, gamma=longest, cost=cost)
    best, fastest, tokens = 0, 1.0, 1.0
    for gamma in range(1, longest + 1):
        tokens += alpha**gamma
        if (factor := tokens / (gamma * cost + 1)) > fastest:
            best, fastest = gamma, factor
    return best


def endless(alpha: float, cost: float) -> bool:
    """Whether a longer chain is always the faster one: drafting is free, or never rejected and cheaper than the
    target."""
    _check(alpha=alpha, cost=cost)
    return (cost == 0 and alpha > 0) or (alpha == 1 and cost < 1)


def alpha_for(tokens: float, gamma: int) -> float:
    """The inverse of `expected_tokens`: the alpha at which a chain of `gamma` gives this many tokens per call."""
    _check(gamma=gamma)
    if gamma == 0 or not 1 <= tokens <= gamma + 1:
        raise ConfigError(
            f"tokens={tokens} per call is out of range for gamma={gamma}; expected 1 to gamma + 1, and a gamma "
            "of 1 or more"
        )
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if expected_tokens(middle, gamma) < tokens else (low, middle)
    return high


def facts(alpha: float, gamma: int, cost: float) -> dict[str, Any]:
    """Every closed form at one point, and a table over gammas (for operations, `cost` counts operations too)."""

    def at(length: int) -> dict[str, Any]:
        values = {"expected_tokens": expected_tokens(alpha, length), "speedup": speedup(alpha, length, cost)}
        return {"gamma": length} | values | {"operations": operations(alpha, length, cost)}

    best = None if endless(alpha, cost) else best_gamma(alpha, cost)
    if gamma > LONGEST:
        raise ConfigError(f"gamma={gamma} is out of range; expected at most {LONGEST}")
    lengths = sorted({*range(SHORTEST + 1), 12, 16, 24, 32, gamma, *([best] if best is not None else [])})
    point = {"alpha": alpha, "cost": cost} | at(gamma)
    return point | {"best_gamma": best, "table": [at(length) for length in lengths]}


def _check(*, alpha: float = 0.0, gamma: int = 0, cost: float = 0.0) -> None:
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha={alpha} is out of range; expected 0 to 1")
    if gamma < 0 or gamma != int(gamma):
        raise ConfigError(f"gamma={gamma} is out of range; expected a whole number, 0 or more")
    if not 0 <= cost < float("inf"):
        raise ConfigError(f"cost={cost} is out of range; expected 0 or more")
