"""Rows of recorded trees against a walk of one node at a time."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from support.drafting import record_all, texts_of
from support.recorded import small

from specdraft.drafters.base import Described, Expansion, NodeFeatures, RecordedText
from specdraft.drafters.grams import GrowingText, RecordedRoots, TextGrams, hashed
from specdraft.prediction.loops import GrowingPaths
from specdraft.prediction.rows import Recorded, collect, of_positions, survival, tree_features
from specdraft.trees.shapes.best_first import BestFirst

NODES = 12


@cache
def texts() -> list[RecordedText]:
    """Texts of a tiny pair, and one that goes round in circles."""
    pair = small()
    listed = texts_of(pair.prompts, record_all(pair.target, pair.prompts, pair.ending))
    return [*listed, RecordedText([5, 6, 7, 8, 5, 6, 7], np.array([8, 5, 6, 7, 8, 9, 5, 6]))]


@cache
def described(temperature: float = 1.0) -> list[Described]:
    return list(small().drafter.describe_trees(texts(), BestFirst().at(NODES).at_temperature(temperature)))


@cache
def recorded(temperature: float = 1.0) -> list[Recorded]:
    found = []
    for text, (expansion, nodes) in zip(texts(), described(temperature), strict=True):
        assert nodes is not None
        found.append(Recorded(text, expansion, nodes))
    return found


def paths(one: Recorded, start: int) -> list[list[int]]:
    """The places of the nodes from depth 1 down to each node of a tree."""
    found: list[list[int]] = []
    for place, parent in enumerate(one.expansion.parent[start]):
        found.append([*(found[parent - 1] if parent > 0 else []), place])
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_what_the_drafter_says_is_what_it_is_to_plain_forwards(temperature: float) -> None:
    """Each node's context, fed alone through the model."""
    model = small().draft.model
    for one in (recorded(temperature)[1], recorded(temperature)[-1]):
        tempered = tree_features(one.expansion, one.nodes, one.text).tempered
        for start in (0, len(one.expansion.parent) - 1):
            for path in paths(one, start)[::7]:
                context = [*one.text.prompt_ids, *one.text.tokens[: start + 1], *one.expansion.token[start, path[:-1]]]
                with torch.inference_mode():
                    logits = model(torch.tensor([[int(token) for token in context]])).logits[0, -1]
                said = torch.log_softmax(logits.double(), -1)
                best = said.sort(descending=True).values
                place = path[-1]
                wanted = [said[one.expansion.token[start, place]], -(said * said.exp()).sum(), best[0], best[1]]
                assert [field[start, place] for field in one.nodes] == pytest.approx(list(map(float, wanted)), abs=1e-5)
                scaled = torch.log_softmax(logits.double() / temperature, -1)[one.expansion.token[start, place]]
                assert tempered[start, place] == pytest.approx(float(scaled), abs=1e-5)


def test_describing_trees_does_not_change_them() -> None:
    plain = list(small().drafter.expand(texts(), BestFirst().at(NODES)))
    for trees, (expansion, nodes) in zip(plain, described(), strict=True):
        assert nodes is not None
        assert all(np.array_equal(a, b) for a, b in zip(trees, expansion, strict=True))
        assert all(field.dtype == np.float32 and field.shape == expansion.parent.shape for field in nodes)


