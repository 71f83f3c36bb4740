"""Is decoding lossless? The enumeration proof of each rule, then live text of the real pair, as one verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specdraft.acceptance import registry
from specdraft.config import override_groups, override_keys, unless_said
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError
from specdraft.losslessness.enumeration import Proof, prove
from specdraft.losslessness.live_texts import FEWEST, LEVEL, TEXTS, Checked, check_live, pick
from specdraft.study.combination import case_of
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.progress import Progress
from specdraft.study.refusals import refuse_engine, refuse_study_keys, refuse_without_effect
from specdraft.study.turns import read_prompts
from specdraft.traces.store import TraceStore, default_folder

DEFAULTS = {
    "pair": "zoo",
    "tree": "chain,kary",  # a rule for chains gets the chain
    "budget": "6",
    "prompts.limit": "2",
    "max_new_tokens": "32",
}


@dataclass
class RuleVerdict:
    """What is known of one rule under one sampling setting with one pair; `proof` is None where text is greedy."""

    checked: Checked
    proof: Proof | None

    @property
    def certified(self) -> bool:
        """Lossless as far as both ways of looking at it say, and they could have said otherwise."""
        return self.checked.tested and not self.wrong

    @property
    def wrong(self) -> bool:
        """Either way of looking at it speaks against it."""
        return not self.checked.passed or not (self.proof is None or (self.proof.lossless and self.proof.exact))

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        proof = None if self.proof is None else self.proof.as_dict()
        return asdict(self.checked) | {
            "certified": self.certified,
            "live_verdict": self.checked.verdict,
            "proof": proof,
        }


@dataclass
class Verdict:
    """All rules together."""

    rules: list[RuleVerdict]
    skipped: list[tuple[str, str]]

    @property
    def certified(self) -> bool:
        """Every rule is."""
        return all(rule.certified for rule in self.rules)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        skipped = [{"overrides": what, "reason": why} for what, why in self.skipped]
        return {
            "certified": self.certified,
            "level": LEVEL,
            "rules": [rule.as_dict() for rule in self.rules],
            "skipped": skipped,
        }


def certify(
    overrides: list[str], config_dir: Path | None = None, texts: int | None = None, progress: Progress | None = None
) -> Verdict:
    """Certify the rules, sampling settings and pairs that overrides name; by default all lossless rules on the
    bundled pair.

    Args:
        overrides: in Hydra's grammar.
        config_dir: the user's configs.
        texts: sampled texts for each rule and prompt (default 200).
        progress: told whenever something is done.

    Raises:
        UserError: as `plan_study`; too few texts or tokens.
    """
    texts = TEXTS if texts is None else texts
    if texts < 4 * FEWEST:
        raise ConfigError(f"--texts {texts} is out of range; expected {4 * FEWEST} or more")
    refuse_study_keys("certify", overrides)
    refuse_engine("certify", overrides, "live")
    refuse_without_effect("certify", overrides, ("length",), "chains are chains: rules are checked on whole ones")
    refuse_without_effect("certify", overrides, ("pruning",), "pruned trees are trees: rules are checked on whole ones")
    progress = progress or Progress()
    plan = plan_study([*with_defaults(overrides), *overrides], config_dir)
    if any(c.settings.max_new_tokens < 2 for c in plan.combinations):
        raise ConfigError("max_new_tokens=1 leaves nothing to verify; expected 2 or more")
    kinds = {repr(c.rule) for c in plan.combinations}
    cases = {(c.pair, repr(c.rule), repr(c.sampling), c.drawn) for c in plan.combinations}
    progress.stage("certify", len(kinds) + len(cases), "checks")

    proofs: dict[str, Proof] = {}
    for combination in plan.combinations:
        rule = combination.rule
        if not combination.sampling.greedy and repr(rule) not in proofs:
            by_depth = any(c.drawn.temperatures for c in plan.combinations if repr(c.rule) == repr(rule))
            proofs[repr(rule)] = prove(rule, by_depth=by_depth)
            progress.done(1)
    verdicts: list[RuleVerdict] = []
    loaded: Pair | None = None
    for files, combinations in plan.by_pair().items():
        loaded = load_pair(files, target_of=loaded)
        prompts = read_prompts(loaded, plan.prompts, combinations, TraceStore(default_folder()))
        picked = pick(map(case_of, combinations))
        checks = check_live(loaded, picked, prompts, texts, plan.settings.seed, lambda what: progress.done(1))
        for case, checked in zip(picked, checks, strict=True):
            verdicts.append(RuleVerdict(checked, None if case.sampling.greedy else proofs[repr(case.rule)]))
    return Verdict(verdicts, _truly_skipped(plan, overrides))


def with_defaults(overrides: list[str]) -> list[str]:
    """What `certify` sets where the overrides do not."""
    lossless = ",".join(kind for kind, rule in registry().items() if rule.lossless)
    sampled = [] if "sampling" in override_keys(overrides) else ["sampling=sample"]
    fixed = ["engine=live"]
    if "experiment" in override_keys(overrides):
        return [*unless_said(overrides, {"prompts.limit": DEFAULTS["prompts.limit"]}), *fixed]
    return [*unless_said(overrides, DEFAULTS | {"acceptance": lossless}), *sampled, *fixed]


def _truly_skipped(plan: StudyPlan, overrides: list[str]) -> list[tuple[str, str]]:
    """Of what was skipped, the rules that were asked for and are not checked on any other tree."""
    checked = {f"acceptance={c.rule.kind}" for c in plan.combinations}
    asked = not {"acceptance", "experiment"}.isdisjoint(override_groups(overrides))
    return [(what, why) for what, why in plan.skipped if asked and not checked & set(what.split())]
