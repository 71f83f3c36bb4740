"""Every kind of drafter goes through the commands: one study of all kinds, live and replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from support.block import learnt_block
from support.command_line import Run
from support.drafting import record_all
from support.eagle import echoing_head
from support.medusa import fitted_heads
from support.path_heads import fitted_path_heads
from support.tiny_models import PairFolders, save_pair, window_model

from specdraft.commands.options import DONE, USAGE
from specdraft.decoding.ending import Ending
from specdraft.drafters import registry
from specdraft.drafters.pair import Pair, load_pair
from specdraft.report.writing import write_report
from specdraft.results.metrics import COUNTS
from specdraft.study.engines import replay
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study

OTHERS = {"server"}  # tests of their own, as have those whose state outlasts a step
REPLAYED = (k for k, spec in registry().items() if k not in OTHERS and not spec().traits.lasting_state)
KINDS = sorted(REPLAYED)
TEXTS = ["one two one two one two one", "def f(x): def f(x): def"]
UNTRAINED = {"early_exit", "eagle"}  # a random model's first layers, a head that repeats: they say little
SPANS_ONLY = {"ngram"}  # by its default variant: no tree of its own


class Studied(NamedTuple):
    """The overrides of the pair and of its prompts, `records.csv` of both engines, and the report."""

    pair: list[str]
    prompts: list[str]
    live: pd.DataFrame
    replayed: pd.DataFrame
    report: str


def records(overrides: list[str], engine: str, out: Path) -> pd.DataFrame:
    """Counts by drafter, tree and prompt, without what stands beside replayed rows."""
    run_study(plan_study([*overrides, f"engine={engine}", "report=false"]), out)
    table = pd.read_csv(out / "records.csv")
    return table[table["tree"] != "hindsight"].set_index(["drafter", "tree", "prompt_id"]).sort_index()[list(COUNTS)]


@pytest.fixture(scope="module")
def tiny_pair_folders(tmp_path_factory: pytest.TempPathFactory) -> PairFolders:
    """With the layer more that makes texts that repeat themselves."""
    return save_pair(tmp_path_factory.mktemp("tiny-pair"))


@pytest.fixture(scope="module")
def tiny_pair(tiny_pair_folders: PairFolders) -> Pair:
    return load_pair(tiny_pair_folders.spec())


@pytest.fixture(scope="module")
def studied(
    tiny_pair: Pair, tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Studied]:
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    hashes = dict(zip(("target", "draft"), (files.weights_hash for files in tiny_pair.files.models), strict=True))
    weights = {"weight": torch.eye(32) * 1.1, "bias": torch.full((32,), 0.1)}
    save_file(weights, folder / "map.safetensors", {"kind": "alignment", **hashes})
    prompt_ids = [tiny_pair.encode(text) for text in TEXTS]
    texts = record_all(tiny_pair.target, prompt_ids, Ending(14, tiny_pair.eos_ids))
    heads = fitted_heads(folder / "heads", tiny_pair.target, prompt_ids, texts)
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in hashes]
    nano, eagle = window_model(folder / "nano"), echoing_head(folder / "eagle")
    pair += [f"pair.heads.aligned={folder / 'map.safetensors'}", f"pair.heads.medusa={heads}", "pair.name=tiny"]
    block = learnt_block(folder / "block", tiny_pair, prompt_ids, texts)
    pair += [f"pair.heads.nano={nano}", f"pair.heads.parallel={block}", f"pair.heads.eagle={eagle}"]
    for kind in ("hydra", "redrafter"):
        paths = fitted_path_heads(folder / kind, kind, tiny_pair.target, prompt_ids, texts)
        pair += [f"pair.heads.{kind}={paths}"]
    pair += ["max_new_tokens=14"]
    prompts = ["prompts=jsonl", f"prompts.path={folder / 'p.jsonl'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(folder / "traces"))
        patch.setattr(replay.ReplayEngine, "_costs", lambda *given: {})
        grid = [*pair, *prompts, f"drafter={','.join(KINDS)}", "tree=chain,measured,best_first", "budget=4"]
        live, replayed = (records(grid, engine, folder / engine) for engine in ("live", "replay"))
        (report,) = write_report(folder / "replay", formats=["md"])
        yield Studied(pair, prompts, live, replayed, report.read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_in_every_command(kind: str, studied: Studied, run: Run) -> None:
    live, replayed = studied.live.loc[kind], studied.replayed.loc[kind]
    pd.testing.assert_frame_equal(live, replayed)
    trees = {"chain", "measured"} | (set() if kind in SPANS_ONLY else {"best_first"})
    assert set(live.index.get_level_values("tree")) == trees
    accepted = live.groupby("tree")["accepted_tokens"].sum() > 0
    assert accepted["chain"] if kind in UNTRAINED else accepted.all()
    assert kind in studied.report
    shown = run("generate", TEXTS[0], *studied.pair, f"drafter={kind}", "tree=kary", "budget=4", "--json")
    assert shown.code == DONE
    assert json.loads(shown.out)["new_tokens"] == 14
    if kind in ("model", "aligned"):
        return  # each has tests of its own
    fitted = run("trees", "fit", "measured", "budget=3", *studied.pair, *studied.prompts, f"drafter={kind}", "--json")
    assert fitted.code == DONE


def test_what_the_target_made_of_earlier_prompts(
    studied: Studied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live and replayed alike: a prompt that comes again is known."""
    monkeypatch.setattr(replay.ReplayEngine, "_costs", lambda *given: {})
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("abc", "xyz", "abc")))
    grid = [*studied.pair, "prompts=jsonl", f"prompts.path={tmp_path / 'p.jsonl'}", "tree=chain", "budget=4"]
    grid += ["drafter=suffix", "drafter.earlier=true", "drafter.offset=1"]
    live, replayed = (records(grid, engine, tmp_path / engine) for engine in ("live", "replay"))
    pd.testing.assert_frame_equal(live, replayed)
    first, _, again = live["accepted_tokens"]
    assert again > first + 4


def test_a_single_prompt_has_no_earlier_ones(studied: Studied, run: Run) -> None:
    said = run("generate", "x", *studied.pair, "drafter=suffix", "drafter.earlier=true")
    assert said.code == USAGE
    assert "drafter=suffix-eTrue reads what a study made of earlier prompts; one prompt alone has none" in said.err
    assert said.err.count("\n") == 1


def test_rows_of_a_drafter_that_reads_earlier_prompts_stand_for_these_prompts(studied: Studied) -> None:
    """A study with other prompts makes them anew; rows of a drafter that does not are reused."""
    grid = [*studied.pair, *studied.prompts, "drafter=suffix", "tree=kary", "budget=4"]
    both = [plan_study([*grid, *more]) for more in ([], ["prompts.limit=1"])]
    assert len({plan.combinations[0].weights for plan in both}) == 1
    both = [plan_study([*grid, "drafter.earlier=true", *more]) for more in ([], ["prompts.limit=1"])]
    assert len({plan.combinations[0].weights for plan in both}) == 2
