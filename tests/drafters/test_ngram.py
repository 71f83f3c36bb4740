from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.drafting import record_all
from support.recorded import untimed
from support.tallied import replay, replay_steps
from transformers.generation import BaseStreamer
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from specdraft.acceptance import Greedy
from specdraft.bench.curve import CostCurve
from specdraft.decoding.decode import Decoding, decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Prefilled, RecordedText
from specdraft.drafters.ngram import Lookup, Ngram, NgramDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError
from specdraft.prompts import Prompt
from specdraft.replay.replayer import Replayer
from specdraft.replay.static import pack
from specdraft.results.metrics import tally
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import PairTraces
from specdraft.trees.shapes import StaticPlan
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.branching import Branching
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import Topology

STOP = 0
TEXTS = (
    "The cat sat on the mat. The cat sat on the",
    "one two three one two three one two",
    "x",
    "def f(x):\n    def f(x)",
)
NEW = 24


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 12))
def test_the_span_is_the_one_that_transformers_copies(tokens: list[int], longest: int, copied: int) -> None:
    spec = Ngram(max_matching_ngram_size=longest, num_output_tokens=copied)
    lookup = Lookup(spec, frozenset([STOP]))
    lookup.extend(tokens)
    theirs = PromptLookupCandidateGenerator(torch.tensor([STOP]), copied, longest, max_length=1000)
    candidates, _ = theirs.get_candidates(torch.tensor([tokens]))
    assert lookup.span() == candidates[0, len(tokens) :].tolist()


