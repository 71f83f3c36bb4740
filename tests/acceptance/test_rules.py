from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support.laws import law_by_rank, law_of_record
from support.random_trees import topologies

from specdraft.acceptance import (
    AcceptanceRule,
    Block,
    Greedy,
    KSeq,
    Membership,
    NoReplacement,
    Recursive,
    TopK,
    Traversal,
    Typical,
    registry,
)
from specdraft.acceptance.base import NO_SOURCE, Accepted
from specdraft.acceptance.judging import Judging, end_downwards, end_upwards, tour, walk_down, walk_up
from specdraft.config import bundled_config_dir, load_group
from specdraft.errors import ConfigError
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import Asking, RandomSource, draw_children
from specdraft.traces.rule_records import by_node
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

VOCAB = 6


@st.composite
def verified_trees(draw: st.DrawFn) -> tuple[DraftTree, list[list[int]]]:
    """A tree whose siblings differ in their tokens, and target scores with many equals, `[n + 1][vocab]`."""
    topology = draw(topologies(max_nodes=10))
    tokens = [draw(st.integers(0, VOCAB - 1))] + [0] * topology.num_nodes
    for children in topology.children:
        assume(len(children) <= VOCAB)
        distinct = draw(st.permutations(range(VOCAB)))
        for child, token in zip(children, distinct, strict=False):
            tokens[child] = token
    rows = draw(
        st.lists(
            st.lists(st.integers(0, 2), min_size=VOCAB, max_size=VOCAB), min_size=len(tokens), max_size=len(tokens)
        )
    )
    for node in range(1, len(tokens)):
        if draw(st.integers(0, 2)):
            rows[topology.parents[node]][tokens[node]] = 3
    return DraftTree(topology, tokens), rows


def by_definition(tree: DraftTree, rows: list[list[int]]) -> Accepted:
    """The longest path on which each token is the target's best (lowest id among equals) after its parent."""
    best = [min(range(VOCAB), key=lambda token, row=row: (-row[token], token)) for row in rows]
    tokens, parents = tree.token_list(), tree.topology.parents.tolist()
    wanted = [True] + [tokens[n] == best[parents[n]] for n in range(1, len(tree))]
    paths = [[n for n in range(len(tree)) if row[n]] for row in tree.topology.ancestors]
    longest = max((path for path in paths if all(wanted[n] for n in path)), key=len)
    return Accepted(longest[1:], [tokens[n] for n in longest[1:]], best[longest[-1]])


@given(verified_trees())
def test_greedy_accepts_what_its_definition_says(case: tuple[DraftTree, list[list[int]]]) -> None:
    tree, rows = case
    logits = torch.tensor(rows, dtype=torch.float32)
    assert Greedy().accept(tree, standardise(logits, Sampling())) == by_definition(tree, rows)
    assert Greedy().accept(tree, torch.softmax(logits, -1)) == by_definition(tree, rows)


@given(verified_trees())
def test_adding_a_node_never_lowers_what_greedy_accepts(case: tuple[DraftTree, list[list[int]]]) -> None:
    tree, rows = case
    probs = torch.tensor(rows, dtype=torch.float32)
    accepted = []
    for nodes in range(1, len(tree) + 1):
        topology = Topology(tree.topology.parents[:nodes], tree.topology.ranks[:nodes])
        accepted.append(Greedy().accept(DraftTree(topology, tree.token_list()[:nodes]), probs[:nodes]).nodes)
    assert all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(accepted))


@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_an_example_by_hand(kind: type) -> None:
    tree = DraftTree(Topology([-1, 0, 0, 2, 2, 4]), kind([0, 1, 2, 3, 4, 5]))
    probs = torch.eye(VOCAB)[[2, 0, 4, 0, 1, 0]]
    assert Greedy().accept(tree, probs) == Accepted([2, 4], [2, 4], 1)
    assert Greedy().accept(tree, torch.eye(VOCAB)[[3, 0, 4, 0, 1, 0]]) == Accepted([], [], 3)
    assert Greedy().accept(tree, torch.eye(VOCAB)[[2, 0, 4, 0, 5, 0]]) == Accepted([2, 4, 5], [2, 4, 5], 0)


def test_a_bare_root_gives_the_bonus_token_only() -> None:
    assert Greedy().accept(DraftTree(Topology([-1]), [3]), torch.eye(VOCAB)[[5]]) == Accepted([], [], 5)


