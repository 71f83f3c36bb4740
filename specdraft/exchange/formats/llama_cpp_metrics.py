"""llama.cpp's counters at `/metrics` (llama-server --metrics): they are called as vLLM's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from specdraft.exchange.formats.vllm_metrics import VLLMMetrics


@dataclass
class LlamaCppMetrics(VLLMMetrics):
    """Counters since the server started. A draft is a step with draft tokens; others are not counted."""

    kind: ClassVar[str] = "llama.cpp-metrics"
    about: ClassVar[str] = "llama.cpp's /metrics"
    prefix: ClassVar[str] = "llamacpp:"
    emitted: ClassVar[str] = ""  # tokens are counted without speculation too
    requests: ClassVar[str] = ""
