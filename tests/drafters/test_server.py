"""A served model as a drafter: live as replayed, and as that model is when it drafts here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.recorded import untimed
from support.served import Reply, Toy, serving
from support.tallied import replay

from specdraft.acceptance import Greedy
from specdraft.decoding.decode import decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Prefilled
from specdraft.drafters.pair import Pair, load_pair
from specdraft.drafters.server import AT_ONCE, Server
from specdraft.errors import ConfigError, ServerError
from specdraft.replay.static import pack
from specdraft.results.metrics import tally
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary

TEXTS = ["Once upon a time", "It was a bright morning, and"]


@pytest.fixture(scope="module")
def zoo() -> Pair:
    return load_pair("zoo")


@pytest.fixture(scope="module")
def drafting() -> Pair:
    """The zoo's draft model as a target, to be served."""
    from specdraft.models.spec import ModelSpec, PairSpec

    return load_pair(PairSpec("served", ModelSpec("zoo:draft"), ModelSpec("zoo:draft-tiny")))


@pytest.mark.parametrize("owner", ["llamacpp", pytest.param("text only", marks=pytest.mark.slow)])
def test_it_drafts_as_it_does_here(owner: str, zoo: Pair, drafting: Pair, tmp_path: Path) -> None:
    prompts = {text: zoo.encode(text) for text in TEXTS}
    ending, plan, greedy = Ending(24, zoo.eos_ids), Chain().at(3), (Greedy(), Sampling())
    with serving(toy := Toy(drafting, owner)) as url:
        pair = load_pair(zoo.files.spec, Server(url=url, retries=0), target_of=zoo)
        traces = pair_traces(pair, prompts, Sampling(), ending, TraceStore(tmp_path))
        asked = len(toy.requests)
        live = [
            decode(Verifier.of(pair), pair.drafter, plan, *greedy, ids, ending).finish() for ids in prompts.values()
        ]
    packed = pack([a.ranks for a in traces.annotations.values()], [t.tokens for t in traces.trajectories.values()])
    assert asked < sum(len(text.tokens) for text in traces.trajectories.values())
    for counted, decoding, ids in zip(replay(plan.topology, packed), live, prompts.values(), strict=True):
        here = decode(Verifier(zoo.target), zoo.drafter, plan, *greedy, ids, ending).finish()
        assert decoding.tokens == here.tokens
        assert [step.tree.token_list() for step in decoding.steps] == [step.tree.token_list() for step in here.steps]
        assert untimed(counted) == untimed(tally(decoding.first, decoding.steps, 0, 0))


def test_along_a_text_it_is_asked_where_it_errs(zoo: Pair, drafting: Pair, tmp_path: Path) -> None:
    ids, ending = zoo.encode(TEXTS[0]), Ending(40, zoo.eos_ids)
    with serving(toy := Toy(drafting)) as url:
        pair = load_pair(zoo.files.spec, Server(url=url), target_of=zoo)
        asked = len(toy.requests)
        traces = pair_traces(pair, {"0": ids}, Sampling(), ending, TraceStore(tmp_path))
    (ranks,) = (annotation.ranks for annotation in traces.annotations.values())
    assert ranks[0] == -1 and {0, -1} == set(ranks[1:].tolist())
    errors = int((ranks[1:] == -1).sum())
    assert errors <= len(toy.requests) - asked <= 1 + errors + len(ranks) // AT_ONCE


def test_the_target_itself_is_always_right(zoo: Pair, tmp_path: Path) -> None:
    ids, ending = zoo.encode(TEXTS[0]), Ending(2 * AT_ONCE + 2, zoo.eos_ids)
    with serving(toy := Toy(zoo)) as url:
        pair = load_pair(zoo.files.spec, Server(url=url), target_of=zoo)
        asked = len(toy.requests)
        traces = pair_traces(pair, {"0": ids}, Sampling(), ending, TraceStore(tmp_path))
    (ranks,) = (annotation.ranks for annotation in traces.annotations.values())
    assert len(ranks) == 2 * AT_ONCE + 2 and not ranks[1:].any() and len(toy.requests) == asked + 3


def test_behind_its_end_a_chain_is_filled(zoo: Pair, drafting: Pair) -> None:
    """As a draft model's would be: what stands behind an end is counted, and never accepted."""
    stop = next(iter(zoo.eos_ids))

    def ends(number: int, said: Any) -> Any:
        short = {"tokens": [said["tokens"][0], stop], "tokens_predicted": 2, "stop_type": "eos", "content": "\ufffd"}
        return said | short | {"completion_probabilities": []} if number else said

    with serving(Toy(drafting, fault=ends)) as url:
        drafter = load_pair(zoo.files.spec, Server(url=url), target_of=zoo).drafter
        drafter.begin(Prefilled(zoo.encode(TEXTS[0])))
        tree = drafter.draft(5, Chain().at(4))
    assert tree.num_nodes == 4 and tree.token_list()[2:] == [stop] * 3


def test_trees_are_refused_in_a_line(zoo: Pair) -> None:
    from specdraft.decoding.fitting import Together

    drafter = Server(url="http://x/v1")
    together = Together(Kary(), 6, Greedy(), Sampling(), 100, traits=drafter.traits, drafter=drafter.label)
    with pytest.raises(ConfigError, match="kary is no chain, and drafter=server proposes chains; expected tree=chain"):
        together.refuse()
    Together(Chain(), 6, Greedy(), Sampling(), 100, traits=drafter.traits, drafter=drafter.label).refuse()


def test_where_it_is_decides_nothing() -> None:
    here, there = Server(url="http://x/v1", model="m"), Server(url="http://y/v1", model="m", timeout_s=3, retries=1)
    assert here.as_dict() == there.as_dict() and here.label == "server-m"


FAULTS: dict[str, tuple[Any, str]] = {
    "nonsense": (lambda number, said: Reply("<p>"), r"^drafter\.url=\S* /completion answers no JSON"),
    "another tokenizer": (lambda number, said: said | {"tokens": [10**6]}, r"drafter\.url=.*: it says token 1000000"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_cannot_be_used_is_refused_before_it_drafts(name: str, zoo: Pair, drafting: Pair) -> None:
    fault, why = FAULTS[name]
    with serving(Toy(drafting, fault=fault)) as url, pytest.raises(ServerError, match=why):
        load_pair(zoo.files.spec, Server(url=url, retries=0), target_of=zoo)


def test_it_wants_an_address(zoo: Pair) -> None:
    with pytest.raises(ConfigError, match=r"drafter\.url is empty; drafter=server expects it as http://host:8000/v1"):
        load_pair(zoo.files.spec, Server())
    with pytest.raises(ServerError, match=r"drafter\.url=http://127\.0\.0\.1:9/v1: nobody answers there"):
        load_pair(zoo.files.spec, Server(url="http://127.0.0.1:9/v1", retries=0))
