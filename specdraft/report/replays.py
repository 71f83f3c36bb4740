"""Steps of a report's prompts, replayed from traces: pages to step through inside the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from specdraft.errors import ConfigError, ResultsError, UserError
from specdraft.report.drill import MOST, Drill, candidates, drill, read_prompt_rows
from specdraft.report.findings import Findings
from specdraft.report.leads import Lead
from specdraft.report.study_files import StudyFiles
from specdraft.report.words import Name, Text, say

if TYPE_CHECKING:
    from specdraft.study.combination import Combination

MOST_BYTES = 100 * 2**20  # of weights: larger models are not loaded for a report
CONFIG = "config.yaml"
NOT_MADE = say("Steps are not shown here: the configuration of this study makes other combinations today.")


def drills(findings: Findings, planned: Sequence[Combination] = ()) -> list[Drill]:
    """The headlines' leaders, category by category and prompt by prompt, with steps as far as traces and models tell
    them. A leader whose steps they do not tell gives way to the best shape of which they do.

    Args:
        findings: what the study's files say.
        planned: the study's combinations, where they are at hand; else they are made again from its configuration.
    """
    study, leads = findings.study, list(findings.headlines.values())[:MOST]
    rows = [candidates(findings, lead) for lead in leads]
    records = read_prompt_rows(study, pd.concat(rows)) if rows else None
    if records is None:
        return []
    known: dict[str, Combination] = {combination.identifier: combination for combination in planned}
    again, problem = (known, NOT_MADE) if known else _again(study, pd.concat(rows))
    drilled = (_drill(study, lead, of_lead, records, again, problem) for lead, of_lead in zip(leads, rows, strict=True))
    return [one for one in drilled if one is not None]


def _again(study: StudyFiles, rows: pd.DataFrame) -> tuple[dict[str, Combination], Text]:
    """The rows' combinations, and what to say where there is none."""
    try:
        again = _combinations(study, rows)
    except UserError as error:
        return {}, say("Steps are not shown here: {}.", _first_line(error))
    return again, NOT_MADE


def _drill(
    study: StudyFiles,
    lead: Lead,
    rows: pd.DataFrame,
    records: pd.DataFrame,
    again: Mapping[str, Combination],
    problem: Text,
) -> Drill | None:
    """A leader, or what stands in its place, with what can be shown of it."""
    first = drill(study, rows[rows["tree"] == lead.tree].iloc[0], records)
    if first is None:
        return None
    leading = sorted(rows.iterrows(), key=lambda item: item[1]["tree"] != lead.tree)  # stable: the best first
    for _, row in leading:
        combination, one = again.get(str(row["combination"])), drill(study, row, records)
        if combination is None or one is None:
            continue
        try:
            pages = dict(_pages(study, combination, one))
        except UserError as error:
            if row["tree"] == lead.tree:
                problem = say("The steps of {} are not shown: {}.", Name(str(row["shown"])), _first_line(error))
            continue
        in_place = say("{} In its place: {}, the best shape of which they can be.", problem, Name(str(row["shown"])))
        return replace(one, pages=pages, note=() if row["tree"] == lead.tree else in_place)
    return replace(first, note=problem)


def _first_line(error: UserError) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _combinations(study: StudyFiles, rows: pd.DataFrame) -> dict[str, Combination]:
    """The rows' combinations, made again. Raises `UserError` where that cannot be."""
    from omegaconf import OmegaConf

    from specdraft.study.again import combinations_again

    try:
        config = OmegaConf.to_container(OmegaConf.load(study.folder / CONFIG))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{CONFIG} is missing or cannot be read") from error
    if not isinstance(config, dict):
        raise ResultsError(f"{CONFIG} is not a configuration")
    keys = rows.set_index("combination")[["pair", "tree", "budget"]].to_dict("index")
    wanted = {str(name): {str(key): value for key, value in row.items()} for name, row in keys.items()}
    return combinations_again({str(key): value for key, value in config.items()}, wanted)


def _pages(study: StudyFiles, combination: Combination, one: Drill) -> Iterator[tuple[str, str]]:
    """Prompt id -> its page, of the prompts that are worth a look. Raises `UserError`."""
    from specdraft.traces.store import TraceStore, default_folder
    from specdraft.viewer.page import page
    from specdraft.viewer.replayed import recorded, replayed

    combination = replace(combination, settings=replace(combination.settings, engine="replay"))
    models = sum(map(_weight_bytes, combination.pair.models)) <= MOST_BYTES
    loaded, store = None, TraceStore(default_folder())
    for row in one.picked:
        of_prompt = _with_its_temperature(study, combination, row.prompt_id)
        recording = recorded(of_prompt, row.prompt_id, store, models, loaded=loaded)
        loaded, showing = recording.pair, replayed(recording)
        accepted = [len(step.accepted) for step in showing.steps()]
        if (len(accepted), sum(accepted)) != (row.steps, row.accepted):
            raise ResultsError("models and traces here take other steps than the study did")
        yield row.prompt_id, page(showing.shown())


def _weight_bytes(files: Any) -> int:
    return sum(path.stat().st_size for path in Path(files.folder).glob("*.safetensors"))


def _with_its_temperature(study: StudyFiles, combination: Combination, prompt_id: str) -> Combination:
    """Calibrated scores at the temperature that the study fitted for this prompt, on the texts of others."""
    shape: Any = combination.shape
    if not shape.fits_scores or shape.fits_predictor:
        return combination
    fold = study.about("fitted_trees", "fold_of_each_prompt", prompt_id)
    for fitted in _values(study.about("calibrations", combination.pair.spec.name)):
        with suppress(TypeError, KeyError, IndexError):
            return replace(combination, shape=replace(shape, temperature=float(fitted["of_folds"][fold])))
    raise ConfigError("manifest.json does not say what its scores were fitted to")


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else []
