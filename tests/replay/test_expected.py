from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.drafting import annotate, expand, texts_of
from support.random_trees import topologies
from support.recorded import untimed
from support.tabled import TableModel, random_logits
from support.tallied import replay, replay_dynamic, replay_sampled
from support.tiny_models import tiny_llama

from specdraft.acceptance import (
    AcceptanceRule,
    Block,
    KSeq,
    Membership,
    NoReplacement,
    Recursive,
    Rejection,
    TopK,
    registry,
)
from specdraft.acceptance.base import NO_SOURCE
from specdraft.acceptance.weights import block_weights, node_weights
from specdraft.decoding.decode import decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.fitting import COLD
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.losslessness.enumeration import EnumeratingSource, outcomes
from specdraft.models.cached_model import CachedModel
from specdraft.replay.expected import pack_records, rule_weights
from specdraft.replay.static import pack
from specdraft.results.metrics import Tally, tally
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.sampling.randomness import RandomSource, Source, seeded
from specdraft.traces import rule_records
from specdraft.traces.record import Trajectory
from specdraft.traces.rule_records import RuleRecords, parts_of, record_rules
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import Plan, StaticPlan
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.step import Step
from specdraft.trees.topology import Topology

CLOSE = 1e-9
COUNTED = ("steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens")
PLAIN = Sampling(1.0)


def expected(weighted: Sequence[tuple[Tally, float]]) -> dict[Any, float]:
    """Every count of many tallies, by name; counts that are 0 are left out."""
    total: Counter[Any] = Counter()
    for counted, weight in weighted:
        total.update({name: weight * getattr(counted, name) for name in COUNTED})
        total.update({("length", length): weight * steps for length, steps in counted.lengths.items()})
        for kind in ("positions", "nodes"):
            for at, (reached, accepted) in getattr(counted, kind).items():
                total.update({(kind, at, "reached"): weight * reached, (kind, at, "accepted"): weight * accepted})
    return {name: count for name, count in total.items() if count > CLOSE}


# Given the records, replay is the Markov chain that 3-replay.md describes.


def chain_of_steps(
    topology: Topology, last: int, walk: Callable[[int, EnumeratingSource], int], source: EnumeratingSource
) -> Tally:
    """Decode one trajectory, `walk` telling the accepted node of a step from each start."""
    at, steps, tree = 0, [], DraftTree(topology, [0] * len(topology))
    while at < last:
        path, node = [], walk(at, source)
        while node:
            path.insert(0, node)
            node = int(topology.parents[node])
        cut = at + len(path) == last
        steps.append(Step(tree, path, [0] * (len(path) + (not cut)), cut))
        at += len(path) + (not cut)
    return tally(0, steps, 0, 0)


def node_by_node(
    topology: Topology, last: int, pi: Callable[[int, int, int], float]
) -> Callable[[int, EnumeratingSource], int]:
    """Child `rank` of a node with `count` children is taken with `pi(position, rank, count)`."""

    def walk(start: int, source: EnumeratingSource) -> int:
        node = 0
        for position in range(start + 1, last + 1):
            children = topology.children[node]
            taken = [pi(position, int(topology.ranks[child]), len(children)) for child in children]
            answer = int(source.choose(torch.tensor([[*taken, max(0.0, 1 - sum(taken))]], dtype=torch.float64)))
            if answer == len(children):
                break
            node = children[answer]
        return node

    return walk


def by_ratio(gamma: int, last: int, ratio: Sequence[float]) -> Callable[[int, EnumeratingSource], int]:
    """Block verification: P(at least a accepted) is the least product of the first 0 .. a ratios."""

    def walk(start: int, source: EnumeratingSource) -> int:
        at_least = []
        for a in range(min(gamma, last - start) + 1):
            products = [np.prod([ratio[start + 1 + j] for j in range(i)]) for i in range(a + 1)]
            at_least.append(float(min(products)))
        exactly = [one - other for one, other in pairwise([*at_least, 0.0])]
        return int(source.choose(torch.tensor([exactly], dtype=torch.float64).clamp(min=0)))

    return walk


def packed_of(lasts: Sequence[int]) -> PackedRanks:
    ranks = [np.full(last + 1, -1) for last in lasts]
    return pack(ranks, [np.arange(len(one)) for one in ranks])