def test_rows_are_those_of_a_walk_of_one_node_at_a_time() -> None:
    rows = collect(recorded())
    seen = 0
    for prompt, one in enumerate(recorded()):
        tokens = one.text.tokens
        for start in range(len(one.expansion.parent)):
            row_of = {}
            for path in paths(one, start):
                depth, place = len(path), path[-1]
                if one.expansion.parent[start, place] < 0 or start + depth >= len(tokens):
                    continue
                drafted, text = one.expansion.token[start, path], tokens[start + 1 : start + 1 + depth]
                row_of[place] = seen
                assert (rows.prompt[seen], rows.start[seen]) == (prompt, start)
                assert rows.parent[seen] == (row_of[path[-2]] if depth > 1 else -1)
                assert rows.reached[seen] == (drafted[:-1] == text[:-1]).all()
                assert rows.accepted[seen] == (drafted == text).all()
                assert rows.features.depth[seen] == depth
                steps = one.nodes.log_prob[start, path]
                assert rows.features.log_prob[seen] == steps[-1]
                assert rows.features.path[seen] == pytest.approx(steps.sum(), abs=1e-5)
                assert rows.features.tempered[seen] == pytest.approx(steps[-1], abs=1e-5)
                parent = path[-2] if depth > 1 else None
                assert rows.features.parent_rank[seen] == (-1 if parent is None else one.expansion.rank[start, parent])
                wanted = 0 if parent is None else one.nodes.entropy[start, parent]
                assert rows.features.parent_entropy[seen] == wanted
                seen += 1
    assert len(rows.prompt) == seen
    assert 0 < rows.accepted.sum() < rows.reached.sum() < seen


def test_a_loop_is_a_4_gram_that_stood_before() -> None:
    found = 0
    for one in [*recorded(), round_and_round()]:
        loop = tree_features(one.expansion, one.nodes, one.text).loop
        for start in range(len(one.expansion.parent)):
            for path in paths(one, start):
                drafted = one.expansion.token[start, path].tolist()
                whole = [*one.text.prompt_ids, *one.text.tokens[: start + 1].tolist(), *drafted]
                earlier = [whole[i : i + 4] for i in range(len(whole) - 4)]
                wanted = len(whole) >= 4 and whole[-4:] in earlier and one.expansion.parent[start, path[-1]] >= 0
                assert loop[start, path[-1]] == wanted
                found += wanted
    assert found


def round_and_round() -> Recorded:
    """Random trees of three tokens below a text of three tokens."""
    rng, shape = np.random.default_rng(0), (20, NODES)
    parent = rng.integers(0, np.arange(1, NODES + 1), shape)
    parent[:, 9:] = -1
    token = rng.integers(5, 8, shape)
    trees = Expansion(parent.astype(np.int16), parent.astype(np.int16), token.astype(np.int32), np.zeros(shape))
    text = RecordedText([5, 6], rng.integers(5, 8, 21))
    return Recorded(text, trees, NodeFeatures(*[np.zeros(shape, dtype=np.float32)] * 4))


