"""One fitted tree on all prompts of a pair, to keep: what `specdraft trees fit` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdraft.config import Settings
from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair, load_pair
from specdraft.prompts import Prompt, load_prompts
from specdraft.replay.fit import fit_on_all
from specdraft.replay.static import pack_traces
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import Combination, encode_all
from specdraft.study.plan import one_combination
from specdraft.study.refusals import refuse_engine
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore, default_folder
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.topology import Topology


@dataclass(frozen=True)
class FittedTree:
    """A tree, and what it was fitted to.

    Attributes:
        combination: of the pair, the shape and the settings.
        prompts: how many prompts it was fitted on.
    """

    combination: Combination
    topology: Topology
    prompts: int

    def as_dict(self) -> dict[str, Any]:
        """For programs, and for `tree=paths tree.file=FILE`."""
        keys = self.combination.keys
        said = ("tree", "pair", "target", "draft", "dtype", "budget", "temperature", "top_k", "top_p", "max_new_tokens")
        size = {"nodes": self.topology.num_nodes, "depth": self.topology.depth}
        fitted_on = {"prompts": keys["prompts"], "fitted_on": self.prompts, "seed": keys["seed"]}
        closed = {"sibling_closed": self.topology.sibling_closed}
        paths = [list(path) for path in self.topology.paths[1:]]
        return {name: keys[name] for name in said} | size | fitted_on | closed | {"paths": paths}


def fit_tree(
    name: str,
    overrides: list[str],
    config_dir: Path | None = None,
    recorded: Callable[[str], None] = lambda what: None,
) -> FittedTree:
    """Fit a shape on all prompts of a pair; traces are recorded where they are missing.

    Args:
        name: of a tree config.
        overrides: in Hydra's grammar; by default the bundled pair and 8 draft nodes.
        config_dir: the user's configs.
        recorded: called with a line of text for what takes a while.

    Raises:
        ConfigError: the shape is not fitted, its tree does not fit the budget or the vocabulary, or the overrides
            cannot be meant or have no effect.
        UserError: as `load_prompts`, `encode_prompts` and `load_pair`.
    """
    refuse_engine("trees fit", overrides, "replay")
    combination = one_combination("trees fit", [f"tree={name}", *overrides], config_dir)
    combination.together.refuse_fit()
    shape, settings, template = combination.shape, combination.settings, combination.prompts.chat_template
    prompts = load_prompts(combination.prompts)
    encode_all(combination.pair, prompts, template, settings, combination.limits.depth)  # what fails, fails at once
    pair = load_pair(combination.pair)
    packed = record_ranks(pair, prompts, template, combination.sampling, settings, combination.limits.depth, recorded)
    return FittedTree(combination, fit_on_all(shape, settings.budget, packed).topology, len(prompts))


def record_ranks(
    pair: Pair,
    prompts: Sequence[Prompt],
    template: str,
    sampling: Sampling,
    settings: Settings,
    depth: int,
    recorded: Callable[[str], None] = lambda what: None,
) -> PackedRanks:
    """The drafter's ranks along the target's texts of these prompts; what is not in the store is recorded.

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
    return pack_traces(traces, [prompt.prompt_id for prompt in prompts])
