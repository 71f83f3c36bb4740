"""SGLang 0.5: its trees are EAGLE-2's; `num-draft-tokens` counts the root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from specdraft.drafters.pair import PairFiles
from specdraft.study.tuning.engines.base import CHAINS, TREES, Grid, Setting, TargetEngine, drafter_path, length_of


class SGLang(TargetEngine):
    """A chain has top-k 1 and one draft token more than steps."""

    kind = "sglang"
    drafters: ClassVar[Mapping[str, str]] = {"model": "STANDALONE", "eagle": "EAGLE3", "ngram": "NGRAM"}
    first_eagle = "EAGLE"

    @property
    def grids(self) -> list[Grid]:
        """See `TargetEngine.grids`."""
        return [CHAINS, TREES]

    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """See `TargetEngine.told`: the flags."""
        flags: dict[str, Any] = {"speculative-algorithm": self.named(pair)}
        if path := drafter_path(pair).get("model"):
            flags["speculative-draft-model-path"] = path
        if pair.drafter.kind == "ngram":
            return flags | {"speculative-num-draft-tokens": setting.nodes + 1}
        return flags | {
            "speculative-num-steps": setting.steps,
            "speculative-eagle-topk": setting.top_k,
            "speculative-num-draft-tokens": setting.nodes + 1,
        }

    def file(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """See `TargetEngine.file`."""
        return "sglang-flags.txt", " ".join(f"--{name} {value}" for name, value in told.items()) + "\n"

    def synthetic(self, rates: Sequence[float]) -> dict[str, Any]:
        """See `TargetEngine.synthetic`: environment variables; the length counts the bonus token."""
        return {
            "SGLANG_SIMULATE_ACC_LEN": round(length_of(rates), 4),
            "SGLANG_SIMULATE_ACC_METHOD": "match-expected",
        }
