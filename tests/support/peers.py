"""`transformers`' own generate, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.generation import BaseStreamer


class Rounds(BaseStreamer):  # type: ignore[misc]
    """What `generate` emits, a list a round; the first one is its prompt."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []

    def put(self, value: torch.Tensor) -> None:
        self.rounds.append(value.reshape(-1).tolist())

    def end(self) -> None:
        pass


def rounds(model: Any, prompt: Sequence[int], new: int, stops: Sequence[int], **options: Any) -> list[list[int]]:
    """The tokens of each round of greedy text after a prompt."""
    streamer, ids = Rounds(), torch.tensor([list(prompt)])
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        eos_token_id=list(stops),
        pad_token_id=stops[0],
        streamer=streamer,
        do_sample=False,
        max_new_tokens=new,
        **options,
    )
    return streamer.rounds[1:]
