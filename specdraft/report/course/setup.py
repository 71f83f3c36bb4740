"""What was run, on what, and on which prompts: tables of the paper's method and set-up, out of a study's manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

from specdraft.errors import UserError
from specdraft.prompts import Prompt, PromptSpec, load_prompts
from specdraft.report.course.blocks import Grid
from specdraft.report.course.catalogue import Catalogue
from specdraft.report.words import Name, Text
from specdraft.results.study_tables import StudyTables

MANIFEST, CONFIG = "manifest.json", "config.yaml"


@dataclass(frozen=True)
class Setup:
    """A study's circumstances.

    Attributes:
        studies: the main one first.
    """

    studies: list[StudyTables]
    texts: Catalogue

    def pairs(self) -> Grid:
        """A row for every model of every pair."""
        rows: list[list[Text]] = []
        for study in self.studies:
            for pair, roles in study.manifest.get("models", {}).items():
                rows += [
                    [(Name(pair),), (self.texts.label(f"setup.{role}"),), (Name(str(model.get("path", "?"))),),
                     (_count(model.get("parameters")),), (f"{model.get('dtype')}, {model.get('quantize')}",),
                     (str(model.get("device")),)]
                    for role, model in roles.items()
                    if isinstance(model, dict) and role in ("target", "draft")
                ]  # fmt: skip
        return Grid(self.texts.label("setup.models"), self.texts.of("setup.model_columns"), rows, MANIFEST)

    def prompts(self) -> Grid | None:
        """A row for every category of prompts; None where the prompts are not here any more."""
        rows: list[list[Text]] = []
        for study in self.studies:
            for category, prompts in _by_category(study).items():
                words = [len(prompt.text.split()) for prompt in prompts]
                signs = [len(prompt.text) for prompt in prompts]
                rows.append([(Name(_kind(study)),), (Name(category),), (str(len(prompts)),),
                             (f"{median(words):g} ({min(words)}–{max(words)})",),
                             (f"{median(signs):g} ({min(signs)}–{max(signs)})",)])  # fmt: skip
        if not rows:
            return None
        columns = self.texts.of("setup.prompt_columns")
        return Grid(self.texts.label("setup.prompts"), columns, rows, CONFIG, self.texts.say("setup.prompt_note"))

    def machine(self) -> Iterator[Text]:
        """Hardware, software and time, a line each."""
        manifest, texts = self.studies[0].manifest, self.texts
        hardware, libraries = manifest.get("hardware", {}), manifest.get("libraries", {})
        gpus = ", ".join(hardware.get("gpus") or []) or texts.label("setup.no_gpu")
        yield texts.say("setup.hardware", system=str(hardware.get("system")), cpu=str(hardware.get("cpu")),
                        cores=hardware.get("cores"), memory=hardware.get("memory_gib"), gpus=gpus,
                        threads=manifest.get("threads"))  # fmt: skip
        named = ", ".join(f"{name} {version}" for name, version in libraries.items())
        yield texts.say("setup.software", python=str(manifest.get("python")), libraries=named)
        source = manifest.get("source") or {}
        yield texts.say("setup.source", commit=Name(str(source.get("commit"))), seed=manifest["study"].get("seed"))
        records = self.studies[0].records
        assert records is not None
        yield texts.say("setup.generated", tokens=int(records["max_new_tokens"].iloc[0]),
                        prompts=records["prompt_id"].nunique(), combinations=len(self.studies[0].summary))  # fmt: skip


def _count(parameters: Any) -> str:
    return f"{parameters:,}" if isinstance(parameters, int) else "?"


def _kind(study: StudyTables) -> str:
    return str(study.summary["prompts"].iloc[0])


def _by_category(study: StudyTables) -> dict[str, list[Prompt]]:
    """The study's prompts as its configuration names them."""
    known = {field.name for field in fields(PromptSpec)}
    asked = {key: value for key, value in (study.config.get("prompts") or {}).items() if key in known}
    try:
        prompts = load_prompts(PromptSpec(**asked))
    except UserError:
        return {}
    listed: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        listed.setdefault(prompt.category or "", []).append(prompt)
    return listed
