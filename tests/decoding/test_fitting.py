from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from specdraft import acceptance
from specdraft.decoding.fitting import Together
from specdraft.drafters.base import DrafterTraits
from specdraft.errors import ConfigError
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes import registry

RULES = acceptance.registry()
SAMPLED = Sampling(temperature=1.0)


def together(tree: str = "chain", rule: str = "greedy", sampling: Sampling | None = None, **more: Any) -> Together:
    sampling = sampling or (Sampling() if rule == "greedy" else SAMPLED)
    return replace(Together(registry()[tree](), 8, RULES[rule](), sampling, vocab=258), **more)


class TestEngine:
    @pytest.mark.parametrize(
        ("asked", "rule", "runs"),
        [
            ("auto", "greedy", "replay"),
            ("auto", "topk", "replay"),
            ("auto", "recursive", "replay"),
            ("auto", "traversal", "replay"),
            ("auto", "typical", "live"),
            ("live", "greedy", "live"),
            ("replay", "greedy", "replay"),
        ],
    )
    def test_auto_replays_what_can_be(self, asked: str, rule: str, runs: str) -> None:
        case = together(rule=rule, engine=asked)
        assert (case.runs, case.misfit) == (runs, None)

    def test_replay_alone_is_refused_where_only_decoding_tells(self) -> None:
        why = together(rule="typical", engine="replay").misfit
        assert why is not None
        assert why.startswith("acceptance=typical has no replay; it needs engine=live or engine=auto; rules that fit: ")
        assert "typical" not in why.partition("rules that fit: ")[2]

    def test_steps_and_children_that_may_be_missing(self) -> None:
        steps = together(rule="recursive", with_steps=True)
        assert steps.live_only is not None and "output.steps=true" in steps.live_only
        assert together(rule="recursive", with_steps=True, sampling=Sampling()).live_only is None
        for sampling in (Sampling(0.05), Sampling(1.0, top_p=0.9), Sampling(1.0, top_k=1)):
            cut = together("kary", "no_replacement", sampling)
            assert cut.live_only is not None and "fewer than 2 children" in cut.live_only
            assert together("chain", "no_replacement", sampling).live_only is None
        for sampling in (Sampling(0.1), Sampling(1.0, top_k=2), Sampling(1.0, top_k=0)):
            assert together("kary", "no_replacement", sampling).live_only is None


class TestShapes:
    @pytest.mark.parametrize("engine", ["auto", "live", "replay"])
    def test_a_fitted_shape_goes_with_both_engines(self, engine: str) -> None:
        case = together("sequoia", engine=engine)
        assert (case.misfit, case.plan, case.dynamic) == (None, None, False)
        assert case.runs == ("live" if engine == "live" else "replay")

    def test_a_fitted_tree_needs_room_tokens_and_prompts(self) -> None:
        narrow = registry()["sequoia"](max_depth=2, max_children=2)  # type: ignore[call-arg]
        why = together(shape=narrow).misfit
        assert why == "sequoia-md2-mc2 has room for 6 nodes only; budget=8 does not fit"
        few = together("measured", vocab=15).misfit
        assert few is not None and few.startswith("measured may have 16 children of one node; the vocabulary has 15")
        assert together("measured", prompts=1).misfit == (
            "tree=measured is fitted on half of the prompts; there is only 1"
        )
        assert together("hindsight", prompts=1).misfit is together("measured", prompts=2).misfit is None

    def test_numbers_out_of_range_come_first(self) -> None:
        for case in (
            together(budget=0),
            together("sequoia", budget=0, engine="live"),
            together("best_first", budget=0),
        ):
            with pytest.raises(ConfigError, match="budget=0 is not a node budget"):
                case.refuse()
        with pytest.raises(ConfigError, match=r"sampling\.temperature"):
            together(sampling=Sampling(-1.0)).refuse()

    def test_what_rules_say_names_the_rules_that_fit(self) -> None:
        for tree, rule, words in (
            ("kary", "rejection", "is for chains only"),
            ("best_first", "recursive", "chooses nodes by their probability"),
            ("hindsight", "recursive", "is fitted to draft ranks"),
        ):
            why = together(tree, rule).misfit
            assert why is not None and words in why and why.partition("rules that fit: ")[2].split(", ")[0] != rule

    def test_what_cannot_be_fitted(self) -> None:
        together("sequoia", engine="live", rule="recursive").refuse_fit()
        with pytest.raises(ConfigError, match="tree=kary is not fitted to traces; specdraft trees show draws it"):
            together("kary").refuse_fit()
        with pytest.raises(ConfigError, match=r"lower tree\.max_children"):
            together("sequoia", vocab=3).refuse_fit()


