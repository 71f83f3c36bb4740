"""Lookahead decoding against a slow one: a forward for every cell and every guess, without a cache or a mask."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from support.command_line import Run
from support.tiny_models import SMALL_VOCAB, PairFolders, random_model, save_pair, tiny_llama

from specdraft.acceptance import Greedy, TopK
from specdraft.commands.options import DONE, USAGE
from specdraft.decoding import verifier as verifier_module
from specdraft.decoding.decode import decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import jacobi
from specdraft.drafters.base import Prefilled
from specdraft.drafters.jacobi import NgramPool, Window
from specdraft.drafters.lookahead import Lookahead, LookaheadDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError
from specdraft.losslessness.live_texts import Case, check_live
from specdraft.models.cached_model import CachedModel
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import RandomSource, seeded
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.step import Step

NEW = 40
PROMPTS = [[0, 40, 41, 40, 41, 40, 41, 9], [0, 7], [0, *range(60, 80), *range(60, 70)]]
SPECS = [Lookahead(window=4, level=4, guesses=4), Lookahead(window=1, level=3, guesses=2), Lookahead(window=6, level=5)]


class SlowStep(NamedTuple):
    """What a step is: the sequences that were guessed, the tokens it emits, and how many tokens went beside."""

    guesses: list[tuple[int, ...]]
    emitted: list[int]
    beside: int


def slowly(
    target: CachedModel, prompt: list[int], window: int, level: int, most: int, lengths: Sequence[int], new: int
) -> Iterator[SlowStep]:
    """Fu et al.'s algorithm 2, a forward a token. `lengths` of the guesses that are verified, the newest first."""
    best: dict[tuple[int, ...], int] = {}

    def after(text: list[int]) -> int:
        if (key := tuple(text)) not in best:
            best[key] = int(target.after(text).argmax())
        return best[key]

    text, emitted = list(prompt), 1
    text.append(after(text))
    rows = [np.random.default_rng(0).choice(prompt, window + level - 2).tolist()]
    pool: list[tuple[int, ...]] = []
    while emitted < new:
        rows[0][0] = root = text[-1]
        known = [gram[1:] for gram in reversed(pool) if gram[0] == root][:most]
        guesses = [guess[:length] for guess, length in zip(known, lengths, strict=False)]
        beside = sum(map(len, rows)) - 1
        columns = range(len(rows[0]))
        said = [after([*text[:-1], *rows[0][: j + 1], *(row[j] for row in rows[1:])]) for j in columns]
        if len(rows) < level - 1:
            rows = [row[1:] for row in [*rows, said]]
        else:
            for j in columns:
                gram = (*(row[j] for row in rows), said[j])
                pool = [other for other in pool if other != gram] + [gram]
            rows = [*rows[1:], said]
        new_tokens: list[int] = []
        for guess in guesses:
            taken: list[int] = []
            for token in guess:
                if after([*text, *taken]) != token:
                    break
                taken.append(token)
            new_tokens = max(new_tokens, taken, key=len)
        new_tokens = [*new_tokens, after([*text, *new_tokens])][: new - emitted]
        text, emitted = [*text, *new_tokens], emitted + len(new_tokens)
        yield SlowStep(guesses, new_tokens, beside)


def as_sequences(step: Step) -> set[tuple[int, ...]]:
    """The root-to-leaf texts of a tree."""
    tokens, topology = step.tree.token_list(), step.tree.topology
    leaves = [node for node in range(1, len(topology)) if not topology.children[node]]
    return {tuple(tokens[node] for node in topology.path_to(leaf)) for leaf in leaves}


