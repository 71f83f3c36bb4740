"""Overrides that a command is given and does not look at: an input that has no effect is an error."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from specdraft.config import Settings, override_groups, override_keys
from specdraft.config.settings import CostSpec
from specdraft.errors import ConfigError
from specdraft.prediction.length import LengthPolicy
from specdraft.prediction.pruning import PruningPolicy
from specdraft.prompts import PromptSpec

if TYPE_CHECKING:
    from specdraft.models.files import ModelFiles
    from specdraft.study.combination import Combination

STUDY_KEYS = (
    "name",
    "repeats",
    "report",
    "certify",
    "output",
    "cost",
    "threads",
    "batch",
    "cache",
    "executor",
    "resources",
)
THEIRS = {("generate", "cache")}  # command and key of a study that it looks at all the same


def refuse_beside_workers(settings: Settings, combinations: Iterable[Combination]) -> None:
    """Raise `ConfigError` for pairs that workers cannot have: a served target, which one process asks with
    `concurrency`, and a device by its number, of which each worker sees its own."""
    if settings.executor == "local":
        return
    for files in {id(c.pair): c.pair for c in combinations}.values():
        if files.target.spec.served:
            raise ConfigError(
                f"executor={settings.executor} does not go with pair.target.server, which one process asks for several "
                "texts at once (pair.target.server.concurrency); leave it out"
            )
        for model in files.models:
            if model.spec.device.startswith("cuda:"):
                raise ConfigError(
                    f"executor={settings.executor} gives each worker its own graphics cards, and device="
                    f"{model.spec.device} names one of all; expected device=cuda or auto"
                )


def refuse_study_keys(command: str, overrides: Iterable[str]) -> None:
    """Raise `ConfigError` for keys that say something of a study where a command runs none."""
    keys = [key for key in STUDY_KEYS if (command, key) not in THEIRS]
    refuse_without_effect(command, overrides, keys, "it is for a whole study (specdraft sweep)")


def refuse_engine(command: str, overrides: Iterable[str], engine: str) -> None:
    """Raise `ConfigError` where the overrides ask a command for another engine than the one it has."""
    other = {"live": "replay", "replay": "live"}[engine]
    does = {"live": "decodes with the models", "replay": "reads traces"}[engine]
    chosen = [text for text in overrides if override_keys([text]) == ["engine"] and text.partition("=")[2] == other]
    refuse_without_effect(command, chosen, ("engine",), f"{command} always {does} (engine={engine})")


def refuse_encoder_decoder(command: str, target: ModelFiles) -> None:
    """Raise `ConfigError` where what is learnt are states that a target has of its prompts too."""
    if target.encodes:
        raise ConfigError(
            f"specdraft {command} learns from a decoder-only target's states; {target.spec.path} is an encoder-decoder"
        )


def refuse_prompt_set(overrides: Iterable[str], combination: Combination) -> None:
    """Raise `ConfigError` where `generate`, which is given its prompt, is told of a set that it does not fit to."""
    if not (combination.shape.fitted or combination.fits_scores):
        meant = ("prompts.chat_template", "prompts.system")
        chosen = [text for text in overrides if override_keys([text])[0] not in meant]
        why = f"the prompt is the one that is given, and tree={combination.shape.kind} is not fitted to others"
        refuse_without_effect("generate", chosen, ("prompts",), why)


def refuse_bundled_path(overrides: Iterable[str], spec: PromptSpec) -> None:
    """Raise `ConfigError` for `prompts=bundled` beside a path: alone, a path to a file means `prompts=jsonl`."""
    bundled = [text for text in overrides if text.lstrip("+") in ("prompts=bundled", "prompts.kind=bundled")]
    if spec.path and bundled:
        raise ConfigError(f"{bundled[0]} does not go with prompts.path={spec.path}; leave one of them out")


def refuse_costs_unused(settings: Settings, combinations: Iterable[Combination]) -> None:
    """Raise `ConfigError` where it is said how costs are measured and no combination is replayed. A table of costs is
    for live policies too that weigh them."""
    live = [*combinations]
    if any(combination.engine == "replay" for combination in live):
        return
    weighed = any(policy.needs_costs for one in live for policy in (one.pruning, one.length))
    for key, usual in asdict(CostSpec()).items():
        if (value := getattr(settings.cost, key)) != usual and not (weighed and key == "table"):
            why = "nothing is replayed, and live times are measured"
            raise ConfigError(f"cost.{key}={value} has no effect: {why}")


def refuse_time_unused(settings: Settings, engines: Iterable[str]) -> None:
    """Raise `ConfigError` where texts are given a time and none is decoded live."""
    if settings.max_time_s is not None and "live" not in engines:
        raise ConfigError(f"max_time_s={settings.max_time_s} has no effect: nothing is decoded live (engine=live)")


def refuse_costs_off(settings: Settings, policies: Iterable[tuple[str, PruningPolicy | LengthPolicy]]) -> None:
    """Raise `ConfigError` where a policy, under the name of its group, weighs costs and none are to be measured."""
    kinds = [f"{group}={policy.kind}" for group, policy in policies if policy.needs_costs]
    if settings.cost.measure == "off" and kinds:
        raise ConfigError(f"{kinds[0]} weighs measured costs, and cost.measure=off measures none")


def refuse_draft_temperature(command: str, overrides: Iterable[str]) -> None:
    """Raise `ConfigError` for a draft temperature where nothing is drawn."""
    if command.partition(" ")[0] in ("fit", "trees"):
        why = "what it fits goes by the drafter's ranks and raw scores"
        refuse_without_effect(command, overrides, ("sampling.draft_temperature",), why)


def refuse_without_effect(command: str, overrides: Iterable[str], without: Container[str], why: str) -> None:
    """Raise `ConfigError` for an override of a key, or of a key in a group, that a command does not look at."""
    for text in overrides:
        (key,), (group,) = override_keys([text]), override_groups([text])
        if key in without or group in without:
            raise ConfigError(f"{text} has no effect in {command}: {why}; leave it out")