def test_the_decision_is_in_plain_integers() -> None:
    accepted = Greedy().accept(DraftTree(Topology([-1, 0]), torch.tensor([0, 1])), torch.eye(VOCAB)[[1, 2]])
    assert [type(x) for x in (*accepted.nodes, *accepted.tokens, accepted.bonus)] == [int] * 3


def test_greedy_is_registered_as_lossless() -> None:
    assert registry()["greedy"] is Greedy
    assert Greedy.lossless


def test_the_greedy_distribution_is_one_hot_at_the_lowest_id_of_the_best() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0], [-1.0, -3.0, -1.0], [-0.0, 0.0, -1.0]])
    assert standardise(logits, Sampling()).tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]


SAMPLED = {kind: rule() for kind, rule in registry().items() if kind != "greedy"}
TARGET = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
DRAFT = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)


def seeded(seed: int = 0) -> RandomSource:
    return RandomSource(torch.Generator().manual_seed(seed))


def random_probs(rows: int, vocab: int = VOCAB, seed: int = 0) -> torch.Tensor:
    return (2 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).softmax(
        -1
    )


def test_every_rule_of_the_contract_has_its_config() -> None:
    kinds = {
        "greedy",
        "rejection",
        "recursive",
        "no_replacement",
        "kseq",
        "membership",
        "topk",
        "block",
        "traversal",
        "typical",
    }
    assert set(registry()) == kinds == {path.stem for path in (bundled_config_dir() / "acceptance").iterdir()}
    for kind in kinds:
        rule = load_group("acceptance", kind, registry())
        assert isinstance(rule, AcceptanceRule)
        assert rule == registry()[kind]()
        rule.check()


def test_what_fits_where() -> None:
    for kind, rule in ((kind, rule()) for kind, rule in registry().items()):
        assert (rule.misfit(Sampling(0.7), chain=True) is None) == (kind != "greedy")
        assert (rule.misfit(Sampling(), chain=False) is None) == (kind not in ("rejection", "block"))
        assert rule.lossless == (kind != "typical")


