"""Proof by enumeration that an acceptance rule keeps the target's law.

A small world has a random target and draft over a few tokens. One verification step runs through the very
functions that decoding calls, `draw_children` and the rule's `accept`, with a source of randomness that
goes through every outcome. The law of the emitted tokens, continued by the target, must then equal the
target's own. That is exact up to rounding, not a test on samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any, NamedTuple, TypeVar

import torch

from specdraft.acceptance import AcceptanceRule
from specdraft.acceptance.base import Accepted
from specdraft.acceptance.judging import Judged, Judging
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.sampling.randomness import Asking, Source, draw_children, seeded
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes.base import breadth_first
from specdraft.trees.topology import RankPath, Topology

Outcome = TypeVar("Outcome")
Prefix = tuple[int, ...]
Law = dict[Prefix, float]

EXACT = 1e-9  # total variation that rounding explains
PLAIN = Sampling(1.0)
TRUNCATED = Sampling(0.8, top_k=3, top_p=0.8)
ENUMERATED = ((PLAIN, AS_TARGET), (TRUNCATED, AS_TARGET))  # what the proof samples with, the target and the drafter
BY_DEPTH = ((PLAIN, Drawn.of([1.4, 0.6], PLAIN)), (TRUNCATED, Drawn.of([0, 1.2], TRUNCATED)))


class EnumeratingSource:
    """Answers as `forced` says, then always with the first possible answer, and keeps what else was possible."""

    def __init__(self, forced: list[int]) -> None:
        self._forced = forced
        self.taken: list[int] = []
        self.open: list[list[int]] = []  # at each question the possible answers after the one taken
        self.probability = 1.0

    def _answer(self, probabilities: list[float]) -> int:
        possible = [i for i, p in enumerate(probabilities) if p > 0] or [0]
        asked = len(self.taken)
        answer = self._forced[asked] if asked < len(self._forced) else possible[0]
        self.taken.append(answer)
        self.open.append([i for i in possible if i > answer])
        self.probability *= probabilities[answer] if sum(probabilities) else 1.0
        return answer

    def choose(self, weights: torch.Tensor) -> torch.Tensor:
        """See `Source.choose`."""
        rows = (weights.double() / weights.double().sum(-1, keepdim=True).clamp(min=1e-300)).tolist()
        return torch.tensor([self._answer(row) for row in rows], device=weights.device)

    def flips(self, chances: torch.Tensor, asking: Asking) -> torch.Tensor:
        """See `Source.flips`. Only coins that are asked for have more than one answer."""
        chance = chances.tolist()
        said = [False] * len(chance)

        def flip(coin: int) -> bool:
            said[coin] = self._answer([1 - chance[coin], chance[coin]]) == 1
            return said[coin]

        asking(flip)
        return torch.tensor(said, device=chances.device)


def outcomes(
    experiment: Callable[[EnumeratingSource], Outcome], kind: type[EnumeratingSource] = EnumeratingSource
) -> Iterator[tuple[Outcome, float]]:
    """Every outcome of an experiment with its probability, depth first: one run for each path of answers."""
    forced: list[int] | None = []
    while forced is not None:
        source = kind(forced)
        outcome = experiment(source)
        yield outcome, source.probability
        last = next((i for i in reversed(range(len(source.open))) if source.open[i]), None)
        forced = None if last is None else [*source.taken[:last], source.open[last][0]]


class World:
    """A random autoregressive target and draft over a few tokens: one row of logits after each prefix.

    Args:
        vocab: how many tokens there are.
        seed: of the logits.
        likeness: how much of the target is in the draft; at 1 they are equal.
    """

    def __init__(self, vocab: int, seed: int = 0, likeness: float = 0.5) -> None:
        self.vocab, self._seed, self._likeness = vocab, seed, likeness
        self.target, self.draft, self.scores = cache(self._target), cache(self._draft), cache(self._scores)

    def _logits(self, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        generator = seeded("world", self._seed, *prefix)
        target, other = 1.5 * torch.randn(2, self.vocab, generator=generator, dtype=torch.float64)
        return target, self._likeness * target + (1 - self._likeness) * other

    def _target(self, prefix: Prefix, sampling: tuple[float, int, float]) -> torch.Tensor:
        return standardise(self._logits(prefix)[0], Sampling(*sampling))

    def _scores(self, prefix: Prefix) -> torch.Tensor:
        return self._logits(prefix)[1]

    def _draft(self, prefix: Prefix, sampling: tuple[float, int, float]) -> torch.Tensor:
        return standardise(self._logits(prefix)[1], Sampling(*sampling))


def key(sampling: Sampling) -> tuple[float, int, float]:
    """A setting as something that can be hashed."""
    return sampling.temperature, sampling.top_k, sampling.top_p


@dataclass(frozen=True)
class Step:
    """One verification step of a world.

    Attributes:
        target, drawn: the sampling setting of the text, and the one that children are drawn with.
        kept: which nodes of a drafted tree, whose tokens from the root are given too, are sent, the root first; None:
            all of them.
        by_depth: in what children at a depth are drawn otherwise than `drawn` says.
    """

    world: World
    topology: Topology
    rule: AcceptanceRule
    target: Sampling = field(default_factory=lambda: PLAIN)
    drawn: Sampling = field(default_factory=lambda: PLAIN)
    kept: Callable[[DraftTree, list[Prefix]], Sequence[int]] | None = None
    by_depth: Drawn = AS_TARGET

    def draft(self, source: Source) -> tuple[DraftTree, list[Prefix]]:
        """A tree drawn as the rule needs it, and each node's tokens from the root."""
        prefixes: dict[RankPath, Prefix] = {(): ()}
        for node, children in enumerate(self.topology.children):
            path = self.topology.paths[node]
            if children and path in prefixes:
                for rank, token in self.children(prefixes[path], children, source):
                    prefixes[*path, rank] = (*prefixes[path], token)
        paths = list(prefixes)[1:]
        tree = DraftTree.from_paths(paths, 0, [prefixes[path][-1] for path in paths])
        texts = [prefixes[path] for path in tree.topology.paths]
        if self.kept is None:
            return tree, texts
        nodes, tokens = self.kept(tree, texts), tree.token_list()
        part = DraftTree(tree.topology.part(nodes), [tokens[node] for node in nodes])
        return part, [texts[node] for node in nodes]

    def children(self, prefix: Prefix, children: list[int], source: Source) -> list[tuple[int, int]]:
        """Rank and token of each child that a node gets."""
        if self.rule.draw == "rank":
            order = self.world.scores(prefix).argsort(descending=True).tolist()
            ranks = [int(self.topology.ranks[child]) for child in children]
            return [(rank, order[rank]) for rank in ranks if rank < len(order)]
        probs = self._drawn_from(prefix)
        tokens, valid = draw_children(probs[None], len(children), self.rule.draw, source)
        return list(enumerate(tokens[0][valid[0]].tolist()))

    def probs(self, tree: DraftTree, prefixes: list[Prefix]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the rule is told: `[n + 1, vocab]` of the target and of the draft (0 at leaves)."""
        target_probs = torch.stack([self.world.target(prefix, key(self.target)) for prefix in prefixes])
        draft_probs = torch.zeros_like(target_probs)
        for node, prefix in enumerate(prefixes):
            if tree.topology.children[node]:
                draft_probs[node] = self._drawn_from(prefix)
        return target_probs, draft_probs

    def _drawn_from(self, prefix: Prefix) -> torch.Tensor:
        """What the children after these tokens are drawn from."""
        return self.world.draft(prefix, key(self.by_depth.at(len(prefix) + 1, self.drawn)))

    def together(self, source: Source) -> Accepted:
        """The whole step on one source."""
        tree, prefixes = self.draft(source)
        return self.rule.accept(tree, *self.probs(tree, prefixes), source)

    def outcomes(self) -> Iterator[tuple[DraftTree, Accepted, float]]:
        """The whole step: first every tree, then every decision on it."""
        for (tree, prefixes), drafted in outcomes(self.draft):
            accept, probs = judging_once(self.rule).accept, self.probs(tree, prefixes)
            for accepted, decided in outcomes(lambda source, a=accept, t=tree, p=probs: a(t, *p, source)):  # type: ignore[misc]
                yield tree, accepted, drafted * decided

    def law(self) -> Law:
        """Of the tokens that are emitted: the accepted ones, then the bonus token."""
        return emitted((accepted, chance) for _, accepted, chance in self.outcomes())

    def distance(self, law: Law | None = None) -> float:
        """Total variation between the text's law, continued by the target, and the target's own."""
        return distance(self.world, law or self.law(), self.target, self.topology.depth + 1)

    def reached(self) -> dict[RankPath, float]:
        """P(accepted) of each node."""
        chances: dict[RankPath, float] = defaultdict(float)
        for tree, accepted, chance in self.outcomes():
            for node in accepted.nodes:
                chances[tree.topology.paths[node]] += chance
        return chances

    def accepted_tokens(self) -> float:
        """Expected accepted tokens of the step."""
        return sum(self.reached().values())


def judging_once(rule: AcceptanceRule) -> AcceptanceRule:
    """The same rule for one tree: its judgement sees no randomness, so one call serves all outcomes."""
    if isinstance(rule, Judging):
        rule = copy(rule)
        judge, judged = rule.judge_any, list[Judged]()

        def once(*given: Any) -> Judged:
            if not judged:
                judged.append(judge(*given))
            return judged[0]

        rule.judge_any = once  # type: ignore[method-assign, assignment]
    return rule


def emitted(decisions: Iterable[tuple[Accepted, float]]) -> Law:
    """The law of the emitted tokens."""
    law: Law = defaultdict(float)
    for accepted, chance in decisions:
        law[*accepted.tokens, accepted.bonus] += chance
    return law


def distance(world: World, law: Law, sampling: Sampling, length: int) -> float:
    """Total variation between a law of texts, each continued by the target to `length` tokens, and the target's own."""

    @cache
    def mass(prefix: Prefix) -> float:
        return 1.0 if not prefix else mass(prefix[:-1]) * float(world.target(prefix[:-1], key(sampling))[prefix[-1]])

    continued_law: Law = defaultdict(float)
    for start, chance in law.items():
        for rest in product(range(world.vocab), repeat=length - len(start)):
            if mass(start):
                continued_law[start + rest] += chance * mass(start + rest) / mass(start)
            else:
                continued_law[start] += chance  # what the target never says
    texts = continued_law.keys() | set(product(range(world.vocab), repeat=length))
    return sum(abs(continued_law[text] - (mass(text) if len(text) == length else 0.0)) for text in texts) / 2


def shape(*factors: int) -> Topology:
    """Every node of depth d - 1 has `factors[d - 1]` children."""
    size = sum(torch.tensor(factors).cumprod(0).tolist())
    paths = breadth_first(iter([*factors, 0]))
    return Topology.from_paths([next(paths) for _ in range(size)])


FAMILIES: dict[str, dict[str, tuple[int, Topology]]] = {  # family -> tree -> tokens of its world, tree
    "chain": {"1": (4, shape(1)), "1-1-1": (3, shape(1, 1, 1))},
    "wide": {"3": (4, shape(3)), "4": (3, shape(4))},
    "k-ary": {"2-2": (3, shape(2, 2))},
    "mixed": {"1-3": (3, shape(1, 3)), "uneven": (3, Topology([-1, 0, 0, 2, 1, 2])), "2-2-1": (2, shape(2, 2, 1))},
    "by rank": {
        "skips a rank": (4, Topology([-1, 0, 0, 1, 1], [0, 0, 2, 1, 3])),
        "uneven, by rank": (4, Topology([-1, 0, 0, 0, 1, 1, 2])),
    },
}


def family(topology: Topology | None) -> str:
    """Which of the enumerated families a tree belongs to; None stands for dynamic and fitted trees."""
    if topology is None or not topology.sibling_closed:
        return "by rank"  # only the drafter's best children go with them
    if topology.is_chain:
        return "chain"
    if topology.depth == 1:
        return "wide"
    inner = {len(siblings) for siblings in topology.children if siblings}
    return "k-ary" if len(inner) == 1 else "mixed"


class Enumerated(NamedTuple):
    """One tree of one family, gone through completely."""

    family: str
    tree: str
    vocabulary: int
    sampling: str
    distance: float


class Proof(NamedTuple):
    """What enumeration says about a rule.

    Attributes:
        rule: its name.
        lossless: what the rule claims.
        enumerated: every case.
    """

    rule: str
    lossless: bool
    enumerated: list[Enumerated]

    @property
    def largest(self) -> float:
        """The largest total variation from the target's law."""
        return max(case.distance for case in self.enumerated)

    @property
    def exact(self) -> bool:
        """Whether every case is the target's law up to rounding."""
        return self.largest < EXACT

    @property
    def families(self) -> list[str]:
        """The families of trees that were enumerated."""
        return list(dict.fromkeys(case.family for case in self.enumerated))

    def verdict(self) -> str:
        """One line for people."""
        trees = ", ".join(self.families)
        if not self.lossless:
            return (
                f"lossy: the text's law is up to {self.largest:.2g} away from the target's (total variation; "
                f"trees: {trees})"
            )
        if self.exact:
            return f"proven by enumeration for these tree families: {trees} (largest distance {self.largest:.1e})"
        worst = max(self.enumerated, key=lambda case: case.distance)
        return (
            f"NOT lossless: {worst.distance:.2g} away from the target's law on {worst.family} tree "
            f"{worst.tree}, {worst.sampling}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "lossless": self.lossless and self.exact,
            "verdict": self.verdict(),
            "families": self.families,
            "largest_distance": self.largest,
            "limit": EXACT,
            "enumerated": [case._asdict() for case in self.enumerated],
        }


def prove(rule: AcceptanceRule, families: Iterable[str] | None = None, by_depth: bool = False) -> Proof:
    """Enumerate a rule on the small trees of these families (default: all that the rule fits), without and with
    truncation; `by_depth`: also with a drafter whose temperature is not the target's, and another one at each depth.

    A tree that a study decodes with is larger, and of the same build: every node is judged with the same code.
    A tree that differs from step to step is in each step one that depends on the drafter alone.
    """
    fitting = [name for name in FAMILIES if name == "chain" or not rule.chain_only]
    fitting = [name for name in fitting if name != "by rank" or rule.draw == "rank"]
    wanted = fitting if families is None else [name for name in fitting if name in set(families)]
    settings = [*ENUMERATED, *(BY_DEPTH if by_depth else ())]
    cases = [(name, tree, *setting) for name in wanted for tree in FAMILIES[name] for setting in settings]
    enumerated = [
        Enumerated(n, t, FAMILIES[n][t][0], says(s, d), enumerate_case(type(rule), _told(rule), n, t, key(s), d))
        for n, t, s, d in cases
    ]
    return Proof(rule.kind, rule.lossless, enumerated)


def _told(rule: AcceptanceRule) -> tuple[tuple[str, Any], ...]:
    """A rule's parameters as something that can be hashed."""
    return tuple(sorted(vars(rule).items()))


@cache
def enumerate_case(
    rule: type[AcceptanceRule],
    parameters: tuple[tuple[str, Any], ...],
    kin: str,
    tree: str,
    sampling: tuple[float, int, float],
    drawn: Drawn = AS_TARGET,
) -> float:
    """The distance of one case; a process goes through each case once."""
    (vocab, topology), setting = FAMILIES[kin][tree], Sampling(*sampling)
    return Step(World(vocab), topology, rule(**dict(parameters)), setting, setting, by_depth=drawn).distance()


def says(sampling: Sampling, drawn: Drawn = AS_TARGET) -> str:
    """A sampling setting for people."""
    parts = [f"temperature {sampling.temperature:g}"]
    parts += [f"top-k {sampling.top_k}"] if sampling.top_k else []
    parts += [f"top-p {sampling.top_p:g}"] if sampling.top_p < 1 else []
    parts += [f"draft temperature {drawn.label}"] if drawn.temperatures else []
    return "greedy" if sampling.greedy else ", ".join(parts)
