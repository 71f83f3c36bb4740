"""transformers 5: chains, set in the assistant's own generation config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from specdraft.drafters.early_exit import EarlyExit
from specdraft.drafters.pair import PairFiles
from specdraft.study.tuning.engines.base import CHAINS, Grid, Setting, TargetEngine

UNSURE: Grid = [
    "tree=chain",
    "budget=4,8,16,20",
    "length=hf_confidence",
    "length.threshold=0.2,0.4,0.6,0.8",
]  # 20 and 0.4 are its defaults


class Transformers(TargetEngine):
    """A chain has a fixed length, or ends after a token that the assistant holds for less probable than a threshold."""

    kind = "hf"
    drafters: ClassVar[Mapping[str, str]] = {"model": "assistant", "ngram": "prompt lookup", "early_exit": "early exit"}
    sampled_rule = "rejection"  # its assistant draws

    @property
    def grids(self) -> list[Grid]:
        """See `TargetEngine.grids`."""
        return [CHAINS, UNSURE]

    def takes(self, setting: Setting, pair: PairFiles) -> bool:
        """See `TargetEngine.takes`."""
        return setting.threshold == 0 or pair.drafter.kind != "ngram"

    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """See `TargetEngine.told`: generation settings."""
        if self.named(pair) == "prompt lookup":
            return {"prompt_lookup_num_tokens": setting.nodes}
        told: dict[str, Any] = {"num_assistant_tokens": setting.nodes, "num_assistant_tokens_schedule": "constant"}
        told |= {"assistant_confidence_threshold": setting.threshold}
        drafter = pair.drafter
        return told | (
            {"assistant_early_exit": drafter.layers_of(pair.target)} if isinstance(drafter, EarlyExit) else {}
        )

    def file(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """See `TargetEngine.file`."""
        return "hf-generation-config.json", json.dumps(dict(told), indent=1) + "\n"

    def synthetic(self, rates: Sequence[float]) -> dict[str, Any]:
        """See `TargetEngine.synthetic`: it has none."""
        return {}