class Rounds(BaseStreamer):  # type: ignore[misc]
    """What `generate` emits, a list a round; the first one is its prompt."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []

    def put(self, value: torch.Tensor) -> None:
        self.rounds.append(value.reshape(-1).tolist())

    def end(self) -> None:
        pass


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair("zoo", Ngram())


def live(pair: Pair, prompt: list[int], plan: StaticPlan, new: int = NEW) -> Decoding:
    ending = Ending(new, pair.eos_ids)
    return decode(Verifier.of(pair), pair.drafter, plan, Greedy(), Sampling(), prompt, ending).finish()


@pytest.mark.parametrize("text", TEXTS)
def test_rounds_are_those_of_transformers(text: str, pair: Pair) -> None:
    """Our first round starts after the prefill's token, theirs at the prompt's end: they are given that token too."""
    prompt = pair.encode(text)
    decoding = live(pair, prompt, Chain().at(10))
    streamer, ids = Rounds(), torch.tensor([[*prompt, decoding.first]])
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": NEW - 1, "prompt_lookup_num_tokens": 10}
    stops = sorted(pair.eos_ids)
    pair.target.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        eos_token_id=stops,
        pad_token_id=stops[0],
        streamer=streamer,
        **options,
    )
    assert [step.tokens for step in decoding.steps] == streamer.rounds[1:]


SOME = [Chain().at(1), Chain().at(4), Chain().at(10), Kary().at(6), Wide().at(3), Branching(factors=[1, 2, 1]).at(7)]
GAPS = StaticPlan(Topology.from_paths([(1,), (0,), (0, 1), (1, 0)]))


@pytest.mark.parametrize("plan", [*SOME, GAPS], ids=lambda plan: "/".join(map(str, plan.topology.paths[-1])))
def test_replay_is_live_in_every_count(plan: StaticPlan, pair: Pair) -> None:
    prompts, ending = [pair.encode(text) for text in TEXTS], Ending(NEW, pair.eos_ids)
    texts = record_all(pair.target, prompts, ending)
    said = pair.drafter.annotate(
        [RecordedText(*text[:2]) for text in zip(prompts, (t.tokens for t in texts), strict=True)]
    )
    packed = pack([a.ranks for a in said], [t.tokens for t in texts], [a.offered for a in said])
    replayed = zip(replay(plan.topology, packed), replay_steps(plan.topology, packed), prompts, strict=True)
    for counted, steps, prompt in replayed:
        decoding = live(pair, prompt, plan)
        assert untimed(counted) == untimed(tally(decoding.first, decoding.steps, 0, 0))
        assert [row[1] for row in steps] == [step.tree.num_nodes for step in decoding.steps]
    assert sum(counted.accepted_tokens for counted in replay(Chain().at(4).topology, packed)) > 3


def test_an_estimate_has_one_look_up_for_each_step(pair: Pair) -> None:
    """And the verification of what was really drafted."""
    prompts = {str(i): pair.encode(text) for i, text in enumerate(TEXTS)}
    texts = record_all(pair.target, [*prompts.values()], Ending(NEW, pair.eos_ids))
    said = pair.drafter.annotate([RecordedText(p, t.tokens) for p, t in zip(prompts.values(), texts, strict=True)])
    traces = PairTraces(dict(zip(prompts, texts, strict=True)), dict(zip(prompts, said, strict=True)), {})
    verify = {1: 5.0, 2: 6.0, 4: 8.0, 8: 12.0}
    curve = CostCurve([*verify], [1.0] * 4, [*verify.values()], 5.0, 0.5, 0.0, 100.0, 70.0, 1, "made up")
    replayer = Replayer(traces, [Prompt(name, "all", "") for name in prompts], curve, seed=0)
    counted = replayer.run_plan(Chain().at(4), Greedy(), with_steps=True)
    steps, sums = counted.steps, counted.sums
    assert steps is not None
    for number in range(len(prompts)):
        taken = steps.drafted[steps.prompt == number]
        assert sums["est_s"][number] == pytest.approx(100 + sum(1.0 + (4.0 + 1 + drafted) + 0.5 for drafted in taken))
        assert sums["est_plain_s"][number] == 70 + 5 * (sums["new_tokens"][number] - 1)
    assert len(set(steps.drafted.tolist())) > 1


def test_what_is_offered_below_each_root() -> None:
    drafter = NgramDrafter(Ngram(max_matching_ngram_size=1, num_output_tokens=3), frozenset([9]))
    (said,) = drafter.annotate([RecordedText([5, 6, 9], np.array([5, 6, 7, 5]))])
    assert said.offered.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]  # 5 -> 6, cut before 9
    assert said.ranks.tolist() == [[-1, -1, -1], [0, -1, -1], [-1, -1, -1], [-1, -1, -1]]
    assert said.top_ids.shape == said.top_probs.shape == (4, 0)


def test_what_is_recorded_with_it_depends_on_where_it_stops() -> None:
    facts = [NgramDrafter(Ngram(), frozenset(stops)).facts() for stops in ((), (1,), (2, 1), (1, 2))]
    assert facts[0] != facts[1] != facts[2] == facts[3]
    assert NgramDrafter(Ngram(num_output_tokens=3), frozenset()).facts() != facts[0]


def test_going_back_to_the_prompt_forgets_the_text() -> None:
    drafter = NgramDrafter(Ngram(), frozenset())
    drafter.begin(Prefilled([1, 2, 3, 1]))
    first = drafter.draft(2, Chain().at(4))
    drafter.commit(first, [1, 2])
    drafter.draft(7, Chain().at(4))
    drafter.rewind()
    assert drafter.draft(2, Chain().at(4)).token_list() == first.token_list() == [2, 3, 1, 2]


def test_a_tree_that_needs_scores_is_refused() -> None:
    drafter = NgramDrafter(Ngram(), frozenset())
    drafter.begin(Prefilled([1, 2, 1]))
    with pytest.raises(ConfigError, match="no probabilities"):
        drafter.draft(2, BestFirst().at(4))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Ngram(variant="hg"), "did you mean 'hf'"),
        (Ngram(num_output_tokens=0), r"drafter\.num_output_tokens=0"),
        (Ngram(max_matching_ngram_size=-1), r"drafter\.max_matching_ngram_size=-1"),
    ],
)
def test_parameters_out_of_range(spec: Ngram, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec.check()


def test_there_are_no_weights() -> None:
    with pytest.raises(ConfigError, match=r"drafter\.path=here: drafter=ngram has no weights"):
        load_pair("zoo", Ngram(path="here"))
    assert load_pair("zoo", Ngram()).files.draft is None