@pytest.mark.parametrize("kind", SAMPLED)
def test_a_rule_says_what_it_needs(kind: str) -> None:
    rule, tree = SAMPLED[kind], DraftTree(Topology([-1, 0]), [0, 1])
    if rule.needs_draft_probs:
        with pytest.raises(ConfigError, match=f"acceptance={kind} needs the drafter's probabilities"):
            rule.accept(tree, random_probs(2), None, seeded())
    else:
        rule.accept(tree, random_probs(2), None, seeded())
    with pytest.raises(ConfigError, match="randomness"):
        rule.accept(tree, random_probs(2), random_probs(2, seed=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SAMPLED)
def test_rows_of_leaves_are_not_used_and_the_decision_is_in_plain_integers(kind: str, dtype: torch.dtype) -> None:
    rule = SAMPLED[kind]
    tree = DraftTree(
        Topology([-1, 0, 1] if rule.chain_only else [-1, 0, 0, 1, 1]),
        torch.tensor([0, 1, 2, 3, 4][: 3 if rule.chain_only else 5]),
    )
    target_probs, draft_probs = random_probs(len(tree)).to(dtype), random_probs(len(tree), seed=1).to(dtype)
    found = [rule.accept(tree, target_probs, draft_probs, seeded(seed)) for seed in range(30)]
    draft_probs[[not kids for kids in tree.topology.children]] = torch.nan
    assert found == [rule.accept(tree, target_probs, draft_probs, seeded(seed)) for seed in range(30)]
    assert {type(x) for accepted in found for x in (*accepted.nodes, *accepted.tokens, accepted.bonus)} == {int}
    assert all(accepted.tokens == [tree.token_list()[node] for node in accepted.nodes] for accepted in found)


class Flips(RandomSource):
    """Keeps what it said."""

    def __init__(self, seed: int) -> None:
        super().__init__(torch.Generator().manual_seed(seed))
        self.said: list[tuple[float, bool]] = []

    def flips(self, chances: torch.Tensor, asking: Asking) -> torch.Tensor:
        taken = super().flips(chances, asking)
        asking(lambda node: self.said.append((float(chances[node]), bool(taken[node]))) or self.said[-1][1])  # type: ignore[func-returns-value]
        return taken


@pytest.mark.parametrize("kind", SAMPLED)
def test_what_was_tried_is_every_flip_with_its_node(kind: str) -> None:
    rule = SAMPLED[kind]
    topology = Topology([-1, 0, 1, 2] if rule.chain_only else [-1, 0, 0, 1, 1, 2, 3])
    tree = DraftTree(topology, torch.tensor([0, 1, 2, 3, 4, 5, 0][: len(topology)]))
    target_probs, draft_probs = random_probs(len(tree)), random_probs(len(tree), seed=1)
    chance = rule.judge(tree, target_probs, draft_probs).accept.tolist() if isinstance(rule, Judging) else []
    for seed in range(20):
        accepted = rule.accept(tree, target_probs, draft_probs, source := Flips(seed))
        assert [(trial.chance, trial.taken) for trial in accepted.tried] == source.said
        assert [trial.chance for trial in accepted.tried] == pytest.approx([chance[t.node] for t in accepted.tried])
        taken = [trial.node for trial in accepted.tried if trial.taken]
        if isinstance(rule, Judging) and rule.leaves_first:
            order = [node for node, entering in tour(topology) if node and not entering]
            assert [trial.node for trial in accepted.tried] == order[: len(accepted.tried)]
            assert taken == accepted.nodes[-1:]
        else:
            assert taken == accepted.nodes
            tried = {trial.node for trial in accepted.tried}
            assert tried <= {child for node in [0, *taken] for child in topology.children[node]}
    assert bool(source.said) == isinstance(rule, Judging)


@given(topologies(max_nodes=10), st.data())
def test_the_device_finds_where_the_walk_ends(topology: Topology, data: st.DataObject) -> None:
    taken = data.draw(st.lists(st.booleans(), min_size=len(topology), max_size=len(topology)))
    for walk, end in ((walk_down, end_downwards), (walk_up, end_upwards)):
        nodes = walk(topology, lambda node: taken[node]).nodes
        assert end(topology, torch.tensor(taken)).tolist() == [nodes[-1] if nodes else 0]


@pytest.mark.parametrize("kind", SAMPLED)
def test_a_bare_root_draws_its_bonus_token_from_the_target(kind: str) -> None:
    bare = DraftTree(Topology([-1]), [3])
    bonus = [SAMPLED[kind].accept(bare, TARGET[None], torch.zeros(1, 3), seeded(seed)).bonus for seed in range(300)]
    assert torch.allclose(torch.tensor(bonus).bincount(minlength=3) / 300, TARGET.float(), atol=0.1)


def judged(rule: Judging, tokens: list[int]) -> tuple[list[float], list[float]]:
    """Siblings below the root: P(accepted) of each, and the normalised residual of the root."""
    tree = DraftTree(Topology([-1] + [0] * len(tokens)), [0, *tokens])
    accept, residual = rule.judge(tree, TARGET.expand(len(tree), 3), DRAFT.expand(len(tree), 3))
    assert torch.equal(residual[1:], TARGET.expand(len(tokens), 3))
    return accept[1:].tolist(), (residual[0] / residual[0].sum()).tolist()


def test_siblings_by_hand() -> None:
    assert judged(Recursive(), [0, 1]) == (pytest.approx([1 / 3, 1.0]), pytest.approx([0, 1 / 3, 2 / 3], abs=1e-9))
    assert judged(NoReplacement(), [0, 1]) == (pytest.approx([1 / 3, 0.5 / 0.75]), pytest.approx([0, 0, 1], abs=1e-9))
    assert judged(Membership(), [0, 1]) == (pytest.approx([0.2, 0.5 / 0.8]), pytest.approx([0, 0, 1]))
    assert judged(TopK(), [2, 0]) == (pytest.approx([0.3, 0.2 / 0.7]), pytest.approx([0, 1, 0]))


def test_a_duplicate_sibling_is_a_trial() -> None:
    assert judged(Recursive(), [0, 0])[0] == pytest.approx([1 / 3, 0])
    assert judged(Membership(), [0, 0])[0] == pytest.approx([0.2, 0])
    once, again = judged(KSeq(), [0, 0])[0]
    assert 0 < once == again
    assert judged(Traversal(), [0, 0])[0] == pytest.approx([1 / 3, 0])
    assert judged(Recursive(), [0, 0, 1]) == (pytest.approx([1 / 3, 0, 1.0]), judged(Recursive(), [0, 1, 1])[1])


def test_kseq_solves_its_equation() -> None:
    target, draft = random_probs(40), random_probs(40, seed=1)
    record = KSeq().record(target, draft, torch.arange(40) % VOCAB, 7, NO_SOURCE)
    for count in range(1, 8):
        rho, beta = record["rho"][:, count - 1], record["beta"][:, count - 1]
        assert torch.allclose(beta, torch.minimum(target / rho[:, None], draft).sum(-1), atol=1e-12)
        assert torch.allclose(1 - (1 - beta) ** count, rho * beta, atol=1e-12)
        assert ((rho >= 1) & (rho <= count)).all()
        pi = (1 - beta[:, None]) ** torch.arange(count) * torch.minimum(1 / rho, record["ratio"])[:, None]
        assert torch.allclose(law_of_record(KSeq(), record, count), pi, atol=1e-12)


@given(st.integers(0, 6), st.integers(0, 2**31))
def test_traversal_is_block_verification_on_a_chain(nodes: int, seed: int) -> None:
    draft_probs = random_probs(nodes + 1, seed=seed)
    tree = DraftTree(
        Topology(range(-1, nodes)),
        [0, *draw_children(draft_probs[:nodes], 1, "iid", seeded(seed))[0][:, 0]] if nodes else [0],
    )
    target_probs = random_probs(nodes + 1, seed=seed + 1)
    block, traversal = (rule.judge(tree, target_probs, draft_probs) for rule in (Block(), Traversal()))
    assert torch.allclose(block.accept, traversal.accept, atol=1e-9)
    reachable = block.residual.sum(-1) > 1e-9
    normal = [(rows / rows.sum(-1, keepdim=True))[reachable] for rows in (block.residual, traversal.residual)]
    assert torch.allclose(*normal, atol=1e-9)


@pytest.mark.parametrize("kind", SAMPLED)
def test_a_record_has_the_arrays_that_its_rule_declares(kind: str) -> None:
    rule, given = SAMPLED[kind], (random_probs(50), random_probs(50, seed=1), torch.arange(50) % VOCAB)
    assert bool(rule.arrays) == (rule.replay == "record")
    if by_node(rule):
        follower = rule.follow(tree := Topology([-1, 0, 0, 1]), 2, 26)
        target, draft = (probs.view(2, 25, VOCAB) for probs in given[:2])
        follower.take(1, target, lambda depth: draft, given[2].view(2, 25))
        assert {name: values.shape for name, values in follower.record().items()} == {
            name: (2, 26, len(tree)) for name in rule.arrays
        }
    elif rule.replay == "record":
        shapes = {"position": (50,), "child": (50, 4)}
        record = rule.record(*given, 4, seeded())
        assert {name: values.shape for name, values in record.items()} == {
            name: shapes[per] for name, per in rule.arrays.items()
        }
        assert {values.dtype for values in record.values()} == {torch.float64}
    else:
        with pytest.raises(NotImplementedError, match=f"{kind} keeps no record"):
            rule.record(*given, 4, seeded())


def law(kind: str, target: torch.Tensor, draft: torch.Tensor, tokens: torch.Tensor, count: int) -> torch.Tensor:
    rule = SAMPLED[kind]
    if rule.replay == "rank":
        return law_by_rank(draft, tokens, count)
    return law_of_record(rule, rule.record(target, draft, tokens, count, seeded()), count)


@pytest.mark.parametrize(
    "kind", [kind for kind, rule in SAMPLED.items() if rule.replay == "rank" or "pi" in rule.arrays]
)
def test_pi_is_a_probability_at_each_position(kind: str) -> None:
    target, draft, tokens = random_probs(50), random_probs(50, seed=1), torch.arange(50) % VOCAB
    most, fewer = (1, 1) if SAMPLED[kind].chain_only else (4, 2)
    pi = law(kind, target, draft, tokens, most)
    assert pi.shape == (50, most)
    assert pi.dtype == torch.float64
    assert (pi >= 0).all()
    assert (pi.sum(-1) < 1 + 1e-12).all()
    if kind != "no_replacement":
        assert torch.allclose(pi[:, :fewer], law(kind, target, draft, tokens, fewer), atol=1e-12)
        assert torch.allclose(pi[7:8], law(kind, target[7:8], draft[7:8], tokens[7:8], most), atol=1e-12)
    assert torch.allclose(pi[:, :1], law(kind, target, draft, tokens, 1), atol=1e-12)


def test_pi_without_draft_mass_is_zero() -> None:
    target, draft = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.0, 0.5, 0.5]])
    for kind in ("no_replacement", "recursive", "kseq"):
        assert law(kind, target, draft, torch.tensor([0]), 4).tolist() == [[0, 0, 0, 0]]


