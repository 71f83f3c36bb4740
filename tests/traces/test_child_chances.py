from __future__ import annotations

from pathlib import Path

import pytest
import torch

from specdraft.decoding.decode import Ending
from specdraft.drafters.pair import load_pair
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.traces.child_chances import child_chances
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore

SAMPLING = Sampling(temperature=0.8, top_k=50)


def test_a_childs_chance_is_the_targets_own_probability_of_its_token(tmp_path: Path) -> None:
    """Each position alone, by a plain forward; and what is in the store is not worked out again."""
    pair, store = load_pair("zoo-tiny"), TraceStore(tmp_path)
    prompts = {name: pair.encode(text) for name, text in (("a", "It was a"), ("b", "def add(a, b):\n    return"))}
    traces = pair_traces(pair, prompts, SAMPLING, Ending(6, frozenset()), store, draw="0/0")
    notes: list[str] = []
    found = child_chances(pair, prompts, traces, SAMPLING, store, notes.append)
    for name, ids in prompts.items():
        tokens, top = traces.trajectories[name].tokens, traces.annotations[name].top_ids
        assert found[name].chances.shape == top.shape
        for position in (0, 1, 5):
            whole = torch.tensor([[*ids, *tokens[:position].tolist()]])
            with torch.inference_mode():
                logits = pair.target.model(whole).logits[:, -1, : pair.target.vocab]
            wanted = standardise(logits.double(), SAMPLING)[0, top[position].tolist()]
            assert found[name].chances[position].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    again = child_chances(pair, prompts, traces, SAMPLING, store, notes.append)
    assert len(notes) == 1
    assert (again["b"].chances == found["b"].chances).all()
