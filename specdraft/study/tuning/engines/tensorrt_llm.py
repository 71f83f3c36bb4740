"""TensorRT-LLM 1.x: dynamic trees of EAGLE-3 heads, choices (lists of rank paths) of Medusa's and, in versions that
take them, of EAGLE's heads, chains of everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from omegaconf import OmegaConf

from specdraft.drafters.pair import PairFiles
from specdraft.study.tuning.engines.base import (
    CHAINS,
    CHOICES,
    TREES,
    Grid,
    Setting,
    TargetEngine,
    drafter_path,
    eagle_version,
)
from specdraft.trees.export import medusa_choices
from specdraft.trees.topology import Topology

MEDUSA, EAGLE = "medusa", "eagle"


class TensorRTLLM(TargetEngine):
    """What it can be told depends on the drafter."""

    kind = "tensorrt-llm"
    drafters: ClassVar[Mapping[str, str]] = {
        "model": "DraftTarget",
        EAGLE: "Eagle3",
        "ngram": "NGram",
        MEDUSA: "Medusa",
    }
    first_eagle = "Eagle"

    @property
    def grids(self) -> list[Grid]:
        """See `TargetEngine.grids`."""
        return [CHAINS, TREES, CHOICES]

    def takes(self, setting: Setting, pair: PairFiles) -> bool:
        """See `TargetEngine.takes`. A dynamic tree has no fewer tokens than levels, and no more than `topK` a level."""
        kind = pair.drafter.kind
        if setting.choices or kind == MEDUSA:
            return setting.choices and kind in (MEDUSA, EAGLE)
        if setting.chain or kind != EAGLE:
            return setting.chain
        return eagle_version(pair) == 3 and setting.steps <= setting.nodes <= setting.top_k * setting.steps

    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """See `TargetEngine.told`: `speculative_config`."""
        if setting.choices:
            name = "Medusa" if pair.drafter.kind == MEDUSA else "Eagle"
            return {"decoding_type": name, "max_draft_len": setting.nodes}
        path = {"speculative_model": at} if (at := drafter_path(pair).get("model")) else {}
        told: dict[str, Any] = {"decoding_type": self.named(pair), **path, "max_draft_len": setting.steps}
        if setting.chain:
            return told
        tree = {"dynamic_tree_max_topK": setting.top_k, "max_total_draft_tokens": setting.nodes}
        return told | {"use_dynamic_tree": True} | tree

    def with_choices(self, told: Mapping[str, Any], topology: Topology) -> dict[str, Any]:
        """See `TargetEngine.with_choices`."""
        kept = {"decoding_type": told["decoding_type"], "max_draft_len": topology.num_nodes}
        if told["decoding_type"] == "Medusa":
            return kept | {"num_medusa_heads": topology.depth, "medusa_choices": medusa_choices(topology)}
        most = max(len(level.parents) for level in topology.levels)
        layers = {"num_eagle_layers": topology.depth, "max_non_leaves_per_layer": most}
        return kept | layers | {"eagle_choices": medusa_choices(topology)}

    def file(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """See `TargetEngine.file`."""
        return "tensorrt-llm.yaml", OmegaConf.to_yaml(OmegaConf.create({"speculative_config": dict(told)}))

    def synthetic(self, rates: Sequence[float]) -> dict[str, Any]:
        """See `TargetEngine.synthetic`: an environment variable; the bonus token is not counted."""
        return {"TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS": round(sum(rates), 4)}
