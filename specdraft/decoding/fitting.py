"""What goes together: every reason why shape, rule, sampling and drafter do not."""

from __future__ import annotations

from collections.abc import Callable

from specdraft import acceptance
from specdraft.acceptance import AcceptanceRule
from specdraft.errors import ConfigError
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes import FittedPlan, Plan, Shape, StaticPlan


def misfit(shape: Shape, plan: Plan, rule: AcceptanceRule, sampling: Sampling) -> str | None:
    """Why they do not go together, whatever decodes or replays them; None if they do."""
    if why := rule.misfit(sampling, chain=isinstance(plan, StaticPlan) and plan.topology.is_chain):
        return why
    if rule.draw == "rank":
        return None
    if plan.dynamic:
        return (
            f"tree={shape.kind} chooses nodes by their probability, and acceptance={rule.kind} needs children "
            "drawn at random"
        )
    if isinstance(plan, FittedPlan):
        return f"tree={shape.kind} is fitted to draft ranks, and acceptance={rule.kind} needs children drawn at random"
    if isinstance(plan, StaticPlan) and not plan.topology.sibling_closed:
        return f"{shape.label} skips child ranks, and acceptance={rule.kind} draws a node's children one after another"
    return None


def too_wide(shape: Shape, plan: Plan, vocab: int) -> str | None:
    """Why a tree needs more tokens than there are, or None."""
    if isinstance(plan, StaticPlan) and (most := int(plan.topology.ranks.max()) + 1) > vocab:
        return f"{shape.label} needs {most} different children of one node; the vocabulary has {vocab} tokens"
    return None


def refuse_misfit(shape: Shape, plan: Plan, rule: AcceptanceRule, sampling: Sampling, vocab: int) -> None:
    """Raise `ConfigError` unless one tree can be decoded live with this rule and these settings."""
    sampling.check()
    rule.check()
    if isinstance(plan, FittedPlan):
        plan.refuse()
    if why := too_wide(shape, plan, vocab):
        raise ConfigError(why)
    if why := misfit(shape, plan, rule, sampling):
        raise ConfigError(f"{why}; {fitting_rules(lambda other: misfit(shape, plan, other, sampling))}")


def fitting_rules(misfit_of: Callable[[AcceptanceRule], str | None]) -> str:
    """The rules, with their default parameters, that go with a shape and sampling."""
    fitting = [kind for kind, rule in acceptance.registry().items() if misfit_of(rule()) is None]
    return f"rules that fit: {', '.join(fitting) or 'none'}"
