"""Prompts as a target reads them, its own greedy answers in front of later turns (`prompts.turns=all`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.prompts import Prompt, name_of_turn, turn_of_name
from specdraft.prompts.turns import after_answer
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import Combination, encode_prompts
from specdraft.traces.library import pair_trajectories
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import UNWATCHED, Watch


def read_prompts(
    pair: Pair,
    prompts: Sequence[Prompt],
    combinations: Sequence[Combination],
    store: TraceStore,
    note: Callable[[str], None] = lambda text: None,
    watch: Watch = UNWATCHED,
) -> dict[str, list[int]]:
    """Token ids of every prompt, by prompt id. Raises `PromptError` as `encode_prompts`.

    Args:
        pair: with its weights in memory, or on demand: answers that are not recorded yet are recorded.
        prompts: a turn after those before it.
        combinations: that decode them; those with several turns all to one length.
        store, note, watch: see `ReplayEngine`.
    """
    return encode_prompts(pair.files, _answered(pair, prompts, combinations, store, note, watch), combinations)


def without_turns(prompts: Iterable[Prompt], why: Mapping[str, str]) -> dict[str, str]:
    """What is left out where these prompts have no text: they, and the turns after them."""
    first = {(turn := turn_of_name(name)).prompt_id: (turn.turn, reason) for name, reason in why.items()}
    left = {}
    for prompt in prompts:
        asked = turn_of_name(prompt.prompt_id)
        if asked.prompt_id in first and asked.turn >= first[asked.prompt_id][0]:
            left[prompt.prompt_id] = first[asked.prompt_id][1]
    return left


def refuse_swept_answers(prompts: Iterable[Prompt], combinations: Iterable[Combination]) -> None:
    """Raise `ConfigError` where answers of several lengths would stand in front of a turn."""
    lengths = {combination.settings.max_new_tokens for combination in combinations}
    if len(lengths) > 1 and any(prompt.earlier for prompt in prompts):
        raise ConfigError(
            "max_new_tokens cannot be swept with prompts.turns=all: answers of that length stand before later turns"
        )


def _answered(
    pair: Pair,
    prompts: Sequence[Prompt],
    combinations: Sequence[Combination],
    store: TraceStore,
    note: Callable[[str], None],
    watch: Watch,
) -> list[Prompt]:
    """The prompts with the answers in them: what is asked first of all of them, then what follows, and so on."""
    if not any(prompt.earlier for prompt in prompts):
        return list(prompts)
    whole = {prompt.prompt_id: prompt for prompt in prompts if not prompt.earlier}
    templated = pair.files.reader(combinations[0].prompts.chat_template).templated
    ending = Ending(combinations[0].settings.max_new_tokens, pair.eos_ids)
    for turn in range(2, 2 + max(len(prompt.earlier) for prompt in prompts)):
        now = {p.prompt_id: p for p in prompts if len(p.earlier) == turn - 1}
        asked = {name: whole[name_of_turn(turn_of_name(name).prompt_id, turn - 1)] for name in now}
        read = encode_prompts(pair.files, asked.values(), combinations)
        texts = pair_trajectories(pair, read, Sampling(), ending, store, note, watch=watch)
        for name, before in asked.items():
            ids = read[before.prompt_id]
            answer = pair.files.decode(texts[before.prompt_id].tokens.tolist(), after=[] if templated else ids)
            whole[name] = after_answer(before, answer, now[name], templated)
    return [whole[prompt.prompt_id] for prompt in prompts]
