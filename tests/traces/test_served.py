"""Texts of a served target: what is sure is kept whatever happens to the rest, and a killed recording goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.served import Reply, Toy, serving

from specdraft.decoding.ending import Ending
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.on_demand import PairOnDemand
from specdraft.drafters.pair import Pair, find_pair, load_pair
from specdraft.errors import LeftOutError
from specdraft.losslessness.certificate import near_ties
from specdraft.models.spec import ModelSpec, PairSpec, ServerSpec
from specdraft.sampling.distribution import Sampling
from specdraft.traces.asked_twice import asked_twice
from specdraft.traces.library import PairTraces, pair_traces
from specdraft.traces.memory import StoredMemory
from specdraft.traces.store import TraceStore

NEW = 6
UNTOLD = "\N{REPLACEMENT CHARACTER}"  # a text that does not tell its tokens
TEXTS = ["Once upon a time", "She said", "It was a bright morning, and", "The boat", "A dog", "We"]


@pytest.fixture(scope="module")
def zoo() -> Pair:
    return load_pair("zoo", Ngram())


class Recording:
    """A served zoo target, its prompts, and a store."""

    def __init__(self, zoo: Pair, url: str, folder: Path, **server: Any) -> None:
        spec = ServerSpec(url, retries=0, **{"concurrency": 1} | server)
        self.store = TraceStore(folder)
        files = find_pair(PairSpec("served", ModelSpec("zoo:target", server=spec)), Ngram())
        self.pair = PairOnDemand(files, StoredMemory(self.store))
        self.prompts = {str(number): zoo.encode(text) for number, text in enumerate(TEXTS)}
        self.ending = Ending(NEW, self.pair.eos_ids)

    def record(self) -> PairTraces:
        return pair_traces(self.pair, self.prompts, Sampling(), self.ending, self.store)


Fault = Callable[[int, Any], Any]
STOPS: dict[str, tuple[Fault, str, int]] = {
    "another model": (lambda number, said: said | {"model": "other"} if number > 1 else said, "its model changed", 2),
    "key withdrawn": (lambda number, said: Reply({}, 403) if number > 2 else said, "the key is refused (403)", 3),
    "always busy": (
        lambda number, said: Reply("no", 500) if number > 0 else said,
        "answers 500 after 0 retries: no",
        1,
    ),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_was_sure_before_is_kept(name: str, zoo: Pair, tmp_path: Path) -> None:
    fault, why, sure = STOPS[name]
    with serving(toy := Toy(zoo, fault=fault)) as url:
        recording = Recording(zoo, url, tmp_path)
        with pytest.raises(LeftOutError) as error:
            recording.record()
        left_out = error.value.why
        assert [*left_out] == [*recording.prompts][sure:]
        assert all(why in reason for reason in left_out.values())
        failed = 3 if name == "always busy" else 1
        assert len(toy.requests) - sure in (failed, failed + 1)  # one may be under way when it is given up
        assert f"{len(left_out)} prompts have no text (" in str(error.value)
        toy.fault, asked = Toy.fault, len(toy.requests)
        whole = Recording(zoo, url, tmp_path).record()
    assert len(toy.requests) == asked + len(left_out)
    plain = {n: zoo.target.generate(ids, NEW, zoo.eos_ids) for n, ids in recording.prompts.items()}
    assert {name: text.tokens.tolist() for name, text in whole.trajectories.items()} == plain


def test_many_at_once_are_the_same(zoo: Pair, tmp_path: Path) -> None:
    with serving(Toy(zoo)) as url:
        one, many = (
            Recording(zoo, url, tmp_path / str(count), concurrency=count).record().trajectories for count in (1, 5)
        )
    assert {name: text.tokens.tolist() for name, text in one.items()} == {n: t.tokens.tolist() for n, t in many.items()}


def test_a_text_ends_where_it_ends_here(zoo: Pair, tmp_path: Path) -> None:
    """A server that goes on behind an end is cut; one that ends with another token has no text."""
    stop = next(iter(zoo.eos_ids))

    def edited(number: int, said: Any) -> Any:
        bare = said | {"content": UNTOLD, "completion_probabilities": []}
        if number == 0:
            return bare | {"tokens": [*said["tokens"][:2], stop, *said["tokens"][3:]]}
        return bare | {"tokens": said["tokens"][:3], "tokens_predicted": 3, "stop_type": "eos"}

    with serving(Toy(zoo, fault=edited)) as url:
        recording = Recording(zoo, url, tmp_path)
        recording.prompts = {name: recording.prompts[name] for name in ("0", "1")}
        recording.ending = Ending(NEW + 1, recording.pair.eos_ids)
        with pytest.raises(LeftOutError) as error:
            recording.record()
        assert [*error.value.why] == ["1"] and "it ended the text with token" in error.value.why["1"]
        del recording.prompts["1"]
        (text,) = recording.record().trajectories.values()
    assert len(text.tokens) == 3 and text.tokens[-1] == stop


def test_a_target_that_says_something_else_is_named(zoo: Pair, tmp_path: Path) -> None:
    def wavers(number: int, said: Any) -> Any:
        other = {"tokens": [*said["tokens"][:-1], 5], "content": UNTOLD, "completion_probabilities": []}
        return said | (other if number == len(TEXTS) + 1 else {})

    with serving(toy := Toy(zoo, fault=wavers)) as url:
        recording = Recording(zoo, url, tmp_path)
        traces = recording.record()
        given = (recording.pair, recording.prompts, traces.trajectories, recording.ending, recording.store)
        twice = asked_twice(*given).as_dict()["asked_twice"]
        asked = len(toy.requests)
        assert asked_twice(*given).as_dict()["asked_twice"] == twice and len(toy.requests) == asked
    (differing,) = twice["differing"].values()
    assert twice["prompts"] == 3 and twice["equal_share"] == pytest.approx(2 / 3)
    assert differing["token"] == NEW - 1 and differing["gap"] > 0


def test_gaps_that_nobody_tells_are_no_ties(zoo: Pair, tmp_path: Path) -> None:
    bare = lambda number, said: said | ({"completion_probabilities": []} if number % 2 else {})  # noqa: E731
    with serving(Toy(zoo, fault=bare)) as url:
        recording = Recording(zoo, url, tmp_path)
        texts = recording.record().trajectories.values()
    counted = near_ties(texts, recording.pair.target_check)
    known = np.concatenate([text.gaps for text in texts])
    assert counted["tokens_without_gap"] == int(np.isnan(known).sum()) > 0
    assert counted["share"] == (known <= counted["limit"]).sum() / np.isfinite(known).sum()


def test_another_model_under_the_same_name_is_recorded_anew(zoo: Pair, tmp_path: Path) -> None:
    with serving(toy := Toy(zoo)) as url:
        for card, asked in (({}, 2), ({}, 2), ({"meta": {"n_params": 7}}, 4), ({"meta": {"n_ctx": 7_000}}, 4)):
            toy.card = card
            recording = Recording(zoo, url, tmp_path)
            recording.prompts = {name: recording.prompts[name] for name in ("0", "1")}
            recording.record()
            assert len(toy.requests) == asked
