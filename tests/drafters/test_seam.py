"""A drafter that reads the target's hidden states, made here: what the protocol promises it arrives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.recorded import untimed
from support.tallied import replay

from specdraft.acceptance import Greedy
from specdraft.decoding.decode import decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import DrafterSpec, DrafterTraits, Drawing, registry
from specdraft.drafters.base import Annotation, Expansion, Prefilled, RecordedText, Target
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError
from specdraft.models.cached_model import CachedModel
from specdraft.models.files import ModelFiles
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.replay.static import pack
from specdraft.results.metrics import tally
from specdraft.sampling.distribution import Sampling
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary

LAYERS = (1, 3)  # the last one is the state that the target's own head reads


@dataclass
class Echo(DrafterSpec):
    """Every child of rank r at every depth is the target's own r-th best token after the token before the root."""

    kind: str = "echo"

    @property
    def traits(self) -> DrafterTraits:
        return DrafterTraits(
            probabilities=False, draws=False, by_offset=True, hidden_layers=LAYERS, owns_weights=False, deepest=4
        )

    def load(self, weights: ModelFiles | None, target: Target) -> EchoDrafter:
        return EchoDrafter(self, target.load())


class EchoDrafter:
    """Like a head with one output: it never runs the target."""

    def __init__(self, spec: Echo, target: CachedModel) -> None:
        self.traits, self._spec, self._head, self.vocab = spec.traits, spec, target.model.lm_head, target.vocab
        self.seen: list[torch.Size] = []

    def begin(self, prompt: Prefilled) -> None:
        assert prompt.hidden is not None
        assert prompt.hidden.shape[:2] == (len(prompt.token_ids), len(LAYERS))
        self._before = self._prompt = prompt.hidden[-1, 1]

    def rewind(self) -> None:
        self._before = self._prompt

    def draft(self, root: int, plan: Plan, drawing: Drawing = Drawing()) -> DraftTree:  # noqa: B008
        assert plan.topology is not None
        return DraftTree(plan.topology, [root, *self._best(self._before)[plan.topology.ranks[1:]].tolist()])

    def _best(self, states: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            order: np.ndarray = (
                self._head(states)[..., : self.vocab].argsort(stable=True, dim=-1, descending=True).numpy()
            )
        return order

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        assert hidden is not None
        self.seen.append(hidden.shape)
        self._before = hidden[-1, 1]

    def annotate(self, texts: Sequence[RecordedText]) -> list[Annotation]:
        return [self._annotation(text) for text in texts]

    def _annotation(self, text: RecordedText) -> Annotation:
        """The state before the root at position t of the text is that of token `prompt + t - 1`."""
        assert text.hidden is not None
        count, start = len(text.tokens), len(text.prompt_ids)
        ranks = np.full((count, 4), -1, dtype=np.int32)
        for root in range(count):
            order = self._best(text.hidden[start + root - 1, 1]).tolist()
            for depth in range(1, min(4, count - 1 - root) + 1):
                ranks[root + depth, depth - 1] = order.index(int(text.tokens[root + depth]))
        none, nothing = np.empty((count, 0)), np.zeros(count, dtype=np.float32)
        return Annotation(ranks, none.astype(np.int32), none.astype(np.float32), nothing)

    def logits_along(self, texts: Sequence[RecordedText], at_once: int) -> Iterator[torch.Tensor]:
        raise NotImplementedError

    def expand(self, texts: Sequence[RecordedText], plan: Any) -> Iterator[Expansion]:
        raise NotImplementedError

    def score(self, texts: Sequence[RecordedText], trees: Any, temperature: float) -> Iterator[Expansion]:
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        return {"drafter": self._spec.as_dict()}

    def describe(self) -> dict[str, Any]:
        return self._spec.as_dict()


@pytest.fixture(scope="module")
def pair(tiny_pair: Pair) -> Pair:
    return load_pair(tiny_pair.files.spec, Echo(), target_of=tiny_pair)


PLANS = [Chain().at(3), Kary().at(6), Kary(k=3).at(12)]


@pytest.mark.parametrize("plan", PLANS, ids=["chain", "binary", "ternary"])
def test_a_head_is_live_and_replayed(plan: Any, pair: Pair, tmp_path: Any) -> None:
    prompts = {"a": pair.encode("Once upon"), "b": pair.encode("x")}
    ending, setting = Ending(20, pair.eos_ids), (plan, Greedy(), Sampling())
    traces = pair_traces(pair, prompts, Sampling(), ending, TraceStore(tmp_path))
    packed = pack([a.ranks for a in traces.annotations.values()], [t.tokens for t in traces.trajectories.values()])
    for counted, prompt in zip(replay(plan.topology, packed), prompts.values(), strict=True):
        decoding = decode(Verifier.of(pair), pair.drafter, *setting, prompt, ending).finish()
        assert decoding.tokens == decode_plainly(Verifier(pair.target), Sampling(), prompt, ending)
        assert untimed(counted) == untimed(tally(decoding.first, decoding.steps, 0, 0))


def test_the_states_are_those_of_the_committed_tokens(pair: Pair) -> None:
    prompt, plan = pair.encode("Once upon"), Kary().at(6)
    decoding = decode(Verifier.of(pair), pair.drafter, plan, Greedy(), Sampling(), prompt, Ending(20)).finish()
    text = [*prompt, *decoding.tokens]
    (states,) = pair.target.states_along([prompt], [np.array(decoding.tokens)], LAYERS)
    whole = pair.target.model(torch.tensor([text[:-1]]), output_hidden_states=True).hidden_states
    for place, layer in enumerate(LAYERS):
        torch.testing.assert_close(states[:, place], whole[layer][0], atol=1e-4, rtol=1e-4)
    assert isinstance(pair.drafter, EchoDrafter)
    accepted = [1 + len(step.accepted) for step in decoding.steps]
    assert [shape[0] for shape in pair.drafter.seen[-len(accepted) :]] == accepted


def test_weights_come_from_the_path_or_the_pairs_heads() -> None:
    @dataclass
    class Head(DrafterSpec):
        kind: str = "head"

        @property
        def traits(self) -> DrafterTraits:
            return DrafterTraits()

    known = PairSpec("p", ModelSpec("target"), heads={"head": "zoo:head"})
    assert Head().weights(known) == ModelSpec("zoo:head")
    assert Head(path="mine").weights(known) == ModelSpec("mine")
    with pytest.raises(ConfigError, match=r"path is empty; drafter=head needs weights \(heads of pair q: none\)"):
        Head().weights(PairSpec("q", ModelSpec("target")))


def test_kinds_are_found_in_the_folder() -> None:
    assert {"model", "ngram"} <= set(registry())
    assert registry()["ngram"]().label == "ngram"
    assert registry()["ngram"](num_output_tokens=4).label == "ngram-not4"  # type: ignore[call-arg]
