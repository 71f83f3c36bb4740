"""States of models along texts, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from specdraft.models.files import ModelFiles
from specdraft.models.language_model import LanguageModel
from specdraft.models.memory import tokens_that_fit
from specdraft.models.output_layer import LAST
from specdraft.models.placement import device_type_of
from specdraft.traces.batches import READ_TOKENS, batches, in_memory, most_rows

NOTHING_MORE = np.zeros(1, dtype=np.int64)  # a text of one token, which is not read


def last_states(
    models: Sequence[LanguageModel], target: ModelFiles, texts: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Each text's name, and `[tokens, width]` of each model: its state after each token, which its output layer reads.

    Args:
        models: who reads.
        target: the files of the largest of them: as many texts go together as it has room for.
        texts: name -> token ids; shorter ones come first.
    """

    for name, states in layer_states(models, target, texts, [LAST]):
        yield name, tuple(part[:, 0] for part in states)


def layer_states(
    models: Sequence[LanguageModel], target: ModelFiles, texts: Mapping[str, Sequence[int]], layers: Sequence[int]
) -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Likewise `[tokens, L, width]` of these layers (see `models.Forward`)."""

    def read(names: Sequence[str]) -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
        ids = [texts[name] for name in names]
        said = (model.states_along(ids, [NOTHING_MORE] * len(ids), layers) for model in models)
        yield from zip(names, zip(*said, strict=True), strict=True)

    lengths = {name: len(ids) for name, ids in texts.items()}
    for names in batches(lengths, most_rows(device_type_of(target)), min(tokens_that_fit(target), READ_TOKENS)):
        yield from in_memory(read, names)
