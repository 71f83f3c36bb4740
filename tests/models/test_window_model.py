"""A model of the last few tokens: the same along texts, in trees, side by side and with a cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command_line import Run
from support.tiny_models import PairFolders, window_model

from specdraft.commands.options import USAGE
from specdraft.models.batch import Batch, along, causal
from specdraft.models.cached_model import CachedModel
from specdraft.models.self_check import self_check
from specdraft.models.window_model import WindowConfig, WindowModel


@pytest.fixture
def model() -> WindowModel:
    torch.manual_seed(1)
    return WindowModel(WindowConfig(40, 3, 8, 12)).eval()


def spelled_out(model: WindowModel, ids: list[int]) -> torch.Tensor:
    """Logits after the last of some tokens."""
    table = model.embedding.weight
    window = [table[i] for i in reversed(ids[-3:])] + [torch.zeros(8)] * (3 - len(ids[-3:]))
    inside = model.inner.weight @ torch.cat(window) + model.inner.bias
    state = window[0] + model.outer.weight @ (inside * torch.sigmoid(inside)) + model.outer.bias
    return table @ state + model.bias


def test_it_sees_the_last_tokens_only(model: WindowModel) -> None:
    ids = [3, 1, 4, 1, 5, 9, 2]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0]
        for place in range(len(ids)):
            torch.testing.assert_close(logits[place], spelled_out(model, ids[: place + 1]))
        torch.testing.assert_close(model(torch.tensor([[7, 7, 7, 7, 5, 9, 2]])).logits[0, -1], logits[-1])


def test_with_a_cache_and_in_trees(model: WindowModel) -> None:
    """The self-check compares trees with sequential forwards, and wrong masks and positions with them."""
    cached = CachedModel(model, 40)
    check = self_check(cached, "window")
    assert check.error < 1e-5
    assert check.control > 0.01
    ids = list(range(5, 15))
    with torch.inference_mode():
        cached.prefill(ids[:4])
        for token in ids[4:]:
            last = cached.extend(token)
        torch.testing.assert_close(last, spelled_out(model, ids))


def test_side_by_side(model: WindowModel) -> None:
    cached = CachedModel(model, 40)
    prompts, texts = [[1, 2, 3, 4, 5], [9]], [np.array([6, 7, 8, 9]), np.array([10, 11, 12, 13])]
    logits = torch.cat(list(along(cached, prompts, texts, 2)), 1)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        for place in range(4):
            expected = spelled_out(model, [*prompt, *text[:place].tolist()])
            torch.testing.assert_close(logits[row, place], expected.detach())
    batch = Batch(cached, prompts)
    torch.testing.assert_close(batch.logits[1], spelled_out(model, [9]).detach())
    more = batch.append(torch.tensor([[20], [21]]), torch.zeros(1, 1, dtype=torch.long), causal(0, 1, cached.device))
    torch.testing.assert_close(more[1, 0], spelled_out(model, [9, 21]).detach())


def test_bad_input(run: Run, tiny_pair_folders: PairFolders, tmp_path: Path) -> None:
    pair = [
        f"pair.target.path={tiny_pair_folders.target}",
        "drafter=nano",
        "tree=chain",
        "budget=2",
        "max_new_tokens=4",
    ]
    small = window_model(tmp_path / "small", 40)
    damaged = window_model(tmp_path / "damaged")
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | {"hidden_size": 24}))
    cases = {
        str(small): "it knows 40 ids, and the target 258: it is another's",
        str(tiny_pair_folders.draft): "config.json describes no model of the last few tokens (specdraft train nano)",
        str(damaged): "has 258 x 16 numbers, and 6192 by config.json",
    }
    for path, said in cases.items():
        told = run("generate", "a", *pair, f"drafter.path={path}")
        assert (told.code, told.out) == (USAGE, "")
        assert said in " ".join(told.err.split())
        assert told.err.count("\n") <= 2


def test_a_saved_one_says_the_same(model: WindowModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
    with torch.inference_mode():
        torch.testing.assert_close(WindowModel.from_pretrained(tmp_path).eval()(ids).logits, model(ids).logits)
