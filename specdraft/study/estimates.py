"""What recording will take of a pair that is not bundled, from its config alone: memory, and time by operations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from specdraft.bench.rate import flops_per_s
from specdraft.drafters.pair import PairFiles
from specdraft.models.placement import dtype_of, resolve_device
from specdraft.models.self_check import free_memory
from specdraft.models.sizes import ModelSize, gib, model_size, too_large
from specdraft.study.combination import Combination, by_texts, encode_prompts
from specdraft.study.plan import StudyPlan

AT_ONCE = 16  # prompts of a batch: what memory is estimated for
MANY = 64  # tokens of a forward that reads whole texts


@dataclass(frozen=True)
class Estimate:
    """One pair.

    Attributes:
        device: of the target.
        weights_bytes: of target and drafter.
        batch_bytes: of what is cached for `AT_ONCE` prompts of the greatest length, and of their logits.
        free_bytes: of the device, now.
        texts: that are recorded, if none is there yet.
        operations: floating-point operations of decoding them, and of reading them.
        flops_per_s: of the device, now: with `AT_ONCE` tokens, and with `MANY`.
        refused: why a sweep will refuse the pair.
    """

    pair: str
    device: str
    weights_bytes: tuple[int, ...]
    batch_bytes: int
    free_bytes: int
    texts: int
    operations: tuple[float, float]
    flops_per_s: tuple[float, float]
    refused: str | None

    @property
    def record_s(self) -> float:
        """Seconds of arithmetic, which is what recording takes at least."""
        return sum(work / rate for work, rate in zip(self.operations, self.flops_per_s, strict=True))

    @property
    def needed_bytes(self) -> int:
        """Weights and a batch."""
        return sum(self.weights_bytes) + self.batch_bytes

    def lines(self) -> list[str]:
        """For people."""
        weights = " + ".join(map(gib, self.weights_bytes))
        memory = f"weights {weights}, {gib(self.batch_bytes)} for {AT_ONCE} prompts at once; {self.device} has "
        lines = [f"estimate: {self.pair}: {memory}{gib(self.free_bytes)} free"]
        if self.texts:
            slow, fast = (f"{rate / 1e9:.3g}" for rate in self.flops_per_s)
            speed = f"{slow} GFLOP/s ({AT_ONCE} tokens at once; {fast} with {MANY}), as just measured"
            least = f"at least {duration(self.record_s)} at {speed}"
            lines.append(f"estimate: {self.pair}: recording {self.texts} texts: {least}")
        if self.refused:
            lines.append(f"warning: a sweep will refuse this: {self.refused}")
        elif self.needed_bytes > self.free_bytes:
            needed = f"{gib(self.needed_bytes)} of {gib(self.free_bytes)} that are free"
            lines.append(f"warning: {self.pair} may not fit: {needed}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self) | {"record_s": self.record_s}


def estimates(plan: StudyPlan) -> list[Estimate]:
    """An estimate for each pair of which not all models are bundled, on what a plan asks of it."""
    real = {
        files: combinations
        for files, combinations in plan.by_pair().items()
        if not files.bundled and not files.target.spec.served
    }
    return [_estimate(plan, files, combinations) for files, combinations in real.items()]


class _Recording(NamedTuple):
    """Texts that are recorded together: of each prompt one.

    Attributes:
        new_tokens: of a text, at most.
        sampled: both models read it once more, for the acceptance rules.
        nodes: of best-first trees, drafted at each of its tokens.
    """

    new_tokens: int
    sampled: bool
    nodes: int


def _recordings(plan: StudyPlan, combinations: Iterable[Combination]) -> list[_Recording]:
    recordings = []
    for group, _ in by_texts((c for c in combinations if c.engine == "replay"), plan.settings.repeats):
        first, nodes = group[0], max((c.limits.nodes for c in group if c.together.dynamic), default=0)
        recordings.append(_Recording(first.settings.max_new_tokens, not first.sampling.greedy, nodes))
    return recordings


def _operations(sizes: Sequence[ModelSize], prompt_tokens: Sequence[int], recording: _Recording) -> tuple[float, float]:
    """Floating-point operations of decoding texts, and of reading them: two for each parameter and token."""
    target, draft = (sizes[role].active_parameters if role < len(sizes) else 0 for role in (0, 1))
    new, prompt = recording.new_tokens * len(prompt_tokens), sum(prompt_tokens)
    read = target * prompt + draft * (prompt + new) + draft * recording.nodes * new
    read += (target + draft) * (prompt + new) if recording.sampled else 0
    return 2.0 * target * new, 2.0 * read


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _estimate(plan: StudyPlan, files: PairFiles, combinations: Sequence[Combination]) -> Estimate:
    sizes = [model_size(model) for model in files.models]
    prompt_tokens = [len(ids) for ids in encode_prompts(files, plan.prompts, combinations).values()]
    new = max(combination.settings.max_new_tokens for combination in combinations)
    longest = max(prompt_tokens) + new
    recorded = _recordings(plan, combinations)
    device = resolve_device(files.target.spec)
    dtype = dtype_of(files.target)
    operations = [_operations(sizes, prompt_tokens, group) for group in recorded]
    return Estimate(
        files.label,
        str(device),
        tuple(size.weights_bytes for size in sizes),
        AT_ONCE * (longest * sizes[0].state_bytes + sizes[0].logits_bytes),
        free_memory(device),
        len(recorded) * len(plan.prompts),
        (sum(decoded for decoded, _ in operations), sum(read for _, read in operations)),
        (flops_per_s(device, dtype, AT_ONCE), flops_per_s(device, dtype, MANY)),
        too_large(files.spec.name, files.models),
    )
