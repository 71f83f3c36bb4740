"""A pair's texts on a set of prompts, for what is fitted on all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from specdraft.config import Settings
from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair
from specdraft.prompts import Prompt
from specdraft.replay.calibration import Calibration, cross_fit
from specdraft.replay.folds import halves
from specdraft.replay.static import pack_traces
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import encode_all
from specdraft.traces.library import PairTraces, pair_traces
from specdraft.traces.score_losses import score_losses
from specdraft.traces.store import TraceStore, default_folder
from specdraft.trees.ranks import PackedRanks


@dataclass(frozen=True)
class RecordedTexts:
    """The target's texts of some prompts with what the drafter says along them.

    Attributes:
        prompts: in the order of all that is fitted.
        prompt_ids: prompt id -> token ids.
        seed: of the halves.
        recorded: called with a line of text for what takes a while.
    """

    pair: Pair
    prompts: Sequence[Prompt]
    prompt_ids: Mapping[str, Sequence[int]]
    traces: PairTraces
    store: TraceStore
    seed: int
    recorded: Callable[[str], None]

    @property
    def names(self) -> list[str]:
        """The prompts' ids."""
        return [prompt.prompt_id for prompt in self.prompts]

    @property
    def ranks(self) -> PackedRanks:
        """The drafter's ranks of the texts' tokens."""
        return pack_traces(self.traces, self.names)

    @property
    def temperature(self) -> float:
        """Of calibrated scores, fitted on all of them."""
        return self.calibrate().everyone.value

    def calibrate(self) -> Calibration:
        """The temperatures of the drafter's scores. Raises `ResultsError` where traces cannot be written."""
        found = score_losses(self.pair, self.prompt_ids, self.traces, self.store, self.recorded)
        return cross_fit(found, self.names, halves(self.prompts, self.seed))


def record_texts(
    pair: Pair,
    prompts: Sequence[Prompt],
    template: str,
    sampling: Sampling,
    settings: Settings,
    depth: int,
    recorded: Callable[[str], None] = lambda what: None,
) -> RecordedTexts:
    """The target's texts of these prompts; what is not in the store is recorded.

    Args:
        pair: whose texts.
        prompts, template: what is continued, and whether the chat template is used.
        sampling, settings: how; `settings` says the seed and the most tokens.
        depth: draft levels that a prompt must leave room for.
        recorded: called with a line of text for what takes a while.

    Raises:
        PromptError: a prompt does not fit.
        ResultsError: traces cannot be written.
    """
    store = TraceStore(default_folder())
    store.check_writable()
    prompt_ids = encode_all(pair.files, prompts, template, settings, depth)
    ending = Ending(settings.max_new_tokens, pair.eos_ids)
    traces = pair_traces(pair, prompt_ids, sampling, ending, store, recorded, f"{settings.seed}/0")
    return RecordedTexts(pair, prompts, prompt_ids, traces, store, settings.seed, recorded)
