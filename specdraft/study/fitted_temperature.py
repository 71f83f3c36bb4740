"""The temperature of one pair's scores on all prompts, to keep: what `specdraft fit temperature` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdraft.config import unless_said
from specdraft.drafters.pair import load_pair
from specdraft.errors import ConfigError
from specdraft.prediction.temperature import Temperature
from specdraft.prompts import load_prompts
from specdraft.replay.calibration import Calibration
from specdraft.study.combination import Combination, encode_all
from specdraft.study.plan import one_combination
from specdraft.study.recorded import record_texts
from specdraft.study.refusals import refuse_engine, refuse_without_effect
from specdraft.trees.shapes.fitted import FOLDS

UNUSED = {
    "pruning": "the temperature is the drafter's own, whatever is pruned",
    "length": "the temperature is the drafter's own, however long chains are",
    "tree": "the temperature is the drafter's own, whatever the tree",
    "budget": "no tree is drafted",
}


@dataclass(frozen=True)
class FittedTemperature:
    """A temperature, and what it was fitted to.

    Attributes:
        combination: of the pair and the settings.
        prompts: how many prompts it was fitted on.
    """

    combination: Combination
    calibration: Calibration
    prompts: int

    def fits(self) -> Iterator[tuple[str, Temperature]]:
        """On what, and the fit: all prompts, and all but each half."""
        yield f"{self.prompts} prompts", self.calibration.everyone
        for number, fitted in enumerate(self.calibration.folds, start=1):
            yield f"without half {number}", fitted

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        keys = self.combination.keys
        said = ("pair", "target", "draft", "drafter", "dtype", "temperature", "top_k", "top_p", "max_new_tokens")
        sampling = {"sampling": {name: keys[name] for name in said[5:8]}}
        named = {name: keys[name] for name in said if name not in sampling["sampling"]}
        fits = {"fitted": self.calibration.as_dict(), "prompts": self.prompts, "seed": keys["seed"]}
        return named | sampling | fits


def fit_on_prompts(
    overrides: list[str], config_dir: Path | None = None, recorded: Callable[[str], None] = lambda what: None
) -> FittedTemperature:
    """Fit the temperature of a drafter's scores; traces are recorded where they are missing.

    Args:
        overrides: in Hydra's grammar; by default the bundled pair and its prompts.
        config_dir: the user's configs.
        recorded: called with a line of text for what takes a while.

    Raises:
        ConfigError: the drafter gives no probabilities, there are too few prompts, or the overrides cannot be meant or
            have no effect.
        UserError: as `load_prompts`, `encode_prompts` and `load_pair`.
    """
    refuse_engine("fit temperature", overrides, "replay")
    for key, why in UNUSED.items():
        refuse_without_effect("fit temperature", overrides, (key,), why)
    asked = unless_said(overrides, {"acceptance": "topk"} if samples_texts(overrides) else {})
    combination = one_combination("fit temperature", [*asked, *overrides], config_dir)
    if not combination.pair.drafter.traits.probabilities:
        raise ConfigError(f"drafter={combination.pair.drafter.label} gives no probabilities: nothing can be calibrated")
    prompts, template = load_prompts(combination.prompts), combination.prompts.chat_template
    if len(prompts) < FOLDS:
        raise ConfigError(f"a temperature is fitted on {FOLDS} halves of the prompts; there is only {len(prompts)}")
    settings, depth = combination.settings, combination.limits.depth
    encode_all(combination.pair, prompts, template, settings, depth)  # what fails, fails at once
    pair = load_pair(combination.pair)
    texts = record_texts(pair, prompts, template, combination.sampling, settings, depth, recorded)
    return FittedTemperature(combination, texts.calibrate(), len(prompts))


def samples_texts(overrides: list[str]) -> bool:
    """Whether texts are sampled: then the rule is one that goes with it."""
    return any(text.startswith(("sampling=sample", "sampling.temperature")) for text in overrides)
