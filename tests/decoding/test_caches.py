"""Fixed slots instead of a growing cache: the same texts, steps and trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from support.decoded import CHAIN, DYNAMIC, KARY, Asked, models, texts_of
from support.tiny_models import ARCHITECTURES, random_model

from specdraft.acceptance.no_replacement import NoReplacement
from specdraft.decoding.decode import decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.seat import Caches, Seat
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair
from specdraft.errors import UnsupportedModelError
from specdraft.models import static_model
from specdraft.models.cached_model import CachedModel
from specdraft.models.caches import resolved, with_cache
from specdraft.models.graph_model import GraphModel
from specdraft.models.static_cache import StaticCache, StaticLayer
from specdraft.models.static_model import Inputs, Outputs, StaticModel, padded_size
from specdraft.sampling.distribution import Sampling

SAMPLED = Sampling(temperature=1.0, top_k=20)
Row = Callable[[CachedModel], CachedModel]


def decoded(name: str, texts: Sequence[Asked], row_of: Row) -> list[Any]:
    target, draft = models(name)
    seat = Seat(Verifier(row_of(target)), ModelDrafter(draft).another(row_of))
    return [text(seat) for text in texts]


def same(model: CachedModel) -> CachedModel:
    return model


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots become too few within a text."""
    monkeypatch.setattr(static_model, "BUCKET", 8)


@pytest.mark.usefixtures("small_buckets")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_decodes_in_fixed_slots_what_it_does_in_growing_ones(name: str) -> None:
    texts = texts_of(KARY)
    expected = decoded(name, texts, same)
    assert sum(len(step[1]) for text in expected for step in text[1:]) > 10  # nodes that are committed
    assert decoded(name, texts, StaticModel) == expected


@pytest.mark.usefixtures("small_buckets")
@pytest.mark.parametrize("name", ["llama", "mistral-sliding", "gemma2"])
@pytest.mark.parametrize(
    "texts",
    [texts_of(CHAIN), texts_of(DYNAMIC), texts_of(KARY, NoReplacement(), SAMPLED)],
    ids=["chain", "best_first", "kary-sampled"],
)
def test_so_do_other_trees_and_rules(name: str, texts: list[Asked]) -> None:
    assert decoded(name, texts, StaticModel) == decoded(name, texts, same)


def test_padding_is_seen_by_nobody_and_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_model, "SIZES", (16, 32))
    texts = texts_of(KARY)
    assert decoded("llama", texts, StaticModel) == decoded("llama", texts, same)


def test_wrong_slots_change_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    right, texts = StaticLayer.update, texts_of(KARY)

    def one_off(self: StaticLayer, *states: Any, **more: Any) -> Any:
        self.slots = self.slots.roll(1)
        return right(self, *states, **more)

    monkeypatch.setattr(StaticLayer, "update", one_off)
    assert decoded("llama", texts, StaticModel) != decoded("llama", texts, same)


def test_layers_that_read_the_states_of_another_one_have_none_to_move() -> None:
    """The last layers of Gemma 3n, say."""
    cache = StaticCache(2, room=4, device=torch.device("cpu"))
    cache.layers[0].fill(*torch.arange(4.0).expand(2, 1, 1, 4)[..., None])
    cache.move(torch.tensor([3]), 1)
    assert cache.layers[0].keys.flatten().tolist() == cache.layers[0].values.flatten().tolist() == [0, 3, 2, 3]


@pytest.mark.parametrize(("tokens", "size"), [(1, 1), (2, 2), (4, 5), (5, 5), (6, 9), (65, 65), (66, 129), (130, 193)])
def test_trees_are_filled_up_to_the_next_size(tokens: int, size: int) -> None:
    assert padded_size(tokens) == size


def test_states_of_layers_and_longer_prompts_are_those_of_a_growing_cache() -> None:
    own = models("llama")[0]
    fixed, tail = StaticModel(own), torch.zeros(1, 1)
    for model in (own, fixed):
        model.reset()
    for ids in ([3, 1, 4, 1, 5], [9, 2, 6]):  # the second run is appended
        said, expected = (model.prefill(ids, (0, 2)) for model in (fixed, own))
        torch.testing.assert_close(said.logits, expected.logits)
        torch.testing.assert_close(said.hidden, expected.hidden)
    token, offset = torch.tensor([5]), torch.tensor([0])
    said, expected = (model.append(token, offset, tail, (1,)) for model in (fixed, own))
    torch.testing.assert_close(said.hidden, expected.hidden)
    assert (fixed.length, fixed.pending) == (own.length, own.pending) == (8, 1)


def test_rewinding_keeps_the_prompt() -> None:
    ending, fixed = Ending(12), Verifier(StaticModel(models("llama")[0]))
    first = decode_plainly(fixed, Sampling(), [1, 2, 3], ending)
    fixed.rewind()
    again = [int(fixed.model.extend(token).argmax()) for token in first[:-1]]
    assert again == first[1:]


def test_a_cache_that_changes_what_the_model_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_hidden(self: StaticModel, mask: torch.Tensor, more: int) -> torch.Tensor:
        return torch.zeros(1, 1, mask.shape[2] + more, self._cache.room)

    own = models("llama")[0]
    assert isinstance(with_cache(own, "static", "tiny"), StaticModel)
    assert with_cache(own, "dynamic", "tiny") is own
    monkeypatch.setattr(StaticModel, "_whole", nothing_hidden)
    with pytest.raises(UnsupportedModelError, match="tiny: cache=static changes what the model says"):
        with_cache(own, "static", "tiny")


def test_auto_is_what_was_measured() -> None:
    assert (resolved("auto", "cpu"), resolved("static", "cpu"), resolved("auto", "mps")) == (
        "dynamic",
        "static",
        "dynamic",
    )


