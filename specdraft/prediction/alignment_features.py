"""What an alignment tells an acceptance predictor: all of it known before the target runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from specdraft.drafters.loaded.aligned import AlignedHead
from specdraft.prediction.alignment_refine import Output

LOGITS = 2**23  # that are there at a time, of each of two heads: states x ids


class AlignmentFeatures(NamedTuple):
    """Of m draft states, each at the parent of K drafted children.

    Attributes:
        entropy: `[m]` of the aligned head's distribution, nats.
        divergence: `[m]` KL(aligned || own head), nats: how much the two disagree.
        child_log_prob: `[m, K]` the logarithm of each child's probability under the aligned head.
        norm: `[m]` the length of the mapped state.
        cosine: `[m]` of the mapped state and the one before it.
    """

    entropy: np.ndarray
    divergence: np.ndarray
    child_log_prob: np.ndarray
    norm: np.ndarray
    cosine: np.ndarray


@torch.inference_mode()
def alignment_features(
    states: torch.Tensor, previous: torch.Tensor, children: np.ndarray, aligned: AlignedHead, own: Output, vocab: int
) -> AlignmentFeatures:
    """The features of draft states, float32.

    Args:
        states: `[m, d_d]` the draft model's last states (layer -1 of `LanguageModel.states_along`) after the tokens
            whose children are judged.
        previous: `[m, d_d]` its states one token before; of a text's first token the state itself.
        children: `[m, K]` token ids.
        aligned: the target's output layer on mapped states.
        own: logits of the draft model's own output layer (`OutputLayer`).
        vocab: ids that may be proposed; rows of the heads beyond it are padding.
    """
    ids = torch.from_numpy(np.ascontiguousarray(children)).long().to(states.device)
    count = max(1, LOGITS // vocab)
    slices = zip(*(torch.split(whole, count) for whole in (states, previous, ids)), strict=True)
    parts = [_of_slice(here, before, drafted, aligned, own, vocab) for here, before, drafted in slices]
    return AlignmentFeatures(*(torch.cat(field).float().cpu().numpy() for field in zip(*parts, strict=True)))


def _of_slice(
    states: torch.Tensor, previous: torch.Tensor, ids: torch.Tensor, aligned: AlignedHead, own: Output, vocab: int
) -> tuple[torch.Tensor, ...]:
    mapped, before = aligned.mapping(states), aligned.mapping(previous)
    said = torch.log_softmax(aligned.layer(mapped)[:, :vocab], -1)
    other = torch.log_softmax(own(states)[:, :vocab], -1)
    probs = said.exp()
    return (
        -(probs * said).sum(-1),
        (probs * (said - other)).sum(-1),
        said.gather(-1, ids),
        mapped.norm(dim=-1),
        F.cosine_similarity(mapped, before),
    )
