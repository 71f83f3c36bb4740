"""What inference engines can be told of speculation, in their own names.

From their sources: SGLang 0.5 (`num-draft-tokens` counts the root), vLLM 0.33 (chains), TensorRT-LLM 1.4 (dynamic trees
of EAGLE-3, chains elsewhere), transformers 5.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import OmegaConf

from specdraft.drafters.pair import PairFiles
from specdraft.errors import ConfigError
from specdraft.study.combination import Combination
from specdraft.trees.shapes.expand_rerank import ExpandRerank

CHAINS = ["tree=chain", "budget=1,2,3,4,5,6,7,8,12,16"]
TREES = ["tree=expand_rerank", "tree.top_k=2,4,8", "tree.steps=2,4,6", "budget=3,7,15,31"]


@dataclass(frozen=True)
class Setting:
    """A candidate as one engine is told of it.

    Attributes:
        steps: draft levels.
        top_k: children of a node; 1: a chain.
        nodes: draft tokens of a step, without the root.
    """

    steps: int
    top_k: int
    nodes: int

    @classmethod
    def of(cls, combination: Combination) -> Setting:
        """Of a chain, or of an expand-and-rerank tree."""
        shape, limits = combination.shape, combination.limits
        if isinstance(shape, ExpandRerank):
            return cls(shape.steps, shape.top_k, limits.nodes)
        return cls(limits.depth, 1, limits.nodes)


class TargetEngine(ABC):
    """An engine."""

    kind: ClassVar[str]
    trees: ClassVar[bool] = False  # it can be told of more than chains
    drafters: ClassVar[Mapping[str, str]]  # ours -> what it calls them

    def named(self, pair: PairFiles) -> str:
        """What the engine calls a pair's drafter. Raises `ConfigError` where it has none of the kind."""
        if (kind := pair.drafter.kind) not in self.drafters:
            known = ", ".join(self.drafters)
            raise ConfigError(f"drafter={kind}: --engine {self.kind} has no such drafter; expected one of {known}")
        return self.drafters[kind]

    @abstractmethod
    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """The configuration in the engine's own names."""

    @abstractmethod
    def file(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """Name and text of the file that holds it."""

    @abstractmethod
    def synthetic(self, told: Mapping[str, Any], rates: Sequence[float]) -> dict[str, Any]:
        """What makes the engine accept at these rates whatever is drafted: `rates[i]` is the probability that the first
        i + 1 draft tokens are accepted."""

    def words(self, told: Mapping[str, Any]) -> str:
        """In a line, for people."""
        return ", ".join(f"{name}={value}" for name, value in told.items())


def _drafter_path(pair: PairFiles) -> dict[str, str]:
    return {"model": pair.draft.spec.path} if pair.draft is not None else {}


def length_of(rates: Sequence[float]) -> float:
    """Tokens of a step, the bonus token included."""
    return 1 + sum(rates)


class SGLang(TargetEngine):
    """Its trees are EAGLE-2's; a chain has top-k 1 and one draft token more than steps."""

    kind = "sglang"
    trees = True
    drafters: ClassVar[Mapping[str, str]] = {"model": "STANDALONE", "eagle": "EAGLE3", "ngram": "NGRAM"}

    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """See `TargetEngine.told`: the flags."""
        flags: dict[str, Any] = {"speculative-algorithm": self.named(pair)}
        if path := _drafter_path(pair).get("model"):
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

    def synthetic(self, told: Mapping[str, Any], rates: Sequence[float]) -> dict[str, Any]:
        """See `TargetEngine.synthetic`: environment variables; the length counts the bonus token."""
        return {
            "SGLANG_SIMULATE_ACC_LEN": round(length_of(rates), 4),
            "SGLANG_SIMULATE_ACC_METHOD": "match-expected",
        }


class VLLM(TargetEngine):
    """Chains."""

    kind = "vllm"
    drafters: ClassVar[Mapping[str, str]] = {
        "model": "draft_model",
        "eagle": "eagle3",
        "ngram": "ngram",
        "suffix": "suffix",
    }

    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """See `TargetEngine.told`: `speculative_config`."""
        return {"method": self.named(pair), **_drafter_path(pair), "num_speculative_tokens": setting.nodes}

    def file(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """See `TargetEngine.file`."""
        return "vllm-speculative-config.json", json.dumps(dict(told), indent=1) + "\n"

    def synthetic(self, told: Mapping[str, Any], rates: Sequence[float]) -> dict[str, Any]:
        """See `TargetEngine.synthetic`: unconditional rates per position."""
        listed = [round(rate, 4) for rate in rates][: told["num_speculative_tokens"]]
        return {**told, "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": listed}


class TensorRTLLM(TargetEngine):
    """Dynamic trees with an EAGLE-3 head, chains with everything else."""

    kind = "tensorrt-llm"
    trees = True
    drafters: ClassVar[Mapping[str, str]] = {"model": "DraftTarget", "eagle": "Eagle3", "ngram": "NGram"}

    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """See `TargetEngine.told`: `speculative_config`."""
        path = {"speculative_model": at} if (at := _drafter_path(pair).get("model")) else {}
        told: dict[str, Any] = {"decoding_type": self.named(pair), **path, "max_draft_len": setting.steps}
        if setting.top_k == 1:
            return told
        tree = {"dynamic_tree_max_topK": setting.top_k, "max_total_draft_tokens": setting.nodes}
        return told | {"use_dynamic_tree": True} | tree

    def file(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """See `TargetEngine.file`."""
        return "tensorrt-llm.yaml", OmegaConf.to_yaml(OmegaConf.create({"speculative_config": dict(told)}))

    def synthetic(self, told: Mapping[str, Any], rates: Sequence[float]) -> dict[str, Any]:
        """See `TargetEngine.synthetic`: an environment variable; the bonus token is not counted."""
        return {"TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS": round(length_of(rates) - 1, 4)}


class Transformers(TargetEngine):
    """Chains, set in the assistant's own generation config."""

    kind = "hf"
    drafters: ClassVar[Mapping[str, str]] = {"model": "assistant", "ngram": "prompt lookup", "early_exit": "early exit"}

    def told(self, setting: Setting, pair: PairFiles) -> dict[str, Any]:
        """See `TargetEngine.told`: generation settings."""
        kind = self.named(pair)
        if kind == "prompt lookup":
            return {"prompt_lookup_num_tokens": setting.nodes}
        # the threshold is off: with it a chain ends where the assistant is unsure
        told = {"num_assistant_tokens": setting.nodes, "num_assistant_tokens_schedule": "constant"}
        return told | {"assistant_confidence_threshold": 0.0}

    def file(self, told: Mapping[str, Any]) -> tuple[str, str]:
        """See `TargetEngine.file`."""
        return "hf-generation-config.json", json.dumps(dict(told), indent=1) + "\n"

    def synthetic(self, told: Mapping[str, Any], rates: Sequence[float]) -> dict[str, Any]:
        """See `TargetEngine.synthetic`: it has none."""
        return {}


ENGINES: dict[str, TargetEngine] = {engine.kind: engine for engine in (SGLang(), VLLM(), TensorRTLLM(), Transformers())}


def llama_cpp(rates: Sequence[float]) -> str:
    """Synthetic acceptance for llama.cpp, whose rates per position are unconditional too."""
    return f"--spec-synthetic-acceptance-rates {','.join(f'{rate:.4f}' for rate in rates)}"