def made_up(last: int, children: int, generator: np.random.Generator) -> RuleRecords:
    """Records of a trajectory that never was, some of them 0 or 1."""

    def pi() -> np.ndarray:
        shares = generator.dirichlet([0.5] * (children + 1), last + 1)
        shares[generator.random(last + 1) < 0.2] = np.eye(children + 1)[generator.integers(children + 1)]
        shares[0] = 0
        return shares[:, :children]

    target, draft = torch.from_numpy(generator.dirichlet([0.7] * 4, (2, last + 1)))
    tokens = torch.from_numpy(generator.integers(0, 4, last + 1))
    table = {name: values.numpy() for name, values in KSeq().record(target, draft, tokens, children, NO_SOURCE).items()}
    for values in table.values():
        values[0] = 0
    made = {"overlap": table["ratio"].clip(max=1), "rejection.pi": pi()[:, 0]}
    made |= {f"{kind}.pi": pi() for kind in ("recursive", "no_replacement", "membership")}
    return made | {"block.ratio": table["ratio"]} | {f"kseq.{name}": values for name, values in table.items()}


RECORDED = [rule() for rule in registry().values() if rule.replay == "record"]
PARTS = [part for rule in (None, *RECORDED) for part in parts_of(rule)]
PI_RULES = [rule for rule in RECORDED if {"pi", "beta"} & {*rule.arrays}]
lasts = st.lists(st.integers(0, 4), min_size=1, max_size=3)


def closed(topology: Topology) -> Topology:
    """The same parents, every child's rank its order: what rules that draw at random are given."""
    return Topology(topology.parents.tolist())


@given(topologies(max_nodes=5), lasts, st.integers(0, 2**20), st.sampled_from(PI_RULES))
@settings(max_examples=60)
def test_replay_is_the_chain_of_steps(topology: Topology, lengths: list[int], seed: int, rule: AcceptanceRule) -> None:
    topology = Topology(range(-1, topology.num_nodes)) if rule.chain_only else closed(topology)
    generator = np.random.default_rng(seed)
    most = max(1, *map(len, topology.children))
    judged = [made_up(last, most, generator) for last in lengths]
    packed = packed_of(lengths)
    found = replay_sampled(topology, rule_weights(topology, rule, pack_records(judged, packed.ranks.shape[1])), packed)
    for last, own, counted in zip(lengths, judged, found, strict=True):

        def pi(position: int, rank: int, count: int, own: RuleRecords = own) -> float:
            if rule.kind == "kseq":
                rho, beta = (own[f"kseq.{name}"][position, count - 1] for name in ("rho", "beta"))
                return float((1 - beta) ** rank * min(1 / rho, own["kseq.ratio"][position]))
            at = own[f"{rule.kind}.pi"][position]
            return float(np.atleast_1d(at)[rank])

        slow = expected(
            list(
                outcomes(
                    lambda source, t=last, pi=pi: chain_of_steps(topology, t, node_by_node(topology, t, pi), source)
                )
            )
        )
        assert expected([(counted, 1.0)]) == pytest.approx(slow, abs=1e-9)


@given(st.integers(0, 4), lasts, st.integers(0, 2**20))
@settings(max_examples=30)
def test_replay_of_block_verification_is_the_chain_of_steps(gamma: int, lengths: list[int], seed: int) -> None:
    topology, generator = Topology(range(-1, gamma)), np.random.default_rng(seed)
    judged, packed = [made_up(last, 1, generator) for last in lengths], packed_of(lengths)
    found = replay_sampled(
        topology, rule_weights(topology, Block(), pack_records(judged, packed.ranks.shape[1])), packed
    )
    for last, own, counted in zip(lengths, judged, found, strict=True):
        walk = by_ratio(gamma, last, own["block.ratio"].tolist())
        slow = expected(list(outcomes(lambda source, t=last, walk=walk: chain_of_steps(topology, t, walk, source))))
        assert expected([(counted, 1.0)]) == pytest.approx(slow, abs=1e-9)


