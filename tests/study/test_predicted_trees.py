"""Best-first trees that a predictor ranks: live and replayed alike, and refused where the file does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.asked import prompts_of, tiny_pair_of
from support.tiny_models import PairFolders

from specdraft import SpeculativeDecoder
from specdraft.acceptance import Greedy
from specdraft.decoding.decode import decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import RecordedText
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError, UserError
from specdraft.prediction import tree_scores
from specdraft.prediction.calibration import Calibration
from specdraft.prediction.mlp import Mlp
from specdraft.prediction.predictor import About, Predictor, load_predictor, save_predictor
from specdraft.prediction.predictors import Conditional, Raw
from specdraft.prediction.tree_scores import PredictedScores
from specdraft.results.metrics import COUNTS
from specdraft.sampling.distribution import Sampling
from specdraft.study.engines import predictors, pruning
from specdraft.study.plan import plan_study
from specdraft.study.run import Outcome, run_study
from specdraft.trees.shapes.best_first import BestFirst

GRID = ["budget=3,7", "max_new_tokens=24", "report=false"]
GROUPS = ("raw", "temperature", "place", "spread", "parent", "loop")


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    prompts = prompts_of(
        tmp_path_factory.mktemp("prompts"), [{"prompt": text} for text in ("Once upon a time", "It was", "x = f(")]
    )
    return [*tiny_pair_of(tiny_pair_folders), *prompts, *GRID]


@pytest.fixture(scope="module", autouse=True)
def _traces(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.mktemp("traces")))
        yield


def network(loops: bool = True) -> Mlp:
    """One that knows nothing of acceptance, but reads everything; never quite sure, or all nodes are alike."""
    rng = np.random.default_rng(0)
    width = 2 + 2 + 24 + 3 + 6 + 1
    hidden, bias, out = (rng.normal(size=s).astype(np.float32) / 8 for s in ((width, 4), (4,), (4,)))
    hidden[-1] = 9 * np.sign(out) if loops else 0
    return Mlp(GROUPS, hidden, bias, out, -1.0)


def predictor_of(pair: Pair, model: Conditional, sampling: Sampling | None = None) -> Predictor:
    named = (pair.files.spec.name, "model", *pair.files.weights)
    about = About(*named, sampling or Sampling(), 0.5, model.kind, "none", model.groups, 3, 100)
    return Predictor(model, Calibration(), about)


def saved(path: Path, pair: Pair, model: Conditional, sampling: Sampling | None = None) -> Path:
    save_predictor(predictor_of(pair, model, sampling), path)
    return path


def predicted(path: Path) -> list[str]:
    return ["tree=best_first", "tree.scores=predictor", f"tree.predictor={path}"]


def rows(outcome: Outcome) -> pd.DataFrame:
    assert not outcome.failures
    table = pd.read_csv(outcome.out / "records.csv")
    mine = table[table["tree"].str.startswith("best_first")]
    return mine.set_index(["budget", "prompt_id"])[list(COUNTS)]


def memory(folder: Path) -> dict[str, dict[str, float]]:
    """Of each predictor, as the manifest says."""
    used = json.loads((folder / "manifest.json").read_text())["predictors"]["tiny"]
    return {name: about["memory"] for name, about in used.items()}


def test_live_decoding_has_the_counts_of_replay(base: list[str], tiny_pair: Pair, tmp_path: Path) -> None:
    asked = [*base, *predicted(saved(tmp_path / "p.safetensors", tiny_pair, network()))]
    replayed = rows(run_study(plan_study([*asked, "cost.measure=off"]), tmp_path / "replayed"))
    live = rows(run_study(plan_study([*asked, "engine=live"]), tmp_path / "live"))
    pd.testing.assert_frame_equal(replayed, live)
    models = (tiny_pair.target.model, tiny_pair.drafter.model.model)  # type: ignore[attr-defined]
    weights = sum(parameter.nbytes for model in models for parameter in model.parameters())
    held = 4 * (38 * 4 + 4 + 4) + 8
    for engine in ("replayed", "live"):
        said = memory(tmp_path / engine)["p.safetensors"]
        assert (said["megabytes"], said["percent"]) == pytest.approx((held / 1e6, 100 * held / weights))
    raw = rows(run_study(plan_study([*base, "tree=best_first", "cost.measure=off"]), tmp_path / "raw"))
    assert not raw.equals(replayed), "the network ranks as the drafter does: nothing is tested"


@pytest.mark.parametrize("name", ["zoo-tiny", pytest.param("zoo", marks=pytest.mark.slow)])
def test_repetitions_are_read_alike_live_and_replayed(name: str) -> None:
    pair, found = load_pair(name), []
    prompt = pair.encode("one two three, one two three, one")
    for loops in (True, False):
        plan = BestFirst().at(12).scored_by(PredictedScores("", 0.5, predictor_of(pair, network(loops))))
        text = decode(Verifier.of(pair), pair.drafter, plan, Greedy(), Sampling(), prompt, Ending(40, frozenset()))
        steps = text.finish().steps
        (trees,) = pair.drafter.expand([RecordedText(prompt, np.array(text.tokens))], plan)
        starts = np.cumsum([0, *(len(step.tokens) for step in steps[:-1])])
        for start, step in zip(starts, steps, strict=True):
            grown = step.tree.topology
            assert grown.parents[1:].tolist() == trees.parent[start].tolist()
            assert step.tree.token_list()[1:] == trees.token[start].tolist()
        found.append(trees.token)
    assert len(starts) > 5 and not np.array_equal(*found), "no node repeats what stood before: nothing is tested"


def test_one_that_repeats_the_drafter_has_its_trees(base: list[str], tiny_pair: Pair, tmp_path: Path) -> None:
    path = saved(tmp_path / "raw.safetensors", tiny_pair, Raw())
    mine = rows(run_study(plan_study([*base, *predicted(path), "cost.measure=off"]), tmp_path / "predicted"))
    raw = rows(run_study(plan_study([*base, "tree=best_first", "cost.measure=off"]), tmp_path / "raw"))
    pd.testing.assert_frame_equal(mine, raw)


def test_rows_belong_to_what_the_file_holds(base: list[str], tiny_pair: Pair, tmp_path: Path) -> None:
    path = saved(tmp_path / "p.safetensors", tiny_pair, Raw())

    def names() -> list[str]:
        return [c.identifier for c in plan_study([*base, *predicted(path)]).combinations if c.scorer]

    before = names()
    saved(path, tiny_pair, network())
    assert not set(before) & set(names())
    saved(path, tiny_pair, Raw())
    assert before == names() and len(before) == 2


def test_a_plan_reads_a_file_once(
    base: list[str], tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once to rank and once to prune, whatever the number of combinations."""
    path, read = saved(tmp_path / "p.safetensors", tiny_pair, network()), []

    def counted(*given: Any) -> Predictor:
        read.append(given[0])
        return load_predictor(*given)

    for module in (tree_scores, pruning):
        monkeypatch.setattr(module, "load_predictor", counted)
    pruned = ["pruning=none,ratio,levels", "pruning.scores=predictor", f"pruning.predictor={path}"]
    plan = plan_study([*base, *predicted(path), *pruned])
    assert sum(c.scorer is not None for c in plan.combinations) == 6
    assert read == [path, path]