def test_loops_of_a_tree_that_grows_are_those_of_a_plain_search() -> None:
    rng, found = np.random.default_rng(0), 0
    for cut in (0, 2, 3, 5, 8, 8, 8, 8, 60):
        text, path = rng.integers(0, 3, cut).tolist(), rng.integers(0, 2, 8).tolist()
        growing = GrowingText(text[: cut // 2])
        assert len(growing.known) == max(1, cut // 2 - 2)
        growing.commit(text[cut // 2 :])
        recorded = RecordedRoots(TextGrams([np.ones(9), np.array([*text, *path])]), np.array([1]), np.array([cut + 1]))
        for before in (growing.until(path[0]), recorded):
            paths = GrowingPaths(before)
            for depth in range(1, 8):
                whole = [*text, *path[:depth]]
                wanted = [contains(whole, [*whole[-3:], token]) for token in range(3)]
                assert paths.loops(np.array([depth - 1]), np.arange(3)[None]).tolist() == [wanted]
                paths.keep(np.array([0]), np.array([path[depth]]))
                found += sum(wanted) - sum(contains(text, [*whole[-3:], token]) for token in range(3))
    assert found  # some stood on the path alone


def test_texts_side_by_side_keep_their_4_grams_apart() -> None:
    texts = [np.array(text) for text in ([1, 2, 3, 4, 5], [3, 4, 5], [5, 1, 2, 3, 4, 1, 2, 3, 4])]
    grams = TextGrams(texts)
    asked = hashed(*np.array([[4, 3, 2, 1], [5, 4, 3, 2], [3, 5, 4, 3]]).T)
    for text, whole in enumerate(texts):
        for end in range(len(whole) + 1):
            said = grams.stand(asked, np.full(3, text), np.full(3, end))
            wanted = [contains(whole[:end].tolist(), gram) for gram in ([1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 3])]
            assert said.tolist() == wanted
    assert grams.last(np.array([0, 1, 2]), np.array([5, 2, 1])).tolist() == [[5, 4, 3], [4, 3, -1], [5, -1, -1]]


def contains(whole: list[int], gram: list[int]) -> bool:
    return any(whole[i : i + 4] == gram for i in range(len(whole) - 3))


def test_rows_of_some_prompts_keep_their_parents() -> None:
    rows = collect(recorded())
    some = rows.of(np.array([1, 3]))
    assert set(some.prompt) == {1, 3}
    below = some.parent >= 0
    assert (some.features.depth[some.parent[below]] == some.features.depth[below] - 1).all()
    assert (some.start[some.parent[below]] == some.start[below]).all()
    reached = some.on_text
    assert reached.reached.all()
    below = reached.parent >= 0
    assert (reached.accepted[reached.parent[below]] == 1).all()  # who was reached has an accepted parent


def test_of_a_sampled_text_outcomes_are_the_exact_chances() -> None:
    """A node that was reached has the chance of its rank at its position; one that was not has none."""
    rng = np.random.default_rng(0)
    sampled = [one._replace(chances=rng.random((len(one.text.tokens), 2))) for one in recorded()]
    rows, plain = collect(sampled), collect(recorded())
    assert np.array_equal(rows.reached, plain.reached)
    ranked = 0
    for row in range(len(rows.prompt)):
        position, rank = rows.start[row] + rows.features.depth[row], rows.features.rank[row]
        chances = sampled[rows.prompt[row]].chances
        assert chances is not None
        if not rows.reached[row]:
            assert rows.accepted[row] == 0
        elif rank < 2:
            assert rows.accepted[row] == chances[position, rank]
        else:  # nothing is known of such ranks but what the text says
            assert rows.accepted[row] == plain.accepted[row]
            ranked += 1
    assert ranked


def test_columns_that_are_known_along_a_text_reach_the_nodes_below_it() -> None:
    rng = np.random.default_rng(0)
    tables = [rng.random((len(one.text.tokens), 3, 2)) for one in recorded()]
    known = [
        one._replace(extra=of_positions(table, one.expansion, one.text.tokens))
        for one, table in zip(recorded(), tables, strict=True)
    ]
    rows = collect(known)
    there = rows.reached & (rows.features.rank < 3)
    assert 0 < there.sum() < rows.reached.sum()
    for row in np.flatnonzero(there)[::7]:
        position, rank = rows.start[row] + rows.features.depth[row], rows.features.rank[row]
        assert (rows.features.extra[row] == tables[rows.prompt[row]][position, rank]).all()
    assert (rows.features.extra[~there] == 0).all()


def test_survival_is_the_product_of_the_conditionals_above() -> None:
    rows = collect(recorded())
    conditional = np.random.default_rng(0).random(len(rows.prompt))
    said = survival(conditional, rows.parent, rows.features.depth)
    for row in range(0, len(said), 37):
        wanted, at = 1.0, row
        while at >= 0:
            wanted, at = wanted * conditional[at], rows.parent[at]
        assert said[row] == pytest.approx(wanted)


def test_a_text_of_one_token_has_no_rows() -> None:
    one = recorded()[1]
    short = RecordedText(one.text.prompt_ids, one.text.tokens[:1])
    nothing = Recorded(short, *(type(part)(*(field[:0] for field in part)) for part in one[1:3]))
    assert len(collect([nothing]).prompt) == 0
