"""A study's combinations are made again from the configuration in its folder: the very same ones, or none."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from specdraft.study.again import combinations_again, overrides_of
from specdraft.study.plan import plan_study

STUDIES = {
    "axes": ["pair=zoo,zoo-tiny", "tree=kary", "tree.k=2,3", "budget=4,8"],
    "one of each": ["pair=zoo-tiny", "tree=kary", "tree.k=3", "budget=8", "max_new_tokens=24", "prompts.limit=2"],
    "a parameter beside an axis": ["pair=zoo-tiny", "tree=chain,kary", "tree.k=3", "budget=4"],
    "sampled": ["pair=zoo-tiny", "tree=chain", "budget=4", "sampling.temperature=0.7,1", "acceptance=rejection,topk"],
    "a drafter": ["pair=zoo-tiny", "drafter=ngram", "tree=chain", "budget=4", "prompts.system=null"],
    "lists": ["pair=zoo-tiny", "tree=branching", "tree.factors=[3,2]", "budget=4", "prompts.categories=[code,story]"],
}


@pytest.mark.parametrize("case", STUDIES)
def test_the_same_combinations(case: str) -> None:
    plan = plan_study([*STUDIES[case], "cost.measure=off"])
    asked = {c.identifier: c.keys for c in plan.combinations if not c.shape.reference or c.shape.kind == "chain"}
    config = OmegaConf.to_container(OmegaConf.create(plan.shared_config))
    assert isinstance(config, dict)
    made = combinations_again({str(key): value for key, value in config.items()}, asked)
    assert set(made) <= set(asked) and {c.identifier: c.keys for c in made.values()} == {n: asked[n] for n in made}
    assert {n for n in asked if n not in made} <= {c.identifier for c in plan.combinations if c.shape.kind == "chain"}
    assert made


def test_only_the_budgets_that_are_asked_for() -> None:
    config = {"tree": {"kind": "chain", "k": 3}, "grid": {"budget": [1, 2, 4], "tree": ["chain", "kary"]}}
    assert overrides_of(config, {2}) == ["tree.k=3", "budget=2", "tree=chain,kary"]
    assert overrides_of(config, {3}) == ["tree.k=3", "budget=1,2,4", "tree=chain,kary"]


def test_another_configuration_makes_none() -> None:
    plan = plan_study(["pair=zoo-tiny", "tree=kary", "budget=4", "cost.measure=off"])
    rows = {"0" * 12: plan.combinations[0].keys}
    config = {"pair": {"name": "zoo-tiny", "target": {"path": "zoo:target"}, "draft": {"path": "zoo:draft"}}}
    assert combinations_again(config | {"tree": {"kind": "kary"}, "budget": 4}, rows) == {}
