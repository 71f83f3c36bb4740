"""Against a real server: `SPECDRAFT_TEST_SERVER` is its URL, `SPECDRAFT_TEST_SERVER_MODEL` the folder of its model, as
`scripts/fetch_smollm2.py` writes one (see `specdraft help servers`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.command_line import Run

from specdraft.commands.options import DONE
from specdraft.decoding.ending import Ending
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.on_demand import PairOnDemand
from specdraft.drafters.pair import find_pair
from specdraft.models.spec import ModelSpec, PairSpec, ServerSpec
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.results.metrics import COUNTS
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import pair_traces
from specdraft.traces.memory import StoredMemory
from specdraft.traces.record import Trajectory
from specdraft.traces.store import TraceStore

pytestmark = pytest.mark.server
URL, MODEL = (os.environ.get(f"SPECDRAFT_TEST_SERVER{end}", "") for end in ("", "_MODEL"))
PROMPTS, NEW = 20, 32
ROUNDED = 0.1  # nats: caches in half precision move logits by so much


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceStore]:
    if not (URL and MODEL):
        pytest.skip("SPECDRAFT_TEST_SERVER and SPECDRAFT_TEST_SERVER_MODEL are not set")
    folder = tmp_path_factory.mktemp("traces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(folder))
        yield TraceStore(folder)


def texts(store: TraceStore, server: ServerSpec) -> dict[str, Trajectory]:
    files = find_pair(PairSpec("real", ModelSpec(MODEL, server=server)), Ngram())
    prompts = {p.prompt_id: files.encode(p.text) for p in load_prompts(PromptSpec(kind="instruct", limit=PROMPTS))}
    pair = PairOnDemand(files, StoredMemory(store))
    return pair_traces(pair, prompts, Sampling(), Ending(NEW, files.target.eos_ids), store).trajectories


@pytest.mark.timeout(900)
def test_its_texts_are_those_of_transformers_but_for_near_ties(
    store: TraceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    served, local = texts(store, ServerSpec(URL)), texts(store, ServerSpec())
    equal = [name for name, text in served.items() if np.array_equal(text.tokens, local[name].tokens)]
    with capsys.disabled():
        print(f"\n{URL}: {len(equal)} of {len(served)} texts are those of transformers")
    assert len(equal) >= 0.8 * PROMPTS
    for name in equal:
        np.testing.assert_allclose(served[name].gaps, local[name].gaps, atol=ROUNDED)
    for name in served.keys() - set(equal):
        common = min(len(served[name].tokens), len(local[name].tokens))
        place = np.flatnonzero(served[name].tokens[:common] != local[name].tokens[:common])[0]
        assert max(served[name].gaps[place], local[name].gaps[place]) < ROUNDED, name


@pytest.mark.timeout(900)
def test_trees_are_replayed_along_them(store: TraceStore, run: Run, tmp_path: Path) -> None:
    """Rows of equal texts are equal; what a served drafter would have said of its own texts is right."""
    grid = ["tree=chain", "budget=4", f"max_new_tokens={NEW}", "prompts=instruct", f"prompts.limit={PROMPTS}"]
    usual = [f"pair.target.path={MODEL}", "cost.measure=off", "report=false", *grid]
    runs = {
        "served": [f"pair.target.server.url={URL}", "drafter=ngram,suffix"],
        "local": ["drafter=ngram,suffix"],
        "itself": [f"pair.target.server.url={URL}", "drafter=server", f"drafter.url={URL}"],
    }
    for name, overrides in runs.items():
        said = run("sweep", f"name={name}", *usual, *overrides, "--out", tmp_path / name)
        assert said.code == DONE, said.err
    tables = {name: pd.read_csv(tmp_path / name / "records.csv").query("tree == 'chain'") for name in runs}
    keys = ["drafter", "prompt_id"]
    served, local = (tables[name].set_index(keys).sort_index()[list(COUNTS)] for name in ("served", "local"))
    assert (served == local).all(axis=1).mean() >= 0.8
    itself = tables["itself"]
    assert itself["accepted_tokens"].sum() >= 0.95 * (itself["new_tokens"] - 1 - itself["steps"]).sum()
    assert itself["accepted_tokens"].sum() / itself["steps"].sum() > 3
