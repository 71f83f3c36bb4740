"""A cached model whose forwards are recorded once for each shape and then run whole: CUDA graphs, and on a processor
compiled code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

import torch

from specdraft.models.cached_model import CachedModel
from specdraft.models.gate import rotary_scalings
from specdraft.models.static_model import Inputs, Outputs, Run, Shape, StaticModel

LENGTH_DECIDES = {"dynamic", "longrope"}  # rotary scalings whose factors follow from the length of the text
# Compiled code looks before each run whether all is as it was, which takes as long as a small model's forward. Where a
# forward is one piece, made for one shape of one model, only tensors can change; layers and models share pieces.
TENSORS_ONLY = {"guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe}
NO_PYTHON: dict[str, Any] = {"cpp_wrapper": True}  # between the kernels: a small model's forward is mostly that
WARM = 3  # forwards before a graph is captured: they make what libraries make once


class GraphModel(StaticModel):
    """As `StaticModel`; the first forward of each shape takes longer.

    A shape that cannot be captured or compiled runs as a static one does.

    Attributes:
        made: shape -> seconds that capturing or compiling it took.
        failed: shape -> why it runs as it is.
        failing_s: seconds that it took to find that out.
    """

    def __init__(self, of: CachedModel) -> None:
        self._runs: dict[Shape, Run] = {}
        self.made: dict[Shape, float] = {}
        self.failed: dict[Shape, str] = {}
        self.failing_s = 0.0
        super().__init__(of)

    @property
    def making_s(self) -> float:
        """Seconds that capturing and compiling took so far, in vain or not."""
        return sum(self.made.values()) + self.failing_s

    def _run(self, shape: Shape) -> Run:
        if shape not in self._runs:
            if any(shape.room != other.room for other in self._runs):
                self._runs.clear()  # of slots that are no more
            self._runs[shape] = self._first(shape)
        return self._runs[shape]

    def _first(self, shape: Shape) -> Run:
        """Runs a forward, and from the next one on what was made of it."""

        def run(inputs: Inputs) -> Outputs:
            began = time.perf_counter()
            eager = super(GraphModel, self)._run(shape)
            make = self._captured if self.device.type == "cuda" else self._compiled
            try:
                made, outputs = make(inputs, shape.layers)
            except Exception as error:  # whatever a compiler or a kernel raises, the forward itself can still run
                self.failed[shape] = str(error).strip().partition("\n")[0] or type(error).__name__
                self.failing_s += time.perf_counter() - began
                made, outputs = eager, eager(inputs)
            else:
                self.made[shape] = time.perf_counter() - began
            self._runs[shape] = made
            return outputs

        return run

    def _compiled(self, inputs: Inputs, layers: Sequence[int]) -> tuple[Run, Outputs]:
        def forward(inputs: Inputs) -> Outputs:
            return self._eager(inputs, layers)

        run: Run
        if not self._length_decides:
            try:
                run = torch.compile(_apart(forward), dynamic=False, fullgraph=True, options=NO_PYTHON | TENSORS_ONLY)
                return run, run(inputs)
            except RuntimeError:  # it falls into pieces
                pass
        run = torch.compile(_apart(forward), dynamic=False, options=NO_PYTHON)
        return run, run(inputs)

    @property
    def _length_decides(self) -> bool:
        """Whether what its layers do follows from more than the tensors that they are given."""
        return any(kind in LENGTH_DECIDES for kind, _ in rotary_scalings(self.model.config.get_text_config()))

    def _captured(self, inputs: Inputs, layers: Sequence[int]) -> tuple[Run, Outputs]:
        held = _copied(inputs)
        with torch.cuda.device(self.device):  # kernels are launched on the current one
            return self._captured_there(held, layers)

    def _captured_there(self, held: Inputs, layers: Sequence[int]) -> tuple[Run, Outputs]:
        side: Any = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self._eager(held, layers)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._eager(held, layers)

        def run(inputs: Inputs) -> Outputs:
            for into, given in zip(_tensors(held), _tensors(inputs), strict=True):
                into.copy_(given)
            graph.replay()
            logits, hidden = outputs
            return logits.clone(), None if hidden is None else hidden.clone()

        return run, run(held)


def _apart(function: Any) -> FunctionType:
    """The same function in code of its own. Compiled code is kept by the code that it was made of: of one that is
    compiled for many shapes, each run looks through all of them, and torch makes a few only."""
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def _tensors(inputs: Inputs) -> list[torch.Tensor]:
    masks = inputs.masks
    of_tail = [] if inputs.tail is None else [inputs.tail.starts, inputs.tail.bits]
    return [inputs.tokens, inputs.positions, *(masks.values() if isinstance(masks, Mapping) else [masks]), *of_tail]


def _copied(inputs: Inputs) -> Inputs:
    masks = inputs.masks
    kept = {kind: mask.clone() for kind, mask in masks.items()} if isinstance(masks, Mapping) else masks.clone()
    tail = inputs.tail and inputs.tail._replace(starts=inputs.tail.starts.clone(), bits=inputs.tail.bits.clone())
    return Inputs(inputs.tokens.clone(), inputs.positions.clone(), kept, tail)