@given(
    topologies(max_nodes=10),
    st.lists(st.integers(0, 25), min_size=1, max_size=4),
    st.integers(0, 2**20),
    st.sampled_from(PI_RULES),
)
@settings(max_examples=60)
def test_sums(topology: Topology, lengths: list[int], seed: int, rule: AcceptanceRule) -> None:
    topology = Topology(range(-1, topology.num_nodes)) if rule.chain_only else closed(topology)
    generator, packed = np.random.default_rng(seed), packed_of(lengths)
    judged = [made_up(last, max(1, *map(len, topology.children)), generator) for last in lengths]
    for counted, last in zip(
        replay_sampled(topology, rule_weights(topology, rule, pack_records(judged, packed.ranks.shape[1])), packed),
        lengths,
        strict=True,
    ):
        assert 1 + counted.accepted_tokens + counted.bonus_tokens == pytest.approx(counted.new_tokens, abs=CLOSE)
        assert counted.new_tokens == last + 1
        assert counted.drafted_tokens == pytest.approx(counted.steps * topology.num_nodes)
        assert sum(counted.lengths.values()) == pytest.approx(counted.steps, abs=CLOSE)
        assert sum(a * steps for a, steps in counted.lengths.items()) == pytest.approx(
            counted.accepted_tokens, abs=CLOSE
        )
        assert counted.steps - 1 - CLOSE <= counted.bonus_tokens <= counted.steps + CLOSE
        assert set(counted.nodes) == (set(topology.paths[1:]) if last else set())
        for depth, (reached, accepted) in counted.positions.items():
            own = {path: both for path, both in counted.nodes.items() if len(path) == depth}
            assert accepted == pytest.approx(sum(both[1] for both in own.values()), abs=CLOSE)
            assert reached == pytest.approx(sum({path[:-1]: both[0] for path, both in own.items()}.values()), abs=CLOSE)
            at_least = [
                sum(steps for a, steps in counted.lengths.items() if a >= least) for least in (depth - 1, depth)
            ]
            assert accepted == pytest.approx(at_least[1], abs=CLOSE)
            assert accepted - CLOSE <= reached <= at_least[0] + CLOSE
            assert depth > 1 or reached == pytest.approx(counted.steps)


rank_lists = st.lists(st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 5, 40]), max_size=14), min_size=1, max_size=5)


@given(topologies(), rank_lists)
@example(Topology.from_paths([(0,), (0, 1)]), [[0, 0, 1, 0], []])
@example(Topology([-1]), [[0, 1], [2]])
@settings(max_examples=100)
def test_certain_chances_are_greedy_replay(topology: Topology, listed: list[list[int]]) -> None:
    ranks = [np.array([-1, *one]) for one in listed]
    packed = pack(ranks, [np.arange(len(one)) for one in ranks])
    weights = node_weights(topology, lambda rank, count: (packed.ranks == rank).astype(float))
    for counted, greedy in zip(replay_sampled(topology, weights, packed), replay(topology, packed), strict=True):
        assert expected([(counted, 1.0)]) == expected([(greedy, 1.0)])
        assert set(counted.positions) == set(greedy.positions)
        assert counted.looped_tokens == greedy.looped_tokens


def test_no_step_without_a_second_token() -> None:
    packed = packed_of([0, 2])
    judged = pack_records([made_up(last, 2, np.random.default_rng(0)) for last in (0, 2)], 4)
    counted, other = replay_sampled(shape := Topology([-1, 0, 0, 1]), rule_weights(shape, Recursive(), judged), packed)
    assert untimed(counted) == untimed(Tally(new_tokens=1))
    assert other.steps > 1


def test_the_weights_of_a_block() -> None:
    weights = block_weights(Topology([-1, 0, 1, 2]), lambda depth: np.array([[0.0, 0.5, 3.0, 0.9, 2.0, 0.0]]))
    by_hand = [
        [1, 0.5, 0.5, 0.5],  # products 0.5, 1.5, 1.35
        [1, 1, 1, 1],  # 3, 2.7, 5.4
        [1, 0.9, 0.9, 0],  # 0.9, 1.8, the end
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
    ]
    assert np.stack(weights, -1)[0] == pytest.approx(np.array(by_hand))


def test_k_seq_depends_on_the_number_of_children() -> None:
    generator = np.random.default_rng(1)
    target, draft = torch.from_numpy(generator.dirichlet([0.7] * 4, (2, 7)))
    record = KSeq().record(target, draft, torch.arange(7) % 4, 4, NO_SOURCE)
    table = {name: values.numpy()[None] for name, values in record.items()}

    def pi(count: int) -> np.ndarray:
        rho, beta = (table[name][0, :, count - 1, None] for name in ("rho", "beta"))
        chances: np.ndarray = (1 - beta) ** np.arange(count) * np.minimum(1 / rho, table["ratio"][0, :, None])
        return chances

    for children in (1, 2, 3, 4):
        weights = KSeq().weights(Topology([-1] + [0] * children), table)
        first = np.stack([weight[0, :-1] for weight in weights[1:]], -1)
        assert first == pytest.approx(pi(children)[1:])
    mixed = KSeq().weights(Topology([-1, 0, 0, 0, 1]), table)  # 3 children, then 1 below the first
    assert mixed[4][0, :-2] == pytest.approx(pi(3)[1:-1, 0] * pi(1)[2:, 0])


