"""Whether the rules of a study are as they claim: which are enumerated on which families of trees, and what live
text says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from specdraft.drafters.pair import Pair
from specdraft.errors import OUT_OF_MEMORY, ModelError
from specdraft.models.memory import out_of_gpu_memory
from specdraft.study.combination import Combination, case_of
from specdraft.study.plan import StudyPlan
from specdraft.study.turns import read_prompts
from specdraft.traces.store import TraceStore, default_folder
from specdraft.traces.watch import UNWATCHED, Watch

if TYPE_CHECKING:
    from specdraft.losslessness.enumeration import Proof

CHECKED_PROMPTS = 2  # that `certify=true` decodes live


class Proven(NamedTuple):
    """A rule that was enumerated, and the sampled combinations that decode with it."""

    proof: Proof
    combinations: list[Combination]


def prove_rules(
    combinations: Sequence[Combination],
    known: Mapping[str, Mapping[str, Any]],
    missing: Callable[[Combination], int],
) -> Iterator[Proven]:
    """Enumerate the rules of sampled combinations on trees of their families.

    Args:
        combinations: the study's.
        known: rule -> what an earlier enumeration said; it stands where nothing is missing and no family is new.
        missing: how many rows of a combination are still to do.
    """
    rules = sampled_rules(combinations)
    if not rules:
        return
    from specdraft.losslessness.enumeration import family, prove

    for kind, decoded in rules.items():
        wanted = {family(None if c.pruning.prunes else c.topology) for c in decoded}
        proven = set(known.get(kind, {}).get("families", []))
        if any(map(missing, decoded)) or not wanted <= proven:
            by_depth = any(c.drawn.temperatures for c in decoded)
            yield Proven(prove(decoded[0].rule, wanted | proven, by_depth), decoded)


def sampled_rules(combinations: Iterable[Combination]) -> dict[str, list[Combination]]:
    """The sampled combinations of each rule."""
    by_rule: dict[str, list[Combination]] = {}
    for combination in combinations:
        if not combination.sampling.greedy:
            by_rule.setdefault(combination.rule.kind, []).append(combination)
    return by_rule


def check_pair(
    plan: StudyPlan, pair: Pair, combinations: Sequence[Combination], watch: Watch = UNWATCHED
) -> list[dict[str, Any]]:
    """Compare live text of each rule with the target, on the first prompts; `watch` is told of the stage certify.

    Raises:
        ModelError: the GPU's memory ran out.
    """
    from specdraft.losslessness.live_texts import TEXTS, check_live, pick

    store = TraceStore(default_folder())
    prompt_ids = read_prompts(pair, plan.prompts[:CHECKED_PROMPTS], combinations, store)
    picked = pick(map(case_of, combinations))
    watch.stage("certify", len(picked), "checks")
    try:
        checks = check_live(pair, picked, prompt_ids, TEXTS, plan.settings.seed, lambda what: watch.done(1))
    except RuntimeError as error:
        if out_of_gpu_memory(error):
            raise ModelError(OUT_OF_MEMORY) from error
        raise
    return [asdict(checked) for checked in checks]