def longest(guesses: Sequence[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Without those that others begin with."""
    return {one for one in guesses if not any(two != one and two[: len(one)] == one for two in guesses)}


@pytest.fixture(scope="module")
def target() -> CachedModel:
    """In float64, so that nothing is decided by rounding; a text that repeats itself."""
    model = tiny_llama(vocab_size=SMALL_VOCAB, num_hidden_layers=2, initializer_range=0.25).double()
    return CachedModel(model, SMALL_VOCAB)


def decoded(target: CachedModel, spec: Lookahead, plan: Plan, prompt: list[int]) -> list[Step]:
    decoding = decode(Verifier(target), LookaheadDrafter(spec), plan, Greedy(), Sampling(), prompt, Ending(NEW))
    return decoding.finish().steps


def check(target: CachedModel, spec: Lookahead, width: int, prompt: list[int], depth: int | None = None) -> list[Step]:
    """Step by step what the slow one does; returns the steps."""
    depth = depth or spec.level - 1
    steps = decoded(target, spec, Beam(width=width).at(width * depth), prompt)
    slow = [*slowly(target, prompt, spec.window, spec.level, spec.guesses, [depth] * width, NEW)]
    assert [step.tokens for step in steps] == [step.emitted for step in slow]
    assert [as_sequences(step) for step in steps] == [longest(step.guesses) for step in slow]
    assert [step.tree.overhead_tokens for step in steps] == [step.beside for step in slow]
    return steps


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_step_by_step_as_the_slow_one(spec: Lookahead, prompt: list[int], target: CachedModel) -> None:
    steps = check(target, spec, spec.guesses, prompt)
    assert {step.tree.overhead_tokens for step in steps[spec.level - 2 :]} == {(spec.level - 1) * spec.window - 1}


def test_it_accepts_something_and_a_smaller_tree_less(target: CachedModel) -> None:
    spec = SPECS[0]
    for width, depth in ((4, 3), (2, 3), (1, 2)):
        steps = check(target, spec, width, PROMPTS[0], depth)
        assert sum(step.accepted_tokens for step in steps) > 0
        assert max(step.tree.depth for step in steps) == depth
    whole, one = (len(check(target, spec, width, PROMPTS[0])) for width in (4, 1))
    assert whole <= one < NEW - 1


def sees_too_much(rows: int, columns: int) -> np.ndarray:
    """As a causal mask, row by row."""
    return np.tri(rows * columns, dtype=bool)


def shifted(window: Window, root: int) -> Any:
    beside = BESIDE(window, root)
    return beside._replace(depths=beside.depths + 1)


def wrong_key(pool: NgramPool, ngrams: Sequence[Sequence[int]]) -> None:
    FILE(pool, [[gram[1], *gram[1:]] for gram in ngrams])


def all_see_all(topology: Any, beside: Any) -> np.ndarray:
    seen = SEEN(topology, beside)
    seen[len(topology) :, : len(topology)] = True
    return seen


def moved_twice(window: Window, best: np.ndarray) -> np.ndarray:
    grams = MOVE(window, best)
    window._rows = np.roll(window._rows, -1, 1)
    return grams


BESIDE, FILE, SEEN, MOVE = Window.beside, NgramPool.file, verifier_module.seen_with, Window.move
FAULTS: list[tuple[Any, str, Any]] = [
    (jacobi, "_visible", sees_too_much),
    (Window, "beside", shifted),
    (Window, "move", moved_twice),
    (NgramPool, "file", wrong_key),
    (verifier_module, "seen_with", all_see_all),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[2].__name__)
def test_a_fault_is_seen(fault: Any, target: CachedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is no fault of the text: whatever is guessed, that is the target's."""
    monkeypatch.setattr(*fault)
    with pytest.raises(AssertionError):
        for prompt in PROMPTS:
            check(target, SPECS[0], 4, prompt)
    for prompt in PROMPTS:
        tokens = [token for step in decoded(target, SPECS[0], Beam(width=4).at(12), prompt) for token in step.tokens]
        assert tokens == decode_plainly(Verifier(target), Sampling(), prompt, Ending(NEW))[1:]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mistral-sliding"])
def test_the_text_is_the_targets(name: str) -> None:
    model = CachedModel(random_model(name).double(), SMALL_VOCAB)
    for plan in (Beam(width=3).at(7), Chain().at(2), Wide().at(3)):
        drafter = LookaheadDrafter(SPECS[0])
        decoding = decode(Verifier(model), drafter, plan, Greedy(), Sampling(), PROMPTS[0], Ending(20)).finish()
        assert decoding.tokens == decode_plainly(Verifier(model), Sampling(), PROMPTS[0], Ending(20))


def test_a_drawn_text_has_the_targets_law(tiny_pair: Pair) -> None:
    """Some of the guesses are of the second token on: they are tried."""
    spec = Lookahead(window=8, level=3, guesses=4)
    pair = load_pair(tiny_pair.files.spec, spec, target_of=tiny_pair)
    case = Case.of(Beam(width=4), 8, TopK(), Sampling(1.0), 8)
    (checked,) = check_live(pair, [case], {"a": [*range(2, 12)]}, 120, 0, lambda what: None)
    assert checked.passed and checked.tested


def test_a_law_of_one_text(target: CachedModel) -> None:
    given = (Beam(width=4).at(12), TopK(), Sampling(0.7, top_k=1), PROMPTS[0], Ending(NEW))
    decoding = decode(Verifier(target), LookaheadDrafter(SPECS[0]), *given, RandomSource(seeded(0))).finish()
    assert decoding.tokens == decode_plainly(Verifier(target), Sampling(), PROMPTS[0], Ending(NEW))
    assert sum(step.accepted_tokens for step in decoding.steps) > 0


def test_a_prompt_again_is_decoded_as_the_first_time(target: CachedModel) -> None:
    verifier, drafter, plan = Verifier(target), LookaheadDrafter(SPECS[0]), Beam(width=4).at(12)
    given = (plan, Greedy(), Sampling(), PROMPTS[0], Ending(NEW))
    first, again = (decode(verifier, drafter, *given, again=again).finish() for again in (False, True))
    for one, two in zip(first.steps, again.steps, strict=True):
        assert (one.tree.token_list(), one.tokens) == (two.tree.token_list(), two.tokens)


def test_the_pool_keeps_what_was_seen_last() -> None:
    pool = NgramPool(2)
    pool.file([(1, 2, 3), (1, 4, 5), (2, 9, 9), (1, 2, 3), (1, 6, 7)])
    assert pool.after(1) == [(6, 7), (2, 3)]
    assert (pool.after(2), pool.after(3)) == ([(9, 9)], [])


def test_guesses_that_begin_alike_share_nodes() -> None:
    drafter = LookaheadDrafter(SPECS[0])
    drafter.begin(Prefilled([5, 6, 7]))
    drafter._pool.file([(1, 2, 3, 5), (1, 2, 4, 5), (1, 8, 8, 8)])
    tree = drafter.draft(1, Beam(width=3).at(8))
    assert tree.token_list() == [1, 8, 8, 8, 2, 4, 5, 3]  # the last chain has two nodes
    assert drafter.draft(1, Chain().at(2)).token_list() == [1, 8, 8]
    assert drafter.draft(2, Chain().at(2)).token_list() == [2]


@pytest.mark.parametrize("wrong", [{"window": 0}, {"level": 2}, {"guesses": 0}])
def test_numbers_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"drafter.{next(iter(wrong))}=\d is out of range; expected \d or more"):
        Lookahead(**wrong).check()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> PairFolders:
    """With the layer more that makes texts that repeat themselves."""
    return save_pair(tmp_path_factory.mktemp("pair"))


class TestCommands:
    @pytest.fixture
    def given(self, folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
        lines = [json.dumps({"prompt": text}) + "\n" for text in ("one two one two", "def f(x): def f(x): def")]
        (tmp_path / "p.jsonl").write_text("".join(lines))
        models = [f"pair.{role}.path={getattr(folders, role)}" for role in ("target", "draft")]
        return [*models, "pair.name=tiny", "max_new_tokens=14", "drafter=lookahead", "drafter.window=4"]

    def test_a_study_counts_what_goes_beside(self, given: list[str], tmp_path: Path) -> None:
        grid = ["prompts=jsonl", f"prompts.path={tmp_path / 'p.jsonl'}", "report=false"]
        replayed = ["drafter=ngram", "tree=chain", "budget=4", "cost.measure=off"]
        mine, other = (
            self.records([*given[:-2], *grid, *more], tmp_path / more[0])
            for more in ([*given[-2:], "tree=beam", "tree.width=15", "budget=20"], replayed)
        )
        fill = [4 + 5 - 3, 2 * 6 - 1, 3 * 5 - 1]
        assert (mine["overhead_tokens"] == sum(fill) + (mine["steps"] - 3) * (4 * 4 - 1)).all()
        assert set(mine["engine"]) == {"live"}
        assert mine["est_speedup"].isna().all()
        assert (other["overhead_tokens"] == 0).all()
        assert set(other["engine"]) == {"replay"}

    @staticmethod
    def records(overrides: list[str], out: Path) -> pd.DataFrame:
        run_study(plan_study(overrides), out)
        return pd.read_csv(out / "records.csv")

    def test_generate(self, given: list[str], run: Run) -> None:
        said = run("generate", "one two one two", *given, "tree=chain", "budget=4", "--json")
        assert said.code == DONE
        assert json.loads(said.out)["overhead_tokens"] > 0

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (["tree=chain", "budget=5"], "chain has 5 levels; drafter=lookahead-w4 makes at most 4"),
            (
                ["tree=kary", "budget=4"],
                "kary branches below its root, and drafter=lookahead-w4 proposes whole",
            ),
            (["tree=wide", "budget=16"], "wide has 16 sequences; drafter=lookahead-w4 makes at most 15"),
            (["tree=measured", "budget=4"], "expected tree=chain, tree=beam or tree=wide"),
            (["tree=best_first", "budget=4"], "best_first chooses nodes by their probability"),
            (["tree=chain", "budget=4", "acceptance=rejection", "sampling.temperature=1"], "needs children drawn"),
            (["tree=chain", "drafter.path=x"], "drafter=lookahead has no weights"),
        ],
    )
    def test_what_does_not_go_together(self, more: list[str], words: str, given: list[str], run: Run) -> None:
        said = run("generate", "one two", *given, *more)
        assert said.code == USAGE
        assert words in said.err
        assert said.err.count("\n") == 1

    def test_there_is_no_replay(self, given: list[str], run: Run, tmp_path: Path) -> None:
        chain = ["tree=chain", "budget=4"]
        said = run("sweep", "name=x", *given, *chain, "engine=replay", "--out", tmp_path / "out")
        assert said.code == USAGE
        assert "the state of drafter=lookahead-w4 outlasts a step" in said.err
        assert run("replay", "x", *given, *chain).code == USAGE

    def test_the_window_has_room_in_the_context(self, given: list[str], run: Run) -> None:
        said = run("generate", "one two", *given, "tree=chain", "budget=2", "drafter.window=600")
        assert said.code == USAGE
        assert "602 positions of a window exceed the context" in said.err