def test_typical_by_hand() -> None:
    rule = Typical(epsilon=0.25, delta=1.0)
    tree = DraftTree(Topology([-1, 0, 0, 1, 2, 2]), [0, 0, 1, 2, 1, 2])
    flat = torch.tensor([0.2, 0.5, 0.3])  # its threshold is 0.25: token 0 does not pass
    assert rule.accept(tree, flat.expand(6, 3), None, seeded())[:2] == ([2, 4], [1, 1])
    other = DraftTree(tree.topology, [0, 0, 1, 2, 2, 1])  # the more probable of equally long paths, whichever is first
    assert rule.accept(other, flat.expand(6, 3), None, seeded())[:2] == ([2, 5], [1, 1])
    certain = torch.tensor([[0.98, 0.01, 0.01]])
    assert rule.accept(tree, certain.expand(6, 3), None, seeded())[:2] == ([1], [0])


@pytest.mark.parametrize(
    ("epsilon", "delta", "passing"),
    [
        (0.3, 1.0, {1}),  # more than epsilon, not as much
        (0.29, 1.0, {1, 2}),  # the smaller one of epsilon and delta exp(-H) = 0.357: H in nats
        (1.0, 1.0, {1}),
        (1.0, 0.83, {1, 2}),  # 0.296
        (1.0, 0.5, {0, 1, 2}),  # 0.179
        (0.2, 0.57, {1, 2}),  # 0.2, and 0.2036
    ],
)
def test_the_threshold_of_typical_acceptance(epsilon: float, delta: float, passing: set[int]) -> None:
    rule = Typical(epsilon=epsilon, delta=delta)
    for token in range(3):
        tree = DraftTree(Topology([-1, 0]), [0, token])
        accepted = rule.accept(tree, TARGET.expand(2, 3), None, seeded()).tokens
        assert accepted == [token] * (token in passing), token


