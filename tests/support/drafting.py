"""A draft model on its own: what it says along texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from specdraft.drafters.base import Annotation, Expansion, Prefilled, RecordedText
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import LanguageModel
from specdraft.study.recorded import RecordedTexts
from specdraft.traces.record import Trajectory, record_trajectories
from specdraft.trees.shapes import BestFirstPlan


def texts_of(prompts: Sequence[Sequence[int]], trajectories: Sequence[Trajectory]) -> list[RecordedText]:
    return [RecordedText(prompt, text.tokens) for prompt, text in zip(prompts, trajectories, strict=True)]


def prefilled(prompt: Sequence[int]) -> Prefilled:
    return Prefilled(prompt)


def record_all(model: LanguageModel, prompts: Sequence[Sequence[int]], *given: Any) -> list[Trajectory]:
    """`record_trajectories`, in the order of the prompts."""
    made = dict(record_trajectories(model, prompts, *given))
    return [made[row] for row in range(len(prompts))]


def annotate(
    model: CachedModel, prompts: Sequence[Sequence[int]], trajectories: Sequence[Trajectory]
) -> list[Annotation]:
    return ModelDrafter(model).annotate(texts_of(prompts, trajectories))


def expand(model: CachedModel, prompt: Sequence[int], tokens: np.ndarray, plan: BestFirstPlan) -> Expansion:
    return next(ModelDrafter(model).expand([RecordedText(prompt, tokens)], plan))


def draft_logits(pair: Pair, texts: RecordedTexts, name: str) -> torch.Tensor:
    """`[T, vocab]` what a pair's drafter says before each token of a text, the first aside."""
    text = RecordedText(texts.prompt_ids[name], texts.traces.trajectories[name].tokens)
    return torch.cat([*pair.drafter.logits_along([text], len(text.tokens))], 1)[0, 1:]
