"""What a study knows beside its rows, and the manifest that says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from specdraft.acceptance import registry
from specdraft.bench.curve import CostCurve
from specdraft.drafters.pair import Pair
from specdraft.errors import ResultsError
from specdraft.losslessness.certificate import certificate
from specdraft.prompts import Prompt, digest_of_each
from specdraft.replay.folds import FOLDS, halves
from specdraft.results.comparisons import WHICH
from specdraft.results.files import without_folders
from specdraft.results.manifest import environment
from specdraft.study.failures import Failure
from specdraft.study.plan import StudyPlan
from specdraft.study.prompt_notes import notes_on_rows, notes_on_time
from specdraft.study.rows import Current


@dataclass
class Facts:
    """What is known of a study, from this run and from those that it resumes.

    Attributes:
        models: pair -> what it is (see `Pair.describe`).
        costs: pair -> what drafting and verifying cost with it.
        near_ties: pair -> near-ties of its recorded greedy texts.
        calibrations: pair -> texts -> the temperature that its scores were fitted to (see `Calibration.as_dict`).
        predictors: pair -> name -> what ranks or prunes by prediction, with its memory (see `predictors_used`).
        left_out: pair -> prompt -> why it has no text; of this run.
        rules: rule -> what enumeration says of it (see `Proof.as_dict`).
        live: pair -> what live text says of its rules, with `certify=true` (see `Checked`).
        earlier_s: seconds of the runs before this one.
        earlier_stages_s: pair -> stage -> seconds of those runs.
    """

    models: dict[str, Any]
    costs: dict[str, CostCurve]
    near_ties: dict[str, Any]
    calibrations: dict[str, dict[str, Any]]
    predictors: dict[str, dict[str, Any]]
    rules: dict[str, Any]
    live: dict[str, list[dict[str, Any]]]
    earlier_s: float
    earlier_stages_s: dict[str, dict[str, float]]
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Facts:
        """What an earlier run's manifest says; costs of another build of this program are measured again.

        Raises:
            ResultsError: it holds what no sweep writes.
        """
        try:
            return cls._of(manifest)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ResultsError(
                f"manifest.json holds what no sweep writes ({error}); choose another --out, or start over with --fresh"
            ) from error

    @classmethod
    def _of(cls, manifest: Mapping[str, Any]) -> Facts:
        known = manifest.get("certificate") or {}
        live: dict[str, list[dict[str, Any]]] = {}
        for checked in known.get("live", []):
            live.setdefault(checked["pair"], []).append(checked)
        return cls(
            models={pair: dict(models) for pair, models in manifest.get("models", {}).items()},
            costs=_curves(manifest.get("costs", {})),
            near_ties={pair: dict(ties) for pair, ties in known.get("recorded", {}).items()},
            calibrations={pair: dict(texts) for pair, texts in manifest.get("calibrations", {}).items()},
            predictors={pair: dict(used) for pair, used in manifest.get("predictors", {}).items()},
            rules={rule: dict(proof) for rule, proof in known.get("rules", {}).items()},
            live=live,
            earlier_s=float(manifest.get("wall_s", 0.0)),
            earlier_stages_s={
                pair: {name: float(seconds) for name, seconds in stages.items()}
                for pair, stages in manifest.get("stages_s", {}).items()
            },
        )

    def add_models(self, pair: Pair) -> None:
        """Put down what a loaded pair is."""
        self.models[pair.label] = pair.describe()

    def stages_s(self, now: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
        """Pair -> stage -> seconds of all runs, this one's `now`."""
        pairs = dict.fromkeys([*self.earlier_stages_s, *now])
        return {pair: _added(self.earlier_stages_s.get(pair, {}), now.get(pair, {})) for pair in pairs}

    @property
    def live_checks(self) -> list[dict[str, Any]]:
        """Of all pairs."""
        return [checked for of_pair in self.live.values() for checked in of_pair]

    @property
    def certified(self) -> bool:
        """False: live text of a lossless rule is not the target's."""
        return all(checked["passed"] or not registry()[checked["rule"]].lossless for checked in self.live_checks)

    @property
    def untested(self) -> list[str]:
        """The lossless rules of which live text could have shown nothing."""
        untested = {checked["rule"] for checked in self.live_checks if not checked.get("tested", True)}
        return sorted(rule for rule in untested if registry()[rule].lossless)


def _added(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    names = dict.fromkeys([*first, *second])
    return {name: round(first.get(name, 0.0) + second.get(name, 0.0), 2) for name in names}


def _curves(costs: Mapping[str, Any]) -> dict[str, CostCurve]:
    curves = {}
    for pair, values in costs.items():
        try:
            curves[pair] = CostCurve.of(values)
        except (TypeError, AttributeError):
            continue
    return curves


def build_manifest(
    plan: StudyPlan,
    facts: Facts,
    current: Current,
    keys: Mapping[str, Mapping[str, Any]],
    failures: Sequence[Failure],
    wall_s: float,
    stages_s: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Everything that makes a study's numbers repeatable, with its certificate.

    Args:
        plan: the study.
        facts: what is known beside the rows.
        current: the rows that the tables hold.
        keys: combination -> key columns.
        failures: that stand.
        wall_s: seconds of all runs so far.
        stages_s: see `Facts.stages_s`.
    """
    bugs = [failure.as_dict(plan.private_paths) for failure in failures if failure.is_bug]
    return {
        "study": plan.identity,
        **environment(),
        "models": facts.models,
        "costs": {pair: curve.as_dict() for pair, curve in facts.costs.items()},
        "calibrations": facts.calibrations,
        **({"predictors": facts.predictors} if facts.predictors else {}),
        "prompts": len(plan.prompts),
        "prompt_digests": digest_of_each(plan.prompts),
        "plan_notes": list(plan.notes),
        "prompt_notes": [
            note.as_dict()
            for note in (
                *plan.prompt_notes,
                *notes_on_rows(current.prompts, plan.prompts),
                *notes_on_time(current.timed_out),
            )
        ],
        "combinations": len(current.counts),
        "skipped": without_folders(
            [{"overrides": what, "reason": why} for what, why in plan.skipped], plan.private_paths
        ),
        "failed": len(failures),
        **({"left_out": facts.left_out} if facts.left_out else {}),
        "wall_s": round(wall_s, 2),
        "stages_s": stages_s,
        "fitted_trees": _halves(plan.prompts, plan.settings.seed),
        "intervals": "95 %, over prompts (see README: Intervals)",
        "comparisons": WHICH,
        "certificate": certificate(
            current.counts, keys, current.ties, facts.near_ties, bugs, facts.rules, facts.live_checks
        ),
    }


def _halves(prompts: Sequence[Prompt], seed: int) -> dict[str, Any]:
    """The half that each prompt is in; it is scored with the trees of the other one."""
    numbers = halves(prompts, seed).tolist()
    of_prompts = dict(zip((prompt.prompt_id for prompt in prompts), numbers, strict=True))
    return {"folds": FOLDS, "seed": seed, "fold_of_each_prompt": of_prompts}
