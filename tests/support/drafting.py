"""A draft model on its own: what it says along texts, without a pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from specdraft.drafters.base import Annotation, Expansion, Prefilled, RecordedText
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.models.cached_model import CachedModel
from specdraft.traces.record import Trajectory
from specdraft.trees.shapes import BestFirstPlan


def texts_of(prompts: Sequence[Sequence[int]], trajectories: Sequence[Trajectory]) -> list[RecordedText]:
    return [RecordedText(prompt, text.tokens) for prompt, text in zip(prompts, trajectories, strict=True)]


def prefilled(prompt: Sequence[int]) -> Prefilled:
    return Prefilled(prompt)


def annotate(
    model: CachedModel, prompts: Sequence[Sequence[int]], trajectories: Sequence[Trajectory]
) -> list[Annotation]:
    return ModelDrafter(model).annotate(texts_of(prompts, trajectories))


def expand(model: CachedModel, prompt: Sequence[int], tokens: np.ndarray, plan: BestFirstPlan) -> Expansion:
    return ModelDrafter(model).expand(RecordedText(prompt, tokens), plan)
