"""What an alignment tells a predictor, beside the sums written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.distributions import Categorical, kl_divergence

from specdraft.drafters.loaded.aligned import AffineMap, AlignedHead
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.models.output_layer import LAST, OutputLayer
from specdraft.prediction import alignment_features as module
from specdraft.prediction.alignment_features import alignment_features
from specdraft.prediction.alignment_heads import Heads

VOCAB = 250  # fewer than the layers have rows


@pytest.mark.parametrize("at_once", [2**23, 3 * VOCAB])
def test_features_are_those_of_each_state(at_once: int, tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGITS", at_once)
    assert isinstance(tiny_pair.drafter, ModelDrafter)
    rng = torch.Generator().manual_seed(0)
    mapping = AffineMap(torch.randn(32, 32, generator=rng) * 0.3, torch.randn(32, generator=rng))
    layers = [OutputLayer(model, "tiny") for model in (tiny_pair.target, tiny_pair.drafter.model)]
    (states,) = tiny_pair.drafter.model.states_along([[0, 5, 6]], [np.arange(10, 16)], [LAST])
    here, before = states[1:, 0], states[:-1, 0]
    children = np.arange(len(here) * 4).reshape(len(here), 4) % VOCAB
    found = alignment_features(here, before, children, AlignedHead(mapping, layers[0]), layers[1], VOCAB)
    assert found.child_log_prob.shape == (7, 4) and found.entropy.dtype == np.float32
    for place, (state, last) in enumerate(zip(here, before, strict=True)):
        mapped, earlier = (mapping.weight @ one + mapping.bias for one in (state, last))
        aligned = Categorical(logits=(layers[0].weight @ mapped)[:VOCAB])
        own = Categorical(logits=(layers[1].weight @ state)[:VOCAB])
        said = [float(value) for value in (found.entropy[place], found.divergence[place], found.norm[place])]
        assert said == pytest.approx(
            [*map(float, (aligned.entropy(), kl_divergence(aligned, own), mapped.norm()))], rel=1e-4
        )
        wanted = aligned.log_prob(torch.from_numpy(children[place]))
        np.testing.assert_allclose(found.child_log_prob[place], wanted, rtol=1e-4, atol=1e-4)
        cosine = mapped @ earlier / mapped.norm() / earlier.norm()
        assert found.cosine[place] == pytest.approx(float(cosine), abs=1e-5)


def test_the_head_comes_from_a_file_of_this_pair(tiny_pair: Pair, tmp_path: Path) -> None:
    path, rng = tmp_path / "mine.safetensors", torch.Generator().manual_seed(0)
    tensors = {"weight": torch.randn(32, 32, generator=rng), "bias": torch.randn(32, generator=rng)}
    target, draft = tiny_pair.files.weights
    save_file(tensors, path, {"kind": "alignment", "target": target, "draft": draft})
    heads, state = Heads.of(tiny_pair), torch.randn(3, 32, generator=rng)
    with torch.inference_mode():
        wanted = tiny_pair.target.model.lm_head(state @ tensors["weight"].T + tensors["bias"])
        torch.testing.assert_close(heads.read(str(path), "alignment", tiny_pair)(state), wanted)
    save_file(tensors, path, {"kind": "alignment", "target": "feed", "draft": draft})
    with pytest.raises(ConfigError, match=r"alignment=.*: it was fitted to another target \(weights feed\)"):
        heads.read(str(path), "alignment", tiny_pair)
