"""What the target says along texts, kept on disk: its last states, from which its output layer makes everything else.

Letters: N tokens of all texts side by side, h numbers of a state, L further layers that a drafter reads.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from specdraft.drafters.pair import Pair
from specdraft.errors import ResultsError
from specdraft.models.output_layer import LAST
from specdraft.results.files import cannot_write, write_atomically
from specdraft.traces.last_states import layer_states
from specdraft.traces.watch import Watch
from specdraft.training.texts import TrainingText

STATES, DONE = "states.bin", "states.json"


class TextStates(NamedTuple):
    """Texts side by side, and the target's state after each of their tokens.

    Attributes:
        ids: `[N]` int64 the tokens.
        starts: `[texts + 1]` where each text begins, and the end.
        first: `[texts]` the first place of each text that is learnt from, counted from its beginning.
        states: `[N, h]` bfloat16, after the final norm; pages of a file.
        features: `[N, L, h]` likewise, of the further layers.
    """

    ids: np.ndarray
    starts: np.ndarray
    first: np.ndarray
    states: torch.Tensor
    features: torch.Tensor

    def at(self, places: np.ndarray, device: torch.device) -> torch.Tensor:
        """`[m, h]` float32 the states of some places."""
        return self.states[torch.from_numpy(places)].to(device).float()

    @property
    def learnt_ids(self) -> np.ndarray:
        """The tokens that are learnt from."""
        bounds = zip(self.starts[:-1] + self.first, self.starts[1:], strict=True)
        return np.concatenate([self.ids[begin:end] for begin, end in bounds])


def text_states(
    pair: Pair, texts: Sequence[TrainingText], folder: Path, watch: Watch, layers: Sequence[int] = ()
) -> TextStates:
    """The target's states along texts, which are read once: they stay in `folder` until it is deleted.

    Args:
        pair: whose target.
        texts: what is read.
        folder: where the states lie.
        watch: told how far that is.
        layers: further ones, as `transformers` counts them.

    Raises:
        ResultsError: there is no room for them.
    """
    starts, ids, first = _side_by_side(texts)
    about: dict[str, Any] = {
        "target": pair.files.weights[0],
        "dtype": str(pair.target.dtype),
        "texts": digest_of(texts),
    }
    about |= {"layers": list(layers)} if layers else {}
    shape = len(ids), 1 + len(layers), int(pair.target.model.get_output_embeddings().weight.shape[1])
    size, path = math.prod(shape) * torch.bfloat16.itemsize, folder / STATES
    there = _told(folder / DONE) == about and path.is_file() and path.stat().st_size == size
    watch.stage("read", 0 if there else len(texts), "texts")
    if not there:
        (folder / DONE).unlink(missing_ok=True)
        _take_room(path, size)
    states = torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=torch.bfloat16).view(shape)
    if not there:
        _read(pair, texts, starts, states, [LAST, *layers], watch)
        write_atomically(folder / DONE, json.dumps(about))
    return TextStates(ids, starts, first, states[:, 0], states[:, 1:])


def digest_of(texts: Sequence[TrainingText]) -> str:
    """Of all tokens, and of where what is learnt begins."""
    return hashlib.sha256(b"".join(array.tobytes() for array in _side_by_side(texts))).hexdigest()


def _side_by_side(texts: Sequence[TrainingText]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See `TextStates`: `starts`, `ids`, `first`."""
    starts = np.cumsum([0, *(len(text.ids) for text in texts)])
    ids = np.concatenate([np.asarray(text.ids, dtype=np.int64) for text in texts])
    return starts, ids, np.array([text.first for text in texts])


def _told(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _take_room(path: Path, size: int) -> None:
    """Write so many zeros at once, so that room does not run out later."""
    try:
        with path.open("wb") as file:
            for _ in range(0, size, 2**24):
                file.write(bytes(min(2**24, size - file.tell())))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def _read(
    pair: Pair,
    texts: Sequence[TrainingText],
    starts: np.ndarray,
    states: torch.Tensor,
    layers: Sequence[int],
    watch: Watch,
) -> None:
    ids = {str(number): text.ids for number, text in enumerate(texts)}
    for name, (said,) in layer_states([pair.target], pair.files.target, ids, layers):
        if not said.isfinite().all():
            where = pair.files.target.spec.path
            raise ResultsError(f"{where}: its states are no numbers along a text; nothing can be learnt")
        states[starts[int(name)] : starts[int(name) + 1]] = said
        watch.done(1)
