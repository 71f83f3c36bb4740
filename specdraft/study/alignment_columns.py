"""What an alignment tells of drafted tokens along recorded texts: further columns for an acceptance predictor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from specdraft.drafters.base import RecordedText
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.models.output_layer import LAST
from specdraft.prediction.alignment_features import alignment_features
from specdraft.prediction.alignment_heads import Heads
from specdraft.prediction.features import LEAST


@torch.inference_mode()
def alignment_columns(
    pair: Pair, named: str, texts: Sequence[RecordedText], children: Sequence[np.ndarray]
) -> Iterator[np.ndarray]:
    """`[T + 1, K, 5]` of each text: the child's log-probability under the aligned head, and of the state after its
    parent the head's entropy, how much it disagrees with the draft model's own, the mapped state's length, and its
    cosine to the one before.

    Args:
        pair: with its draft model.
        named: the alignment's file.
        texts: recorded ones.
        children: `[T + 1, K]` of each, the drafter's best tokens at each position (`Annotation.top_ids`).

    Raises:
        ConfigError: the alignment is another pair's, or cannot be read.
    """
    if not isinstance(pair.drafter, ModelDrafter):
        raise ConfigError("--alignment: an alignment maps the states of a pair's draft model; expected drafter=model")
    heads = Heads.of(pair)
    head = heads.read(named, "--alignment", pair)
    for text, ids in zip(texts, children, strict=True):
        (layers,) = pair.drafter.model.states_along([text.prompt_ids], [text.tokens], (LAST,))
        states = layers[:, -1]
        parent = torch.arange(len(text.tokens), device=states.device) + len(text.prompt_ids) - 1
        found = alignment_features(
            states[parent], states[(parent - 1).clamp(min=0)], ids, head, heads.draft, heads.vocab
        )
        whole = [found.entropy, found.divergence, found.norm, found.cosine]
        child = np.maximum(found.child_log_prob, LEAST)
        yield np.stack([child, *(np.broadcast_to(value[:, None], child.shape) for value in whole)], -1)
