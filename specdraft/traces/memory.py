"""What was found out of models, kept with the traces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from specdraft.errors import ResultsError
from specdraft.traces.store import TraceStore, libraries


@dataclass(frozen=True)
class StoredMemory:
    """See `drafters.on_demand.Memory`: JSON as the one array of a trace. It depends on the libraries too."""

    store: TraceStore

    def recall(self, about: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was kept; None where there is nothing."""
        tensors = self.store.get({**about, "libraries": libraries()})
        return None if tensors is None else json.loads(tensors["json"].tobytes())

    def keep(self, about: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        """Keep something; where the folder cannot be written it is found out again next time."""
        text = np.frombuffer(json.dumps(kept).encode(), dtype=np.uint8)
        with suppress(ResultsError):
            self.store.put({**about, "libraries": libraries()}, {"json": text})
