"""What a draft level and a verification cost on this machine, and what a replayed run would take.

An estimate of time from counts: prefills + steps x (draft levels + verification + the rest of a step).
The pieces are measured once for each pair and device, warm, synchronised, as medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from specdraft.acceptance import Greedy
from specdraft.decoding.decode import Clock, Ending, decode, decode_plainly
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Prefilled
from specdraft.drafters.pair import Pair
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import tail_mask
from specdraft.models.placement import resolve_device
from specdraft.results.manifest import cpu_name
from specdraft.sampling.distribution import Sampling
from specdraft.traces.store import TraceStore, libraries
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.topology import Topology

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
PREFIX = 128  # committed tokens while measuring
WARM_UP, REPEATS = 3, 9


@dataclass(frozen=True)
class CostCurve:
    """Seconds on one machine.

    Attributes:
        sizes: numbers of tokens that were measured, ascending.
        draft_level_s: drafting one level whose parents are so many nodes.
        verify_s: the target's forward over so many tokens (root included).
        plain_s: one step of plain decoding.
        other_s: the rest of a step: acceptance, cache upkeep.
        select_s: what one level of a dynamic tree takes on top: choosing its nodes, masks made anew in each step.
        prefill_s: both models on a prompt of `PREFIX` tokens; `target_prefill_s`: the target alone.
    """

    sizes: list[int]
    draft_level_s: list[float]
    verify_s: list[float]
    plain_s: float
    other_s: float
    select_s: float
    prefill_s: float
    target_prefill_s: float
    threads: int
    device: str

    def step_s(self, topology: Topology) -> float:
        """Seconds of one verification step with this tree."""
        parents = [len(level.parents) for level in topology.levels]
        drafting = self._at(parents, self.draft_level_s).sum()
        return float(drafting + self._at([len(topology)], self.verify_s)[0] + self.other_s)

    def dynamic_steps_s(self, fed: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """`[V]` seconds of steps with dynamic trees of `nodes` `[V]`; `fed` `[V, D]` nodes made each level (0: there
        is none)."""
        levels = np.where(fed > 0, self._at(fed, self.draft_level_s) + self.select_s, 0.0)
        seconds: np.ndarray = levels.sum(1) + self._at(nodes + 1, self.verify_s) + self.other_s
        return seconds

    def _at(self, counts: list[int] | np.ndarray, seconds: list[float]) -> np.ndarray:
        """Seconds for so many tokens: linear between the sizes that were measured, and beyond the last two."""
        inside = np.interp(counts, self.sizes, seconds)
        slope = (seconds[-1] - seconds[-2]) / (self.sizes[-1] - self.sizes[-2])
        beyond: np.ndarray = inside + np.maximum(np.array(counts) - self.sizes[-1], 0) * max(slope, 0.0)
        return beyond

    def decode_s(self, topology: Topology, steps: float) -> float:
        """Seconds of decoding a prompt in so many steps."""
        return self.prefill_s + steps * self.step_s(topology)

    def plain_decode_s(self, new_tokens: int) -> float:
        """Seconds of decoding a prompt plainly."""
        return self.target_prefill_s + (new_tokens - 1) * self.plain_s

    def as_dict(self) -> dict[str, object]:
        """For the manifest and the store."""
        return asdict(self)


def measure_costs(pair: Pair) -> CostCurve:
    """Measure a pair on the device that it is on."""
    limit = pair.files.context_length or 2 * (PREFIX + SIZES[-1])
    prefix = min(PREFIX, limit // 2)
    ids = torch.randint(0, pair.target.vocab, (prefix,), generator=torch.Generator().manual_seed(0)).tolist()
    device, prompt = pair.target.device, Prefilled(ids, Verifier.of(pair).prefill(ids).hidden)
    prefill_target = _median(device, lambda: _prefill(pair.target, ids))
    prefill_draft = _median(device, lambda: pair.drafter.begin(prompt))
    sizes = [size for size in SIZES if prefix + size <= limit]
    draft = [_median(device, partial(pair.drafter.rehearse, size)) for size in sizes]
    verify = [_median(device, partial(_verify, pair.target, size)) for size in sizes]
    plain, other = _loop_costs(pair, ids[: prefix // 2])
    whole = prefill_target + prefill_draft
    curve = CostCurve(
        sizes, draft, verify, plain, other, 0.0, whole, prefill_target, torch.get_num_threads(), _device_name(pair)
    )
    if pair.drafter.traits.probabilities:
        curve = replace(curve, select_s=_select_cost(pair, ids[: prefix // 2], curve))
    pair.target.reset()
    pair.drafter.begin(Prefilled([], None if prompt.hidden is None else prompt.hidden[:0]))
    return curve


def _median(device: torch.device, run: Callable[[], None]) -> float:
    seconds = []
    clock = Clock(device)
    for turn in range(WARM_UP + REPEATS):
        clock.restart()
        run()
        if turn >= WARM_UP:
            seconds.append(clock.lap())
        else:
            clock.lap()
    return statistics.median(seconds)


def _prefill(model: CachedModel, ids: list[int]) -> None:
    model.reset()
    model.prefill(ids)


def _verify(model: CachedModel, size: int) -> None:
    """A forward over `size` siblings after the prefix, which stays as it was."""
    tokens = torch.arange(size, device=model.device) % model.vocab
    tail = tail_mask(torch.eye(size, dtype=torch.bool, device=model.device), model.dtype)
    model.append(tokens, torch.zeros_like(tokens), tail)
    model.commit([])


def _loop_costs(pair: Pair, ids: list[int]) -> tuple[float, float]:
    """Seconds of a plain step, and of the rest of a speculative step, out of short live runs."""
    ending, verifier = Ending(max(2, len(ids))), Verifier.of(pair)
    plan = Chain().at(min(4, pair.drafter.traits.deepest or 4))
    plain, other = [], []
    clock = Clock(pair.target.device)
    prefill = _median(pair.target.device, lambda: _prefill(pair.target, ids))
    for _ in range(3):
        clock.restart()
        decode_plainly(verifier, Sampling(), ids, ending)
        plain.append((clock.lap() - prefill) / (ending.max_new_tokens - 1))
        decoding = decode(verifier, pair.drafter, plan, Greedy(), Sampling(), ids, ending)
        other += [step.other_s for step in decoding]
    return statistics.median(plain), statistics.median(other)


def _select_cost(pair: Pair, ids: list[int], curve: CostCurve) -> float:
    """Seconds that a level of a dynamic tree takes on top of what the curve says, out of a short live run."""
    plan, ending = BestFirst(max_depth=4).at(16), Ending(max(2, len(ids) // 2))
    steps = decode(Verifier.of(pair), pair.drafter, plan, Greedy(), Sampling(), ids, ending)
    extra = [(s.draft_s + s.verify_s + s.other_s - curve.step_s(s.tree.topology)) / max(s.tree.depth, 1) for s in steps]
    return max(statistics.median(extra), 0.0)


def pair_costs(pair: Pair, store: TraceStore, measured: Callable[[str], None] = lambda what: None) -> CostCurve:
    """The pair's costs on this machine: kept with the traces, measured where they are missing."""
    about = _about(pair)
    tensors = store.get(about)
    if tensors is not None and set(tensors) == {*LISTS, *NUMBERS}:
        values: dict[str, Any] = {n: tensors[n].tolist() for n in LISTS} | {n: float(tensors[n][0]) for n in NUMBERS}
        return CostCurve(**values, threads=about["threads"], device=about["device"])
    curve = measure_costs(pair)
    store.put(
        about, {n: np.array(getattr(curve, n)) for n in LISTS} | {n: np.array([getattr(curve, n)]) for n in NUMBERS}
    )
    measured(f"measured what drafting and verifying cost with {pair.label}")
    return curve


LISTS = ("sizes", "draft_level_s", "verify_s")
NUMBERS = ("plain_s", "other_s", "select_s", "prefill_s", "target_prefill_s")


def _about(pair: Pair) -> dict[str, Any]:
    """Everything that costs depend on."""
    return {
        "kind": "costs",
        "target": pair.target_facts,
        "draft": pair.draft_facts,
        "device": _device_name(pair),
        "threads": torch.get_num_threads(),
        "libraries": libraries(),
    }


def _device_name(pair: Pair) -> str:
    if pair.target_facts["device"] != "cuda":
        return cpu_name()
    return torch.cuda.get_device_name(resolve_device(pair.files.target.spec))
