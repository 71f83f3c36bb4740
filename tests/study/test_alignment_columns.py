from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from specdraft.drafters.base import RecordedText
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import load_pair
from specdraft.study.alignment_columns import alignment_columns


@torch.inference_mode()
def test_columns_are_of_the_state_after_each_childs_parent(tmp_path: Path) -> None:
    pair, rng = load_pair("zoo-tiny"), np.random.default_rng(0)
    assert isinstance(pair.drafter, ModelDrafter)
    target, draft = pair.target.model, pair.drafter.model.model
    weight = rng.normal(size=(target.config.hidden_size, draft.config.hidden_size)).astype(np.float32) * 0.2
    bias = rng.normal(size=target.config.hidden_size).astype(np.float32)
    files = dict(zip(("target", "draft"), pair.files.weights, strict=True))
    path = tmp_path / "map.safetensors"
    save_file({"weight": weight, "bias": bias}, path, {"kind": "alignment", **files})
    text = RecordedText(pair.encode("It was a bright"), np.array([40, 41, 42, 43]))
    children = rng.integers(0, 4096, (4, 3))
    (columns,) = alignment_columns(pair, str(path), [text], [children])
    assert columns.shape == (4, 3, 5)
    for position in range(4):
        ids = torch.tensor([[*text.prompt_ids, *text.tokens[:position].tolist()]])
        states = draft.model(ids).last_hidden_state[0] @ torch.from_numpy(weight).T + torch.from_numpy(bias)
        said = torch.log_softmax(target.lm_head(states[-1]), -1)
        entropy = float(-(said.exp() * said).sum())
        cosine = float(torch.cosine_similarity(states[-1], states[-2], dim=0))
        for place, child in enumerate(children[position]):
            child_log_prob, found, _, norm, angle = columns[position, place]
            assert child_log_prob == pytest.approx(max(float(said[child]), -30), abs=1e-3)
            assert (found, norm) == (
                pytest.approx(entropy, abs=1e-3),
                pytest.approx(float(states[-1].norm()), rel=1e-4),
            )
            assert angle == pytest.approx(cosine, abs=1e-4)
