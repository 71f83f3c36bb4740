"""vLLM 0.33: chains, and their length by the size of the batch (`speculative_config`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from specdraft.drafters.ngram import Ngram
from specdraft.drafters.pair import PairFiles
from specdraft.errors import ConfigError
from specdraft.study.tuning.engines.base import AtBatch, Setting, TargetEngine, drafter_path


class VLLM(TargetEngine):
    """Chains."""

    kind = "vllm"
    drafters: ClassVar[Mapping[str, str]] = {
        "model": "draft_model",
        "eagle": "eagle3",
        "ngram": "ngram",
        "suffix": "suffix",
    }
    first_eagle = "eagle"

    def named(self, pair: PairFiles) -> str:
        """See `TargetEngine.named`; also for look-ups that are not its own."""
        if isinstance(pair.drafter, Ngram) and pair.drafter.variant != self.kind:
            raise ConfigError(
                f"drafter.variant={pair.drafter.variant}: --engine {self.kind} looks up as drafter.variant=vllm does"
            )
        return super().named(pair)

    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """See `TargetEngine.told`: `speculative_config`."""
        told = {"method": self.named(pair), **drafter_path(pair), "num_speculative_tokens": setting.nodes}
        if not isinstance(drafter := pair.drafter, Ngram):
            return told
        return told | {"prompt_lookup_max": drafter.longest, "prompt_lookup_min": drafter.prompt_lookup_min}

    def by_batch(self, told: Mapping[str, Any], sizes: Sequence[AtBatch]) -> dict[str, Any] | None:
        """See `TargetEngine.by_batch`: rows of a first and a last batch size and a length, from a batch of 1 on; the
        last one goes for larger batches too."""
        if not any(size.nodes for size in sizes):
            return None
        firsts = [1, *(size.batch for size in sizes[1:])]
        lasts = [after - 1 for _, after in pairwise(firsts)] + [max(firsts[-1], sizes[-1].batch)]
        rows = [list(row) for row in zip(firsts, lasts, (size.nodes for size in sizes), strict=True)]
        most = max(size.nodes for size in sizes)
        return {**told, "num_speculative_tokens": most, "num_speculative_tokens_per_batch_size": _merged(rows)}

    def file(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """See `TargetEngine.file`."""
        return "vllm-speculative-config.json", json.dumps(dict(told), indent=1) + "\n"

    def synthetic(self, rates: Sequence[float]) -> dict[str, Any]:
        """See `TargetEngine.synthetic`: unconditional rates per position."""
        listed = [round(rate, 4) for rate in rates]
        return {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": listed}


def _merged(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Neighbouring rows of one length as one."""
    merged: list[list[int]] = []
    for first, last, length in rows:
        if merged and merged[-1][2] == length:
            merged[-1][1] = last
        else:
            merged.append([first, last, length])
    return merged
