"""Best-first trees by calibrated scores in a study: fitted on one half of the prompts, scored on the other one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from support.asked import prompts_of, tiny_pair_of
from support.drafting import draft_logits
from support.tiny_models import PairFolders

from specdraft import SpeculativeDecoder
from specdraft.config import Settings
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.prediction.temperature import fit_temperature
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.replay.folds import folds
from specdraft.results.metrics import COUNTS
from specdraft.sampling.distribution import Sampling
from specdraft.study.plan import plan_study
from specdraft.study.recorded import RecordedTexts, record_texts
from specdraft.study.run import Outcome, run_study
from specdraft.traces.score_losses import score_losses
from specdraft.trees.shapes.best_first import BestFirst

GRID = ["tree=best_first,best_first-calibrated", "budget=3,6", "max_new_tokens=24", "cost.measure=off", "report=false"]


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    prompts = prompts_of(tmp_path_factory.mktemp("prompts"))
    return [*tiny_pair_of(tiny_pair_folders), *prompts, *GRID]


@pytest.fixture(scope="module", autouse=True)
def _traces(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.mktemp("traces")))
        yield


@pytest.fixture(scope="module")
def replayed(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_study(plan_study(base), tmp_path_factory.mktemp("replayed") / "study")


def rows(outcome: Outcome) -> pd.DataFrame:
    table = pd.read_csv(outcome.out / "records.csv")
    return table[table["tree"].str.startswith("best_first")].set_index(["tree", "budget", "prompt_id"])[list(COUNTS)]


def calibrations(outcome: Outcome) -> dict[str, dict[str, object]]:
    manifest = json.loads((outcome.out / "manifest.json").read_text())
    found: dict[str, dict[str, object]] = manifest["calibrations"]["tiny"]
    return found


def test_live_decoding_has_the_same_counts_and_temperatures(base: list[str], replayed: Outcome, tmp_path: Path) -> None:
    asked = [override for override in base if not override.startswith("cost.")]
    live = run_study(plan_study([*asked, "engine=live"]), tmp_path / "live")
    assert not replayed.failures and not live.failures
    pd.testing.assert_frame_equal(rows(replayed), rows(live))
    assert calibrations(replayed) == calibrations(live)
    by_tree = rows(replayed).groupby("tree")["accepted_tokens"].sum()
    assert by_tree["best_first"] != by_tree["best_first-calibrated"], "the two rank alike: nothing is tested"


def test_each_half_is_scored_with_the_temperature_of_the_other(
    base: list[str], replayed: Outcome, tiny_pair: Pair, tmp_path: Path
) -> None:
    (fitted,) = calibrations(replayed).values()
    prompts = load_prompts(PromptSpec(kind="jsonl", path=next(o for o in base if "prompts.path" in o).split("=")[1]))
    texts = record_texts(tiny_pair, prompts, "auto", Sampling(), Settings(max_new_tokens=24), 6)
    losses = score_losses(tiny_pair, texts.prompt_ids, texts.traces, texts.store)
    fold = folds([prompt.category for prompt in prompts], 0).tolist()
    assert sorted(fold) == [0, 0, 1, 1]
    of_folds = [
        fit_temperature(losses[p.prompt_id] for p, half in zip(prompts, fold, strict=True) if half != number).value
        for number in range(2)
    ]
    assert fitted["of_folds"] == of_folds and of_folds[0] != of_folds[1]
    assert fitted["value"] == fit_temperature(losses.values()).value
    told = pd.read_csv(replayed.out / "reliability.csv").query("what == 'survival' and depth == 1 and rank == 0")
    first_choice = {
        "raw": first_choices(tiny_pair, texts, [1.0] * 4),
        "calibrated": first_choices(tiny_pair, texts, [of_folds[half] for half in fold]),
    }
    assert told.set_index("scores")["predicted"].to_dict() == pytest.approx(first_choice, abs=1e-5)
    for number, temperature in enumerate(of_folds):  # rows are those of a study at that temperature
        fixed = [o for o in base if not o.startswith("tree=")]
        given = ["tree=best_first-calibrated", f"tree.temperature={temperature}", *fixed]
        alone = rows(run_study(plan_study(given), tmp_path / str(number))).droplevel("tree")
        mine = rows(replayed).loc["best_first-calibrated"]
        members = [p.prompt_id for p, half in zip(prompts, fold, strict=True) if half == number]
        for name in members:
            pd.testing.assert_frame_equal(
                mine.xs(name, level="prompt_id"), alone.xs(name, level="prompt_id"), check_like=True
            )


def first_choices(pair: Pair, texts: RecordedTexts, temperatures: Sequence[float]) -> float:
    """The mean probability of the drafter's first choice over all starts, each text at its own temperature."""
    each = zip(texts.names, temperatures, strict=True)
    said = [(draft_logits(pair, texts, name) / temperature).softmax(-1).max(-1).values for name, temperature in each]
    return float(torch.cat(said).mean())


def test_rows_are_reused_and_made_again_where_prompts_are_added(base: list[str], tmp_path: Path) -> None:
    out, fewer = tmp_path / "study", [*base, "prompts.limit=3"]
    run_study(plan_study(fewer), out)
    again = run_study(plan_study(fewer), out)
    assert again.rows == 0
    grown = run_study(plan_study(base), out)
    made = pd.read_csv(out / "records.csv")["tree"].value_counts()
    assert made["best_first-calibrated"] == made["best_first"] == 8
    assert (grown.rows, grown.reused) == (2 * 8 + 4, 2 * 6)  # of hindsight too, which is fitted, all are made again


def test_one_prompt_is_too_few(base: list[str]) -> None:
    plan = plan_study([*base, "prompts.limit=1"])
    assert {reason for _, reason in plan.skipped} == {
        "tree=best_first-calibrated is fitted on half of the prompts; there is only 1"
    }


def test_a_decoder_fits_on_all_prompts(base: list[str], replayed: Outcome, tiny_pair: Pair) -> None:
    (fitted,) = calibrations(replayed).values()
    on = PromptSpec(kind="jsonl", path=next(o for o in base if "prompts.path" in o).split("=")[1])
    decoder = SpeculativeDecoder(tiny_pair, BestFirst(scores="calibrated"), 6, 24, fitted_on=on)
    assert decoder.plan.nested is not None and decoder.plan.nested.temperature == fitted["value"]
    plain = SpeculativeDecoder(tiny_pair, "chain", 1, 24).generate("It was")
    assert decoder.generate("It was").token_ids == plain.token_ids


def test_a_single_prompt_is_not_replayed_with_what_a_study_fits(base: list[str]) -> None:
    calibrated = next(c for c in plan_study(base).combinations if c.shape.fits_scores)
    with pytest.raises(ConfigError, match=r"fitted to the traces of a whole study; with tree\.temperature=T"):
        calibrated.together.refuse_replayed_steps()
