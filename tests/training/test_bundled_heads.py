"""The bundled heads, on the prompts of the default study: what their card promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from specdraft.decoding.ending import Ending
from specdraft.drafters import DrafterSpec
from specdraft.drafters.eagle import Eagle
from specdraft.drafters.medusa import Medusa
from specdraft.drafters.pair import load_pair
from specdraft.drafters.parallel import Parallel
from specdraft.models.files import zoo_folder
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.replay.static import pack_traces, replay
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.published import Published

BUNDLED_MIB = 16


def block_efficiency(drafter: DrafterSpec, folder: Path) -> dict[str, float]:
    """On the prompts of the default study."""
    pair = load_pair("zoo", drafter)
    ids = {prompt.prompt_id: pair.encode(prompt.text) for prompt in load_prompts(PromptSpec())}
    traces = pair_traces(pair, ids, Sampling(), Ending(64, pair.eos_ids), TraceStore(folder))
    packed, found = pack_traces(traces, list(ids)), {}
    for name, shape in {"chain": Chain(), "medusa": Published()}.items():
        topology = shape.at(4).topology
        assert topology is not None
        sums = replay(topology, packed).sums
        found[name] = float((sums["new_tokens"].sum() - len(ids)) / sums["steps"].sum())
    return found


@pytest.mark.slow
def test_what_medusa_heads_get_accepted(tmp_path: Path) -> None:
    found = block_efficiency(Medusa(), tmp_path)
    assert found["chain"] >= 1.3
    assert found["medusa"] >= 1.8


@pytest.mark.slow
def test_what_a_block_head_gets_accepted(tmp_path: Path) -> None:
    found = block_efficiency(Parallel(), tmp_path)
    assert found["chain"] >= 1.5
    assert found["medusa"] >= 2.0


@pytest.mark.slow
def test_what_an_eagle_head_gets_accepted(tmp_path: Path) -> None:
    found = block_efficiency(Eagle(), tmp_path)
    assert found["chain"] >= 2.25  # what the one-layer draft model of twice its size gets
    assert found["medusa"] >= 4.0


def test_they_are_small() -> None:
    heads = [
        path for path in zoo_folder().rglob("*.safetensors") if not path.parent.name.startswith(("target", "draft"))
    ]
    assert len(heads) >= 2
    assert sum(path.stat().st_size for path in heads) <= BUNDLED_MIB * 2**20
    assert max(path.stat().st_size for path in heads if "medusa" in path.name) <= 3e6
    assert (zoo_folder() / "smollm2-eagle/model.safetensors").stat().st_size < 8e6
    assert max((zoo_folder() / name / "model.safetensors").stat().st_size for name in ("parallel", "eagle")) < 2e6