# The records are the rules' own numbers on both models' distributions.

VOCAB, CHILDREN = 24, 3
WEIGHTS, NODES = "traversal.weights", Topology([-1, 0, 0, 1, 1, 2, 3])


@torch.inference_mode()
def distributions(model: CachedModel, prompt: list[int], tokens: Sequence[int], sampling: Sampling) -> torch.Tensor:
    """`[T + 1, vocab]` before each token, one forward for each."""
    texts = [[*prompt, *tokens[:n]] for n in range(len(tokens))]
    rows = [model.model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1, : model.vocab] for text in texts]
    return standardise(torch.stack(rows).double(), sampling)


class Judging(NamedTuple):
    target: CachedModel
    draft: CachedModel
    prompts: list[list[int]]
    texts: list[Trajectory]

    def records(self, sampling: Sampling, children: int = CHILDREN) -> list[RuleRecords]:
        return record_rules(
            self.target,
            ModelDrafter(self.draft),
            texts_of(self.prompts, self.texts),
            sampling,
            PARTS,
            children,
            [seeded(i) for i in range(len(self.texts))],
            NODES,
        )


@pytest.fixture(scope="module")
def judging() -> Judging:
    target, draft = (CachedModel(tiny_llama(seed, vocab_size=VOCAB).double(), VOCAB) for seed in (0, 1))
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(VOCAB, (length,), generator=generator).tolist() for length in (3, 1, 6)]
    texts = []
    for prompt, count in zip(prompts, (9, 1, 5), strict=True):
        ending, source = Ending(count), RandomSource(generator)
        tokens = decode_plainly(Verifier(target), Sampling(1.0, top_p=0.8), prompt, ending, source)
        texts.append(Trajectory(np.array(tokens), np.zeros(count, dtype=np.float32)))
    return Judging(target, draft, prompts, texts)