class Refusing(GraphModel):
    """As on a machine without a compiler."""

    def _compiled(self, inputs: Inputs, layers: Sequence[int]) -> Any:
        raise RuntimeError("no C++ compiler\nwas found")


class Counting(GraphModel):
    """Makes nothing faster, and counts."""

    runs = 0

    def _compiled(self, inputs: Inputs, layers: Sequence[int]) -> Any:
        def run(inputs: Inputs) -> Outputs:
            self.runs += 1
            return self._eager(inputs, layers)

        return run, run(inputs)


@pytest.mark.usefixtures("small_buckets")
def test_what_cannot_be_compiled_runs_as_it_is() -> None:
    texts, made = texts_of(KARY), list[Refusing]()

    def row_of(model: CachedModel) -> CachedModel:
        made.append(Refusing(model))
        return made[-1]

    assert decoded("llama", texts, row_of) == decoded("llama", texts, same)
    assert {*made[0].failed.values()} == {"no C++ compiler"} and not made[0].made
    assert made[0].making_s == made[0].failing_s > 0


@pytest.mark.usefixtures("small_buckets")
def test_graphs_are_made_once_for_each_shape_and_anew_when_there_are_more_slots() -> None:
    model = Counting(models("llama")[0])
    model.prefill([1, 2, 3])
    for _ in range(3):
        model.extend(5)
    assert [(shape.fed, shape.room) for shape in model.made] == [(1, 8)] and model.runs == 3
    for _ in range(3):
        model.extend(5)
    assert [(shape.fed, shape.room) for shape in model.made] == [(1, 8), (1, 16)] and model.runs == 6


def test_making_graphs_is_in_no_time(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = Caches(tiny_pair)
    assert caches.seat("dynamic").verifier.model is tiny_pair.target and not caches.notes
    monkeypatch.setattr(GraphModel, "_compiled", Counting._compiled)
    monkeypatch.setattr(GraphModel, "runs", 0, raising=False)
    seat = caches.seat("graph")
    assert seat is caches.seat("graph") and isinstance(seat.verifier.model, GraphModel)
    started = seat.times.share()
    seat.verifier.model.made[static_model.Shape(99, 99, ())] = 1000.0
    assert seat.times.share() < started - 900
    assert "to make" in caches.notes[0] and len(caches.notes) == 1


def test_each_shape_is_compiled_of_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code is found by the code that it was made of: of shared code, each run would look through all shapes,
    and the states of other layers could be taken for the wanted ones."""
    compiled: list[Any] = []

    def compiling(function: Any, **options: Any) -> Any:
        compiled.append((function, options))
        return function

    monkeypatch.setattr(torch, "compile", compiling)
    model, usual = GraphModel(models("llama")[0]), StaticModel(models("llama")[0])
    for one in (model, usual):
        one.prefill([1, 2, 3])
    tokens, offsets, tail = torch.tensor([5, 6]), torch.arange(2), torch.zeros(2, 2)
    for layers in ((), (1,), (0, 1)):
        said, expected = (one.append(tokens, offsets, tail, layers) for one in (model, usual))
        for one in (model, usual):
            one.forget(0)
        assert torch.equal(said.logits, expected.logits)
        assert (said.hidden is None) == (not layers) and str(said.hidden) == str(expected.hidden)
    assert len({id(function.__code__) for function, _ in compiled}) == 3
    assert all(options["fullgraph"] and "guard_filter_fn" in options["options"] for _, options in compiled)


class InPieces(torch.nn.Module):
    """A layer that the compiler cannot follow to its end, and that looks at something that is no tensor."""

    def __init__(self, layer: Any, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale

    def forward(self, *given: Any, **inputs: Any) -> Any:
        torch._dynamo.graph_break()
        return self.layer(*given, **inputs) * self.scale


@pytest.mark.parametrize("layers", [pytest.param((), marks=pytest.mark.slow), (1,)])
def test_a_forward_in_pieces_is_looked_at_in_every_run(
    layers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces are shared by layers and by models."""
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **options: plain(*given, backend="eager", **options))
    for scale in (1.0, 0.5):
        kinds = [StaticModel, GraphModel]
        said = []
        for kind in kinds:
            model = random_model("llama")
            for number, layer in enumerate(model.model.layers):
                layer.mlp = InPieces(layer.mlp, scale + number)
            one = kind(CachedModel(model, 90))
            one.prefill([1, 2, 3], layers)
            for _ in range(2):  # the second time what was made is run
                found = one.append(torch.tensor([5, 6]), torch.arange(2), torch.zeros(2, 2), layers)
                one.forget(0)
            said.append(found)
            if isinstance(one, GraphModel):
                assert one.made and not one.failed
        assert torch.allclose(said[0].logits, said[1].logits, atol=1e-5)
        assert layers == () or torch.allclose(said[0].hidden, said[1].hidden, atol=1e-5)


def test_what_the_length_decides_is_looked_at_in_every_run() -> None:
    model = GraphModel(models("llama")[0])
    model.model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert model._length_decides and not GraphModel(models("gpt2")[0])._length_decides


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own compiler meets it
@pytest.mark.parametrize("name", ["llama", "mistral-sliding"])
def test_compiled_code_gives_the_same_texts(name: str) -> None:
    texts, made = texts_of(KARY), list[GraphModel]()

    def row_of(model: CachedModel) -> CachedModel:
        made.append(GraphModel(model))
        return made[-1]

    assert decoded(name, texts, row_of) == decoded(name, texts, same)
    assert [(bool(model.made), model.failed) for model in made] == [(True, {})] * 2