class TestDrafters:
    """Toy drafters that cannot do something."""

    RANKS_ONLY = DrafterTraits(probabilities=False, draws=False)

    def test_the_default_can_do_everything(self) -> None:
        for tree, rule in (("kary", "recursive"), ("best_first", "topk"), ("chain", "rejection")):
            assert together(tree, rule).misfit is None

    @pytest.mark.parametrize("rule", ["rejection", "recursive", "membership", "traversal"])
    def test_children_cannot_be_drawn(self, rule: str) -> None:
        why = together(rule=rule, traits=self.RANKS_ONLY, drafter="toy").misfit
        assert why == (
            f"acceptance={rule} needs children drawn at random, and drafter=toy only ranks them; "
            "rules that fit: topk, typical"
        )
        assert together(traits=self.RANKS_ONLY).misfit is together(rule="topk", traits=self.RANKS_ONLY).misfit is None

    def test_no_probabilities(self) -> None:
        draws = DrafterTraits(probabilities=False)
        why = together(rule="recursive", traits=draws, drafter="toy").misfit
        assert why is not None
        assert why.startswith("acceptance=recursive needs the drafter's probabilities, and drafter=toy gives none; ")
        assert "membership" in why  # it reads none
        assert together(rule="membership", traits=draws).misfit is None
        assert together("best_first", traits=draws, drafter="toy").misfit == (
            "tree=best_first chooses nodes by their probability, and drafter=toy gives none"
        )

    def test_the_deepest_tree(self) -> None:
        shallow = DrafterTraits(deepest=3)
        assert together(traits=shallow, drafter="toy").misfit == "chain has 8 levels; drafter=toy makes at most 3"
        assert together("kary", traits=shallow).misfit is None
        for tree in ("best_first", "sequoia"):
            why = together(tree, traits=shallow, drafter="toy").misfit
            assert why == f"{tree} has up to 8 levels; drafter=toy makes at most 3 (tree.max_depth=3 fits)"
            limited = registry()[tree](max_depth=3)  # type: ignore[call-arg]
            assert together(shape=limited, traits=shallow).misfit is None
        with pytest.raises(ConfigError, match="makes at most 3"):
            together("sequoia", traits=shallow).refuse_fit()

    def test_a_fitted_tree_is_as_deep_as_ranks_by_offset(self) -> None:
        heads = DrafterTraits(deepest=3, by_offset=True)
        for tree in ("measured", "sequoia"):
            case = together(tree, traits=heads, drafter="toy")
            assert (case.misfit, case.limits.depth) == (None, 3)
        narrow = together(shape=registry()["measured"](max_children=1), traits=heads)  # type: ignore[call-arg]
        assert narrow.misfit == "measured-mc1 has room for 3 nodes only; budget=8 does not fit"
        assert together("best_first", traits=heads, drafter="toy").misfit == (
            "best_first has up to 8 levels; drafter=toy makes at most 3 (tree.max_depth=3 fits)"
        )

    def test_what_goes_by_offset_has_no_predictor_and_no_expected_values(self) -> None:
        heads = DrafterTraits(deepest=3, by_offset=True)
        shape = registry()["best_first"](max_depth=3, scores="predictor")  # type: ignore[call-arg]
        why = (
            "a predictor reads what a drafter says after each token; drafter=toy proposes by the distance from the root"
        )
        assert together(shape=shape, traits=heads, drafter="toy").misfit == why
        drawn = together("kary", rule="recursive", traits=heads, drafter="toy")
        assert drawn.runs == "live"
        assert drawn.live_only == "the distributions of drafter=toy depend on the distance from the root"
        assert together("kary", rule="topk", traits=heads).live_only is None

    def test_a_state_that_outlasts_a_step_is_decoded_live(self) -> None:
        lasting = DrafterTraits(lasting_state=True)
        case = together(traits=lasting, drafter="toy")
        assert (case.runs, case.misfit) == ("live", None)
        why = replace(case, engine="replay").misfit
        assert why is not None and why.startswith("the state of drafter=toy outlasts a step")
        assert "needs engine=live or engine=auto" in why
        with pytest.raises(ConfigError, match="outlasts a step"):
            case.refuse_replayed_steps()
        fitted = together("sequoia", traits=lasting)
        assert (fitted.runs, fitted.misfit) == ("live", None)


class TestReplayedSteps:
    def test_ranks_tell_every_step(self) -> None:
        for tree, rule in (("kary", "greedy"), ("best_first", "topk")):
            together(tree, rule, engine="replay").refuse_replayed_steps()

    @pytest.mark.parametrize(
        ("tree", "rule", "words"),
        [
            ("measured", "greedy", "fitted to the traces of a whole study"),
            ("chain", "recursive", "draws its trees at random"),
            ("chain", "typical", "draws its trees at random"),
            ("kary", "rejection", "is for chains only"),
        ],
    )
    def test_what_only_decoding_tells(self, tree: str, rule: str, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            together(tree, rule).refuse_replayed_steps()