@pytest.mark.parametrize(
    ("rule", "key"),
    [(Typical(epsilon=0), "epsilon=0"), (Typical(delta=-1), "delta=-1"), (Typical(epsilon=float("nan")), "epsilon")],
)
def test_parameters_out_of_range(rule: Typical, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        rule.check()


@pytest.mark.parametrize("kind", [kind for kind, rule in SAMPLED.items() if rule.lossless])
def test_with_real_random_numbers_in_float32(kind: str) -> None:
    rule, source, steps = SAMPLED[kind], seeded(1), 1500
    target, draft = random_probs(1, 4).float(), random_probs(1, 4, seed=3).float()
    seen = torch.zeros(4)
    for _ in range(steps):
        children = torch.tensor([[1, 3, 0]]) if rule.draw == "rank" else draw_children(draft, 3, rule.draw, source)[0]
        tokens = children[0, : 1 if rule.chain_only else 3]
        tree = DraftTree(Topology([-1] + [0] * len(tokens)), [0, *tokens.tolist()])
        accepted = rule.accept(tree, target.expand(len(tree), 4), draft.expand(len(tree), 4), source)
        seen[(*accepted.tokens, accepted.bonus)[0]] += 1
    expected = target[0] * steps
    assert ((seen - expected) ** 2 / expected).sum() < 16.27  # chi-square, 3 degrees of freedom, p = 0.001


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("kind", [kind for kind, rule in SAMPLED.items() if isinstance(rule, Judging)])
def test_judging_does_not_wait_for_the_device(kind: str) -> None:
    rule = SAMPLED[kind]
    topology = Topology([-1, 0, 1, 2] if rule.chain_only else [-1, 0, 0, 1, 1, 4])
    probs = random_probs(len(topology)), random_probs(len(topology), seed=1)
    expected = rule.judge(DraftTree(topology, torch.arange(len(topology))), *probs)
    tree, on_device = DraftTree(topology, torch.arange(len(topology)).cuda()), [rows.cuda() for rows in probs]
    try:
        torch.cuda.set_sync_debug_mode("error")
        found = rule.judge(tree, *on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.allclose(theirs.cpu(), ours) for theirs, ours in zip(found, expected, strict=True))


def test_a_rule_s_label_names_the_parameters_that_were_changed() -> None:
    assert (registry()["typical"]().label, registry()["greedy"]().label) == ("typical", "greedy")
    assert Typical(epsilon=0.05).label == "typical-epsilon0.05"