def test_without_a_file_each_half_is_told_by_a_predictor_of_the_other(
    base: list[str], tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trees and pruning, live and replayed alike."""
    monkeypatch.setattr(predictors, "NODES", 12)
    texts = ("Once upon", "It was", "x = f(", "Dear", "The end", "1 + 1", "She", "for i")
    eight = prompts_of(tmp_path, [{"prompt": text} for text in texts])
    asked = [*(o for o in base if not o.startswith("prompts")), *eight, "budget=6"]
    asked += ["tree=best_first", "tree.scores=predictor", "pruning=none,ratio", "pruning.scores=predictor"]
    plan = plan_study([*asked, "cost.measure=off"])
    replayed, live = run_study(plan, tmp_path / "a"), run_study(plan_study([*asked, "engine=live"]), tmp_path / "b")
    assert not replayed.failures and not live.failures
    tables = [pd.read_csv(outcome.out / "records.csv") for outcome in (replayed, live)]
    keys = ["tree", "pruning", "prompt_id"]
    mine, other = (
        table[table["tree"] == "best_first-predictor"].set_index(keys)[[*COUNTS, "pruned_tokens"]].sort_index()
        for table in tables
    )
    pd.testing.assert_frame_equal(mine, other)
    assert set(mine.index.get_level_values("pruning")) == {"none", "ratio-spredictor"}
    assert mine["pruned_tokens"].sum() > 0
    for outcome in (replayed, live):
        (said,) = memory(outcome.out).items()
        assert said[0] == "fitted to the other half of the prompts"
        assert said[1]["megabytes"] == pytest.approx((4 * (27 * 32 + 32 + 32) + 8) / 1e6)
    pruned = [c for c in plan.combinations if c.fits_predictor]
    assert all(len(c.weights) == 3 for c in pruned), "rows are worth nothing for other prompts"


def test_too_few_prompts_to_fit_a_predictor_on(base: list[str], tmp_path: Path) -> None:
    asked = [*base, "tree=best_first", "tree.scores=predictor", "prompts.limit=2", "cost.measure=off"]
    outcome = run_study(plan_study(asked), tmp_path / "study")
    assert {f.error for f in outcome.failures} == {"prompts: 1 to fit a predictor on; expected 2 or more"}


def test_a_decoder_takes_a_file(tiny_pair: Pair, tmp_path: Path) -> None:
    path = saved(tmp_path / "p.safetensors", tiny_pair, network())
    decoder = SpeculativeDecoder(tiny_pair, "best_first", 7, 16, scores="predictor", predictor=str(path))
    assert (
        decoder.generate("It was").token_ids
        == SpeculativeDecoder(tiny_pair, "chain", 1, 16).generate("It was").token_ids
    )


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        (["tree.predictor=none.safetensors"], "tree.predictor=none.safetensors has no effect with tree.scores=raw"),
        (["tree.scores=predictor", "tree.predictor=none.safetensors"], "none.safetensors: cannot be read"),
        (["tree.scores=predictor", "tree.predictor=x.pt"], "x.pt: a .pt file is pickled and can run code"),
    ],
)
def test_what_cannot_be_meant(base: list[str], chosen: list[str], line: str) -> None:
    with pytest.raises(UserError) as error:
        plan_study([*base, "tree=best_first", *chosen])
    assert line in str(error.value) and "\n" not in str(error.value)


def test_files_of_other_texts_and_features_are_refused(base: list[str], tiny_pair: Pair, tmp_path: Path) -> None:
    path = saved(tmp_path / "p.safetensors", tiny_pair, Raw(), Sampling(temperature=1.0))
    with pytest.raises(ConfigError, match=r"was fitted under sampling\.temperature=1"):
        plan_study([*base, *predicted(path)])
    rng = np.random.default_rng(0)
    reader = Mlp(("extra",), *(rng.normal(size=s).astype(np.float32) for s in ((0, 4), (4,), (4,))), 0.0)
    with pytest.raises(ConfigError, match="reads the features extra; expected raw"):
        BestFirst(scores="predictor", predictor=str(path)).limits(4)
        plan_study([*base, *predicted(saved(path, tiny_pair, reader))])
