"""What each temperature would have cost a drafter along recorded texts: from the store, worked out where missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from specdraft.drafters.base import RecordedText
from specdraft.drafters.pair import Pair
from specdraft.prediction.temperature import NO_LOSSES, Losses, losses
from specdraft.traces.library import PairTraces, drafter_name, lengths_of, recorded_texts
from specdraft.traces.recorder import Recorder
from specdraft.traces.store import TraceStore, libraries
from specdraft.traces.watch import UNWATCHED, Watch

SERVED_AT_ONCE = 256  # logits of a batch at once where no target is here to tell how many fit


def score_losses(
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    traces: PairTraces,
    store: TraceStore,
    recorded: Callable[[str], None] = lambda what: None,
    watch: Watch = UNWATCHED,
) -> dict[str, Losses]:
    """Of every prompt; position 0, which no drafter proposes, is left out.

    Args:
        pair: its drafter has probabilities.
        prompts: prompt id -> token ids.
        traces: of these prompts.
        store: where they are kept.
        recorded: called with a line of text for each batch that had to be read.
        watch: told of the stage calibrate.
    """
    abouts = {name: _about(pair, traces.keys[name]) for name in prompts}

    def read(some: Sequence[str]) -> Iterator[tuple[str, Losses]]:
        texts = recorded_texts(pair, [(prompts[name], traces.trajectories[name]) for name in some])
        yield from zip(some, _of_batch(pair, texts), strict=True)

    note = f"calibrated {drafter_name(pair.files)} along {{}} trajectories"
    recorder = Recorder(pair, store, recorded, watch)
    return recorder.complete(Losses, abouts, lengths_of(prompts, traces), read, note, stage="calibrate")


def _of_batch(pair: Pair, texts: Sequence[RecordedText]) -> list[Losses]:
    import torch  # only where a model runs

    from specdraft.models.batch import logits_at_once
    from specdraft.models.language_model import padded

    served = pair.files.target.spec.served  # then the drafter's device is known from its logits only
    device = torch.device("cpu") if served else pair.target.device
    at_once = max(1, SERVED_AT_ONCE // len(texts)) if served else logits_at_once(pair.target, len(texts))
    tokens = padded([text.tokens.tolist() for text in texts], device)  # [B, longest]
    parts: list[list[Losses]] = [[] for _ in texts]
    first = 0
    for logits in pair.drafter.logits_along(texts, at_once):
        for row, text in enumerate(texts):
            here = slice(max(first, 1), min(first + logits.shape[1], len(text.tokens)))
            if here.start < here.stop:
                some = logits[row, here.start - first : here.stop - first]
                with torch.inference_mode():
                    parts[row].append(losses(some, tokens[row, here].to(some.device)))
        first += logits.shape[1]
    return [_added(of_text) for of_text in parts]


def _added(parts: Sequence[Losses]) -> Losses:
    if not parts:  # a text of the prefill's token alone
        return NO_LOSSES
    return Losses(*(np.sum(fields, axis=0) for fields in zip(*parts, strict=True)))


def _about(pair: Pair, annotation: str) -> dict[str, Any]:
    """Everything that they depend on."""
    models = {"target": pair.target_facts, "draft": pair.draft_facts}
    return {"kind": "score_losses", "annotation": annotation, **models, "libraries": libraries()}
