from __future__ import annotations

import numpy as np
import pytest
import torch
from support.tiny_models import SMALL_VOCAB, random_model

from specdraft.models import branches as branches_module
from specdraft.models.batch import Batch, causal
from specdraft.models.branches import Branches, in_rows
from specdraft.models.language_model import LanguageModel

PROMPTS = [[3, 9, 4, 7, 5], [8, 2], [6, 6, 6, 5, 4, 3, 2, 9]]
TRUNK = [[11, 12, 13, 14], [21, 22, 23, 24], [31, 32, 33, 34]]
TEXT = np.array([0, 0, 0, 0, 0, 2, 2])  # the second text has none
SEEN = np.array([0, 1, 1, 2, 4, 3, 4])
NONE = -np.ones((7, 3), dtype=np.int64)


def test_rows_are_of_one_text_and_even() -> None:
    rows = in_rows(np.array([0] * 5 + [2] * 2 + [3]), 3)
    assert rows.text.tolist() == [0, 0, 2, 3]
    assert rows.row.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert rows.column.tolist() == [0, 1, 2, 0, 1, 0, 1, 0]
    assert rows.shape == (4, 3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral-sliding", "gemma3"])  # windows of 4 tokens
@pytest.mark.parametrize("most", [1, 2, 64])
@torch.inference_mode()
def test_each_sees_its_text_and_what_is_above_it(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three levels below trunks, a text without branches, and all again after `forget`: as plain sequences."""
    monkeypatch.setattr(branches_module, "most_of_row", lambda slots: most)
    monkeypatch.setattr(branches_module, "LEAST_ROOM", 1)
    model = LanguageModel(random_model(name), SMALL_VOCAB)
    batch = Batch(model, PROMPTS)
    batch.append(torch.tensor(TRUNK), torch.arange(4)[None], causal(0, 4, model.device))
    below = Branches(model, batch)
    second_above, third_of = NONE.copy(), [0, 3, 6]
    second_above[:, 0] = under = np.array([0, 1, 2, 4, 4, 6, 6])
    third_above = second_above[third_of]
    third_above[:, 1] = 7 + np.array(third_of)
    text, seen = (np.concatenate([each, each[under], each[under][third_of]]) for each in (TEXT, SEEN))
    above = np.concatenate([NONE, second_above, third_above])
    for shift in (0, 1):
        below.forget()
        tokens = (40 + shift + np.arange(len(text))) % SMALL_VOCAB
        levels = [slice(0, 7), slice(7, 14), slice(14, 17)]
        fed = [below.feed(tokens[some], text[some], seen[some], above[some]) for some in levels]
        logits = torch.cat([one.padded[one.place] for one in fed])
        for n, token in enumerate(tokens.tolist()):
            path = tokens[above[n][above[n] >= 0]].tolist()
            whole = [*PROMPTS[text[n]], *TRUNK[text[n]][: seen[n]], *path, token]
            torch.testing.assert_close(logits[n], model.after(whole), atol=1e-4, rtol=1e-4)
