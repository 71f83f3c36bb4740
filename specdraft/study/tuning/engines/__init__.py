"""Inference engines, one file each: what they can be told of speculation, in their own names."""

from __future__ import annotations

from specdraft.study.tuning.engines.base import AtBatch, Grid, Setting, TargetEngine, length_of, llama_cpp
from specdraft.study.tuning.engines.hf import Transformers
from specdraft.study.tuning.engines.sglang import SGLang
from specdraft.study.tuning.engines.tensorrt_llm import TensorRTLLM
from specdraft.study.tuning.engines.vllm import VLLM

__all__ = ["ENGINES", "AtBatch", "Grid", "Setting", "TargetEngine", "length_of", "llama_cpp"]

ENGINES: dict[str, TargetEngine] = {engine.kind: engine for engine in (SGLang(), VLLM(), TensorRTLLM(), Transformers())}
