"""Fit an alignment of a pair: what `specdraft fit alignment` does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import torch

from specdraft.config import own_keys
from specdraft.drafters.pair import Pair, PairFiles, load_pair
from specdraft.errors import ConfigError
from specdraft.models.alignment_file import KIND
from specdraft.models.output_layer import LAST
from specdraft.prediction.alignment import Affine, RidgeFits, StateSums, choose_ridge, reduced_rank
from specdraft.prediction.alignment_heads import Heads
from specdraft.prediction.alignment_quality import HeldOut, Quality, as_data
from specdraft.prediction.alignment_refine import Refined, Training, refine
from specdraft.prediction.overhead import Overhead, overhead
from specdraft.results.files import write_atomically
from specdraft.study.alignment_texts import FitTexts, recorded_texts_to_fit, states_of, windows_to_fit
from specdraft.study.plan import one_combination
from specdraft.study.refusals import refuse_encoder_decoder, refuse_without_effect

COMMAND = "fit alignment"
OF_TREES = ("drafter", "tree", "budget", "acceptance", "engine", "experiment", "most_combinations")
OF_PROMPTS = ("prompts", "sampling", "max_new_tokens", "max_prompt_tokens", "seed")


@dataclass
class AlignmentFit:
    """The keys `fit.*`.

    Attributes:
        text: a file of plain text that both models read; left out: the pair's prompts with the target's continuations.
        tokens: of the text that are read; left out: all.
        window: tokens of the text that are read at once.
        folds: of the cross-validation of the ridge; one more part of the texts is held out for the figures.
        ridge: left out: the best one by cross-validation.
        rank: of the map, at most; left out: no limit.
        refine: go on from the least-squares map by KL to the target's distribution; its states are kept in memory.
        steps: of refining.
    """

    text: str | None = None
    tokens: int | None = None
    window: int = 256
    folds: int = 5
    ridge: float | None = None
    rank: int | None = None
    refine: bool = False
    steps: int = 400

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        for key, least in (("tokens", 1), ("window", 16), ("folds", 2), ("rank", 1), ("steps", 2)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ConfigError(f"fit.{key}={value} is out of range; expected {least} or more")
        if self.ridge is not None and not (math.isfinite(self.ridge) and self.ridge >= 0):
            raise ConfigError(f"fit.ridge={self.ridge} is out of range; expected 0 or more")
        if self.tokens is not None and self.text is None:
            raise ConfigError(f"fit.tokens={self.tokens} has no effect without fit.text")
        if self.refine and self.rank is not None:
            raise ConfigError(f"fit.refine does not keep fit.rank={self.rank}; leave one of them out")


@dataclass(frozen=True)
class FittedAlignment:
    """An alignment, and what is known of it.

    Attributes:
        affine: the map; `least_squares`: before it was refined.
        source, tokens: what it was fitted to, and how many positions.
        ridge, condition: see `RidgeFits`.
        rank: of the map.
        quality: on texts that were held out.
        overhead: the memory that it takes.
        refined: how refining went.
    """

    pair: PairFiles
    affine: Affine
    source: str
    tokens: int
    ridge: float
    condition: float
    rank: int
    quality: Quality
    overhead: Overhead
    refined: Refined | None = None

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        facts = {
            "pair": self.pair.spec.name,
            "target": self.pair.weights[0],
            "draft": self.pair.weights[1],
            "layer": LAST,
            "source": self.source,
            "tokens": self.tokens,
            "ridge": self.ridge,
            "condition": self.condition if math.isfinite(self.condition) else None,
            "rank": self.rank,
            **as_data(self.quality),
            "memory": asdict(self.overhead),
        }
        if self.refined is None:
            return facts
        refined = {name: value for name, value in vars(self.refined).items() if name != "affine"}
        return facts | {"refined": refined | {"converged": self.refined.converged}}

    def write(self, path: Path) -> None:
        """As safetensors with metadata. Raises `ResultsError` where it cannot be written."""
        from safetensors.torch import save

        facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in self.as_dict().items()}
        tensors = {"weight": self.affine.weight, "bias": self.affine.bias}
        floats = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
        write_atomically(path, save(floats, {"kind": KIND, **facts}))


def default_path(files: PairFiles, folder: Path) -> Path:
    """What an alignment is called if nobody says so: by its models."""
    return folder / f"alignment-{'-'.join(files.weights)}.safetensors"


def fit_alignment(
    overrides: list[str], config_dir: Path | None = None, said: Callable[[str], None] = lambda what: None
) -> FittedAlignment:
    """Fit an alignment of the pair that overrides name.

    Args:
        overrides: in Hydra's grammar; `fit.*` as in `AlignmentFit`.
        config_dir: the user's configs.
        said: called with a line of text for what takes a while.

    Raises:
        ConfigError: the overrides cannot be meant or have no effect, there are too few texts, or the fit is singular.
        UserError: as `load_prompts`, `encode_prompts` and `load_pair`.
    """
    asked, others = own_keys("fit", overrides, AlignmentFit)
    asked.check()
    refuse_without_effect(COMMAND, others, OF_TREES, "it fits a map between the states of a pair's two models")
    if asked.text is not None:
        refuse_without_effect(COMMAND, others, OF_PROMPTS, "the text is that of fit.text")
    combination = one_combination(COMMAND, others, config_dir)
    refuse_encoder_decoder(COMMAND, combination.pair.target)
    texts = _windows(combination.pair, asked) if asked.text is not None else None
    pair = load_pair(combination.pair)
    texts = texts or recorded_texts_to_fit(pair, combination, asked.folds + 1, said)
    said(f"{texts.source}: {texts.tokens} tokens")
    return fit(pair, texts, asked)


def _windows(files: PairFiles, asked: AlignmentFit) -> FitTexts:
    assert asked.text is not None
    window = min(asked.window, files.context_length or asked.window)
    return windows_to_fit(files, asked.text, window, asked.tokens, asked.folds + 1)


class Gathered(NamedTuple):
    """What is known of the texts that a map is fitted to.

    Attributes:
        folds: the sums of each fold.
        draft, target: `[n, d_d]` and `[n, d_t]` the states themselves, where they are kept; else empty.
    """

    folds: list[StateSums]
    draft: torch.Tensor
    target: torch.Tensor


def gather(pair: Pair, texts: FitTexts, folds: int, keep: bool) -> Gathered:
    """Sums over the parts 0 .. folds - 1 of the texts, which are read once; with `keep` the states too."""
    sums: dict[int, StateSums] = {}
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    for part, x, y in states_of(pair, texts, range(folds)):
        here = StateSums.of(x, y)
        sums[part] = sums[part] + here if part in sums else here
        if keep:
            kept.append((x.cpu().clone(), y.cpu().clone()))  # what inference mode made has no gradients
    states = map(torch.cat, zip(*kept, strict=True)) if keep else (torch.empty(0), torch.empty(0))
    return Gathered([sums[part] for part in sorted(sums)], *states)


def fit(pair: Pair, texts: FitTexts, asked: AlignmentFit) -> FittedAlignment:
    """Fit on all parts of the texts but the last, on which it is judged."""
    heads, refined = Heads.of(pair), None
    gathered = gather(pair, texts, asked.folds, asked.refine)
    fits = RidgeFits(total := reduce(add, gathered.folds))
    ridge = choose_ridge(gathered.folds).ridge if asked.ridge is None else asked.ridge
    affine = fits.fit(ridge)
    rank = min(asked.rank or len(affine.bias), *affine.weight.shape)
    if rank < min(affine.weight.shape):
        affine = reduced_rank(affine, fits.about, ridge * fits.scale, rank, heads.target.weight)
    if asked.refine:
        training = Training(steps=asked.steps)
        states = gathered.draft, gathered.target
        refined = refine(affine, fits.about, *states, heads.of_target, heads.of_target, training)
        affine = refined.affine
    held_out = HeldOut(affine, {"aligned": heads.aligned(affine), "own": heads.of_draft}, heads.of_target)
    for _, x, y in states_of(pair, texts, [asked.folds]):
        held_out.add(x, y)
    memory = overhead(affine.held_bytes, pair.files.models)
    found = (ridge, fits.condition(ridge), rank, held_out.figures(), memory, refined)
    return FittedAlignment(pair.files, affine, texts.source, total.positions, *found)
