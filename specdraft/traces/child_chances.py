"""With what probability each child by rank is accepted along sampled texts: from the store, worked out where missing.

Of children chosen by rank the one that equals the target's draw is accepted (see `acceptance.topk`), so below an
accepted node a child's chance is the target's own probability of its token: exact, where a text says only yes or no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from specdraft.drafters.pair import Pair
from specdraft.models.batch import along
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.traces.library import PairTraces, lengths_of
from specdraft.traces.recorder import Recorder
from specdraft.traces.rule_records import MOST_ENTRIES
from specdraft.traces.store import TraceStore, libraries
from specdraft.traces.watch import UNWATCHED, Watch


class ChildChances(NamedTuple):
    """Along one text.

    Attributes:
        chances: `[T + 1, K]` float32, the target's standardised probability of each of the drafter's K most probable
            tokens at each position (`Annotation.top_ids`).
    """

    chances: np.ndarray


def child_chances(
    pair: Pair,
    prompts: Mapping[str, Sequence[int]],
    traces: PairTraces,
    sampling: Sampling,
    store: TraceStore,
    recorded: Callable[[str], None] = lambda what: None,
    watch: Watch = UNWATCHED,
) -> dict[str, ChildChances]:
    """Of every prompt.

    Args:
        pair: its drafter has probabilities.
        prompts: prompt id -> token ids.
        traces: of these prompts, sampled with `sampling`.
        store: where they are kept.
        recorded: called with a line of text for each batch that had to be read.
        watch: told of the stage judge.
    """
    abouts = {name: _about(pair, traces.keys[name]) for name in prompts}

    def read(some: Sequence[str]) -> Iterator[tuple[str, ChildChances]]:
        texts = [traces.trajectories[name].tokens for name in some]
        ids = [traces.annotations[name].top_ids for name in some]
        yield from zip(some, _of_batch(pair, [prompts[name] for name in some], texts, ids, sampling), strict=True)

    note = f"judged the children of {{}} sampled texts of {pair.files.target.spec.path}"
    recorder = Recorder(pair, store, recorded, watch)
    return recorder.complete(ChildChances, abouts, lengths_of(prompts, traces), read, note, stage="judge")


@torch.inference_mode()
def _of_batch(
    pair: Pair,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[np.ndarray],
    ids: Sequence[np.ndarray],
    sampling: Sampling,
) -> Iterator[ChildChances]:
    target, longest = pair.target, max(map(len, texts))
    wanted = np.zeros((len(texts), longest, ids[0].shape[1]), dtype=np.int64)
    for row, of_text in enumerate(ids):
        wanted[row, : len(of_text)] = of_text
    tokens = torch.from_numpy(wanted).to(target.device)
    parts, first = [], 0
    for logits in along(target, prompts, texts, max(1, MOST_ENTRIES // (target.width * len(texts)))):
        here = tokens[:, first : first + logits.shape[1]]
        parts.append(standardise(logits.double(), sampling).gather(-1, here).float().cpu().numpy())
        first += logits.shape[1]
    whole = np.concatenate(parts, 1)
    return (ChildChances(whole[row, : len(text)]) for row, text in enumerate(texts))


def _about(pair: Pair, annotation: str) -> dict[str, Any]:
    """Everything that they depend on; the annotation's text says how it was sampled."""
    models = {"target": pair.target_facts, "draft": pair.draft_facts}
    return {"kind": "child_chances", "annotation": annotation, **models, "libraries": libraries()}