def slow_traversal(target: torch.Tensor, draft: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`[T + 1, n + 1]` for each start and node of `NODES`: the path of algorithm 2 down to it, one number at a time."""

    def through(node: int, start: int) -> tuple[float, float]:
        """P(entering it, over the target's of its tokens), and how probable it passes then."""
        if node == 0:
            return 1.0, 1.0
        reached, passing = through(int(NODES.parents[node]), start)
        row = start + int(NODES.depths[node]) - 1
        p, q, token = target[row].tolist(), draft[row].tolist(), int(tokens[row])
        rest = p
        for _ in range(int(NODES.ranks[node])):
            if not passing:
                break
            left = [max(passing * a - b, 0.0) for a, b in zip(rest, q, strict=True)]
            rejected = sum(left) + 1 - passing
            reached, passing = reached * rejected, sum(left) / (rejected or 1)
            rest = [a / (sum(left) or 1) for a in left]
        if not q[token]:
            return 0.0, 1.0
        return reached * q[token] / p[token], min(1.0, passing * rest[token] / q[token])

    found = torch.zeros(len(tokens) + 1, len(NODES))
    for start, node in product(range(len(tokens) + 1), range(len(NODES))):
        if start + NODES.depths[node] <= len(tokens):
            found[start, node] = np.prod(through(node, start))
    return found


@pytest.mark.parametrize(
    "sampling", [PLAIN, Sampling(0.7, top_k=6), Sampling(1.0, top_p=0.8)], ids=["t1", "top-k", "top-p"]
)
def test_records_are_the_rules_own(judging: Judging, sampling: Sampling) -> None:
    for number, (own, prompt, text) in enumerate(
        zip(judging.records(sampling), judging.prompts, judging.texts, strict=True)
    ):
        last, tokens = len(text.tokens) - 1, torch.from_numpy(text.tokens)
        target, draft = (
            distributions(m, prompt, text.tokens.tolist(), sampling)[1:] for m in (judging.target, judging.draft)
        )
        given_rows = (target, draft, tokens[1:])
        table = KSeq().record(*given_rows, CHILDREN, NO_SOURCE)
        history = rule_records._History(
            torch.rand(CHILDREN - 1, last + 1, generator=seeded(number), dtype=torch.float64)[:, 1:]
        )
        wanted = {
            "overlap": torch.minimum(target, draft).sum(-1),
            "rejection.pi": Rejection().record(*given_rows, 1, NO_SOURCE)["pi"],
            "recursive.pi": Recursive().record(*given_rows, CHILDREN, NO_SOURCE)["pi"],
            "no_replacement.pi": NoReplacement().record(*given_rows, CHILDREN, history)["pi"],
            "membership.pi": Membership().record(*given_rows, CHILDREN, NO_SOURCE)["pi"],
            "block.ratio": Block().record(*given_rows, 1, NO_SOURCE)["ratio"],
            WEIGHTS: slow_traversal(*given_rows),
            **{f"kseq.{name}": values for name, values in table.items()},
        }
        assert own.keys() == wanted.keys() == {name for part in PARTS for name in part.arrays}
        for name, direct in wanted.items():
            if name == WEIGHTS:  # of roots, not of tokens
                assert own[name] == pytest.approx(direct.numpy(), abs=1e-6)
                continue
            assert own[name].shape == (last + 1, *direct.shape[1:]), name
            assert not own[name][0].any(), name
            assert own[name][1:] == pytest.approx(direct.numpy(), abs=1e-6), name  # the models' logits come in float32
        assert table["ratio"].numpy() == pytest.approx(own["block.ratio"][1:], rel=1e-4)


def test_neither_slices_nor_batches_nor_more_children_change_the_records(
    judging: Judging, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, more = judging.records(PLAIN), judging.records(PLAIN, 8)
    monkeypatch.setattr(rule_records, "MOST_ENTRIES", 2 * VOCAB + 1)
    for other in (
        judging.records(PLAIN),
        [
            {name: array[:, :CHILDREN] if array.ndim == 2 and name != WEIGHTS else array for name, array in one.items()}
            for one in more
        ],
    ):
        for one, same in zip(whole, other, strict=True):
            assert same.keys() == one.keys()
            for name, wanted in one.items():
                assert same[name] == pytest.approx(wanted, abs=1e-12), name
    alone = judging._replace(prompts=judging.prompts[:1], texts=judging.texts[:1]).records(PLAIN)
    assert all(alone[0][name] == pytest.approx(wanted, abs=1e-5) for name, wanted in whole[0].items())


def test_a_token_that_only_rounding_let_through_spoils_nothing(judging: Judging) -> None:
    """Top-p of another forward may cut it off: its target probability is 0."""
    found = judging.records(Sampling(1.0, top_k=1))
    assert all(np.isfinite(array).all() for own in found for array in own.values())
    target, draft = torch.eye(3, dtype=torch.float64)[[0, 0, 0]], torch.eye(3, dtype=torch.float64)[[1, 1, 0]]
    rows = target, draft, torch.tensor([1, 2, 0])
    for rule in (Block(), KSeq()):
        assert rule.record(*rows, 2, NO_SOURCE)["ratio"].tolist() == [1, 0, 1]


# Replay is exact: over all texts, its expected counts are those of live decoding, in every count.

ENDS = {"eos": (3, Ending(3, frozenset([2]))), "length": (2, Ending(4))}
EXACT_TREES = {"chain": Topology([-1, 0, 1]), "wide": Topology([-1, 0, 0]), "branching": Topology([-1, 0, 0, 1])}
PROMPT = [0, 1]


class Tabled(NamedTuple):
    target: TableModel
    draft: TableModel
    ending: Ending

    @classmethod
    def of(cls, ends: str) -> Tabled:
        vocab, ending = ENDS[ends]
        return cls(*(TableModel(logits, vocab) for logits in random_logits(vocab, 5)), ending)

    def live(
        self, plan: Plan, rule: AcceptanceRule, sampling: Sampling, source: Source, drawn: Drawn = AS_TARGET
    ) -> tuple[list[int], Tally]:
        models = Verifier(self.target), ModelDrafter(self.draft)
        made = decode(*models, plan, rule, sampling, PROMPT, self.ending, source, drawn=drawn)
        made.finish()
        return made.tokens, tally(made.first, made.steps, 0, 0, plan.dynamic)

    def texts(self, sampling: Sampling) -> dict[tuple[int, ...], float]:
        """The target's law."""
        return law(
            outcomes(lambda source: decode_plainly(Verifier(self.target), sampling, PROMPT, self.ending, source))
        )

    def replayed(
        self,
        topology: Topology,
        rule: AcceptanceRule,
        sampling: Sampling,
        text: Sequence[int],
        drawn: Drawn = AS_TARGET,
    ) -> list[tuple[Tally, float]]:
        """One text's expected counts; several where they depend on histories."""
        one = Trajectory(np.array(text), np.zeros(len(text), dtype=np.float32))
        packed = pack([annotate(self.draft, [PROMPT], [one])[0].ranks], [one.tokens])
        if rule.replay == "rank":
            return [(replay(topology, packed)[0], 1.0)]

        def with_history(source: EnumeratingSource) -> Tally:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rule_records, "_History", lambda uniforms: source)
                texts = texts_of([PROMPT], [one])
                given = (sampling, parts_of(rule, drawn), most, [seeded()], topology)
                judged = record_rules(self.target, ModelDrafter(self.draft), texts, *given)
            weights = rule_weights(topology, rule, pack_records(judged, packed.ranks.shape[1]), drawn=drawn)
            return replay_sampled(topology, weights, packed)[0]

        most = max(map(len, topology.children))
        return (
            list(outcomes(with_history))
            if rule.kind == "no_replacement"
            else [(with_history(EnumeratingSource([])), 1.0)]
        )


def law(texts: Any) -> dict[tuple[int, ...], float]:
    found: Counter[tuple[int, ...]] = Counter()
    for text, chance in texts:
        found[tuple(text)] += chance
    return dict(found)


COOLING = Drawn.of([1.7, 0.6], PLAIN)
QUICK = [("chain", "length", AS_TARGET), ("wide", "eos", AS_TARGET), ("chain", "length", COOLING)]
ALL = product(EXACT_TREES, ENDS, (AS_TARGET, COOLING, Drawn.of([1, 0], PLAIN)))
REST = [pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in QUICK]


@pytest.mark.parametrize(("tree", "ends", "drawn"), [*QUICK, *REST])
@pytest.mark.parametrize(
    "rule", [rule() for rule in registry().values() if rule.lossless and not rule.greedy_only], ids=lambda r: r.kind
)
def test_replay_is_live_decoding_in_expectation(rule: AcceptanceRule, tree: str, ends: str, drawn: Drawn) -> None:
    topology, pair = EXACT_TREES[tree], Tabled.of(ends)
    if rule.misfit(PLAIN, chain=topology.is_chain) or (drawn.temperatures and rule.draw == "rank"):
        pytest.skip("for chains only, or nothing is drawn")
    if drawn.coldest(PLAIN) < COLD and rule.draw == "without_replacement":
        pytest.skip("only drafting tells how many children there are")
    live = list(outcomes(lambda source: pair.live(StaticPlan(topology), rule, PLAIN, source, drawn)))
    texts = pair.texts(PLAIN)
    assert law((text, chance) for (text, _), chance in live) == pytest.approx(texts, abs=CLOSE)
    if rule.replay != "none":
        counted = [
            (one, chance * own)
            for text, chance in texts.items()
            for one, own in pair.replayed(topology, rule, PLAIN, text, drawn)
        ]
        assert expected([(one, chance) for (_, one), chance in live]) == pytest.approx(expected(counted), abs=CLOSE)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("sampling", [PLAIN, Sampling(0.7, top_p=0.8)], ids=["t1", "top-p"])
def test_replay_of_dynamic_trees_is_live_decoding_in_expectation(sampling: Sampling, ends: str) -> None:
    """The children are the drafter's best, so the trees may follow its probabilities."""
    pair, plan, rule = Tabled.of(ends), BestFirst().at(3), TopK()
    live = list(outcomes(lambda source: pair.live(plan, rule, sampling, source)))
    texts = pair.texts(sampling)
    assert law((text, chance) for (text, _), chance in live) == pytest.approx(texts, abs=CLOSE)
    counted = []
    for text, chance in texts.items():
        one = Trajectory(np.array(text), np.zeros(len(text), dtype=np.float32))
        packed = pack([annotate(pair.draft, [PROMPT], [one])[0].ranks], [one.tokens])
        counted.append((replay_dynamic(packed, [expand(pair.draft, PROMPT, one.tokens, plan)], plan)[0][0], chance))
    assert expected([(one, chance) for (_, one), chance in live]) == pytest.approx(expected(counted), abs=CLOSE)
