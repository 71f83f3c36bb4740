"""Live text of a real pair against its target: what `specdraft certify` and `certify=true` decode.

Greedy text is compared with that of `transformers`' own `generate`. Of sampled text the first tokens are counted, each
text with a seed of its own, and compared with the target's own law of them, which comes from forwards without a cache
and without a tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from specdraft.acceptance import AcceptanceRule
from specdraft.decoding.decode import decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.text_seeds import text_generator
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Prefilled
from specdraft.drafters.pair import Pair
from specdraft.errors import LosslessnessError
from specdraft.losslessness.enumeration import says
from specdraft.losslessness.ties import compare_greedy
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.sampling.randomness import Asking, RandomSource, Source
from specdraft.trees.shapes import Plan, Shape
from specdraft.trees.shapes.chain import Chain

TEXTS = 200  # sampled texts for each rule and prompt
LEVEL = 0.001  # of all tests of a run together
FEWEST = 5  # texts that a cell must expect
FEWEST_CELLS = 3  # with fewer, hardly any other law would be found
MOST_TEXTS = 1_000_000  # no number of texts beyond it is named
SHARED = 4  # a cell that rare tokens share expects so many times as many
TESTED_TOKENS = 2  # after the prefill's token
CERTAIN = 1 - 1e-9  # of the only text that there is: any other would be a surprise
IMPOSSIBLE = 1e-4  # expected texts: what then occurs at all is a surprise

Prefix = tuple[int, ...]


class Case(NamedTuple):
    """What is decoded to check a rule.

    Attributes:
        tree: for people.
        drawn: with which temperatures the drafter draws.
        stands_in: a chain in place of a tree that only traces tell: its rule is what is checked.
    """

    tree: str
    plan: Plan
    rule: AcceptanceRule
    sampling: Sampling
    max_new_tokens: int
    drawn: Drawn = AS_TARGET
    stands_in: bool = False

    @classmethod
    def of(
        cls,
        shape: Shape,
        node_budget: int,
        rule: AcceptanceRule,
        sampling: Sampling,
        max_new_tokens: int,
        drawn: Drawn = AS_TARGET,
    ) -> Case:
        """The shape's tree, or what stands in for a fitted one."""
        if shape.fitted:
            return cls("chain", Chain().at(4), rule, sampling, max_new_tokens, drawn, stands_in=True)
        plan: Plan = shape.at(node_budget)
        if plan.nested is not None and shape.fits_scores:
            plan = plan.nested.at_temperature(1.0)  # whatever ranks the nodes, the rule must be lossless
        if plan.nested is not None and plan.nested.predictor:
            plan = plan.nested.scored_by(None)
        return cls(shape.label, plan, rule, sampling, max_new_tokens, drawn)


def pick(candidates: Iterable[Case]) -> list[Case]:
    """One case for each rule and sampling setting: the smallest tree that branches, or else the smallest chain; what
    stands in for another tree only where there is nothing else."""
    grouped: dict[str, list[Case]] = {}
    for case in candidates:
        grouped.setdefault(repr((case.rule, case.sampling, case.drawn)), []).append(case)

    def order(case: Case) -> tuple[bool, bool, bool, int]:
        plan = case.plan
        return case.stands_in, plan.depth == plan.nodes, plan.depth < 2, plan.nodes

    return [min(cases, key=order) for cases in grouped.values()]


class ChiSquare(NamedTuple):
    """Live texts of one prompt against the target's own law of their first tokens.

    Attributes:
        texts: how many were decoded, each with a seed of its own.
        cells: beginnings of a text that are told apart.
        p: chance of a fit this bad from the right law.
        needed: texts that make enough cells; `texts` where these do, 0 where no number would.
        p_corrected: the same after Holm's correction for the number of tests.
    """

    prompt_id: str
    texts: int
    cells: int
    statistic: float
    p: float
    needed: int
    p_corrected: float = 1.0

    @property
    def tested(self) -> bool:
        """Another law could have been found."""
        return self.needed == self.texts


@dataclass
class Checked:
    """What live text of the pair says about one rule.

    Attributes:
        kind: `greedy` (compared with plain decoding) or `chi-square`.
        passed: nothing speaks against it.
        tests: one for each prompt.
        tested: something could have: some prompt's texts make enough cells.
    """

    pair: str
    rule: str
    tree: str
    sampling: str
    kind: str
    passed: bool
    verdict: str
    tests: list[dict[str, Any]]
    tested: bool = True


def check_live(
    pair: Pair,
    cases: Iterable[Case],
    prompts: Mapping[str, Sequence[int]],
    texts: int,
    seed: int,
    done: Callable[[str], None],
) -> list[Checked]:
    """Decode live and compare with the target: its own greedy text, or its own law where text is sampled.

    Args:
        pair: what is decoded.
        cases: see `pick`.
        prompts: prompt id -> token ids.
        texts: sampled texts for each rule and prompt.
        seed: of the texts.
        done: called with a line of text after each case.
    """
    checks: dict[int, Checked] = {}
    sampled: list[tuple[int, Case, list[ChiSquare]]] = []
    for index, case in enumerate(cases):
        if case.sampling.greedy:
            checks[index] = compare_with_plain(pair, case, prompts)
        else:
            sampled.append(
                (index, case, [chi_square(pair, case, name, ids, texts, seed) for name, ids in prompts.items()])
            )
        done(f"decoded live: {pair.name} {case.rule.kind} on {case.tree}")
    corrected = iter(holm([test.p for _, _, tests in sampled for test in tests]))
    for index, case, tests in sampled:
        checks[index] = _judged(pair, case, [test._replace(p_corrected=next(corrected)) for test in tests])
    return [checks[index] for index in range(len(checks))]


def compare_with_plain(pair: Pair, case: Case, prompts: Mapping[str, Sequence[int]]) -> Checked:
    """Greedy text of every prompt against what `transformers` makes of it with the target alone."""
    ending, tests = Ending(case.max_new_tokens, pair.eos_ids), list[dict[str, Any]]()
    for name, ids in prompts.items():
        verifier, source = Verifier.of(pair), _source(pair, case, ids)
        plain = pair.target.generate(ids, case.max_new_tokens, pair.eos_ids)
        text = decode(verifier, pair.drafter, case.plan, case.rule, case.sampling, list(ids), ending, source).finish()
        test: dict[str, Any] = {"prompt_id": name, "tokens": len(plain), "tie": None, "bug": None}
        try:
            test["tie"] = compare_greedy(pair.target, pair.target_check, ids, plain, text.tokens)
        except LosslessnessError as error:
            test["bug"] = str(error)
        tests.append(test)
    bugs, ties = [test for test in tests if test["bug"]], [test["tie"] for test in tests if test["tie"]]
    same = len(tests) - len(bugs) - len(ties)
    verdict = f"the text of {same} of {len(tests)} prompts is that of transformers' own greedy decoding"
    if ties:
        verdict += (
            f"; {len(ties)} differ at a near-tie (largest gap of the two best logits "
            f"{max(tie['gap'] for tie in ties):.1e})"
        )
    if bugs:
        verdict += f"; NOT lossless: prompt {bugs[0]['prompt_id']}: {bugs[0]['bug']}"
    return Checked(pair.label, case.rule.kind, case.tree, says(case.sampling), "greedy", not bugs, verdict, tests)


def _source(pair: Pair, case: Case, ids: Sequence[int], *more: object) -> RandomSource:
    decides = (case.rule.kind, case.tree, *map(str, more), *([case.drawn.label] if case.drawn.temperatures else []))
    return RandomSource(text_generator(pair, case.sampling, ids, "certify", *decides))


def chi_square(pair: Pair, case: Case, name: str, ids: Sequence[int], texts: int, seed: int) -> ChiSquare:
    """Pearson's test of the first tokens after the prefill's, in every text the same: the most probable one that does
    not end it."""
    ids, eos, verifier = list(ids), pair.eos_ids, Verifier.of(pair)
    prompt = verifier.prefill(ids)
    pair.drafter.begin(Prefilled(ids, prompt.hidden))
    root = next(token for token in prompt.logits.argsort(descending=True).tolist() if token not in eos)
    length = max(1, min(TESTED_TOKENS, case.max_new_tokens - 1))

    def law_after(prefix: Prefix) -> torch.Tensor:
        return standardise(pair.target.after(ids, [root, *prefix]), case.sampling)

    cells = Cells(law_after, length, FEWEST / texts, eos)
    seen: Counter[Prefix] = Counter()
    ending = Ending(1 + length, eos)
    for text in range(texts):
        source = Opening(root, _source(pair, case, ids, seed, text))
        given = (verifier, pair.drafter, case.plan, case.rule, case.sampling, ids, ending, source)
        decoding = decode(*given, drawn=case.drawn, again=True)
        seen[cells.of(decoding.finish().tokens[1:])] += 1
    count, statistic, p = fit([(texts * chance, seen[cell]) for cell, chance in cells.chances.items()])
    certain = max(cells.chances.values()) > CERTAIN
    needed = texts if certain or count >= FEWEST_CELLS else texts_needed(law_after(()), texts)
    return ChiSquare(name, texts, count, statistic, p, needed)


def texts_needed(law: torch.Tensor, texts: int) -> int:
    """How many texts, more than these, make enough cells of their first token alone; 0 where no number does."""
    while texts < MOST_TEXTS:
        texts = -(-texts * 5 // 40) * 10  # a quarter more, in tens
        chances = Cells(lambda prefix: law, 1, FEWEST / texts, ()).chances.values()
        if len(pooled((texts * chance, 0) for chance in chances)[0]) >= FEWEST_CELLS:
            return texts
    return 0


def fit(counts: Sequence[tuple[float, int]]) -> tuple[int, float, float]:
    """Pearson's chi-square of (expected, observed) counts: cells, statistic, p."""
    expected, observed = pooled(counts)
    statistic = float(np.sum((observed - expected) ** 2 / expected))
    p = float(stats.chi2.sf(statistic, len(expected) - 1)) if len(expected) > 1 else 1.0
    surprise = min((chance for chance, times in counts if times and chance < IMPOSSIBLE), default=1.0)
    return len(expected), statistic, min(p, surprise)


class Cells:
    """What a text may begin with, in cells of known probability.

    A token that is probable enough is told apart, and so is what follows it; the rare ones share cells with those
    about as probable as they are. A cell is named by its tokens, the last of them negative where rare ones share it.

    Args:
        law_after: `[vocab]` the target's law of the next token after a beginning.
        length: tokens at most.
        least: beginnings less probable than this are rare.
        eos_ids: a text ends with these.

    Attributes:
        chances: each cell's probability.
    """

    def __init__(
        self, law_after: Callable[[Prefix], torch.Tensor], length: int, least: float, eos_ids: Iterable[int]
    ) -> None:
        self.chances: dict[Prefix, float] = {}
        self._names: dict[Prefix, list[int]] = {}
        going: list[tuple[Prefix, float]] = [((), 1.0)]
        while going:
            prefix, mass = going.pop()
            chances = law_after(prefix).double().cpu() * mass
            ordered, order = chances.sort(descending=True, stable=True)
            groups = -1 - ((ordered.cumsum(0) - ordered) / (SHARED * least)).long()
            names = torch.empty_like(order).scatter_(0, order, torch.where(ordered >= least, order, groups))
            self._names[prefix] = names.tolist()
            for name in sorted(set(names.tolist())):
                cell, chance = (*prefix, name), float(chances[names == name].sum())
                if name >= 0 and len(cell) < length and name not in eos_ids:
                    going.append((cell, chance))
                else:
                    self.chances[cell] = chance

    def of(self, tokens: Sequence[int]) -> Prefix:
        """The cell that a text is in."""
        cell: Prefix = ()
        for token in tokens:
            cell = (*cell, self._names[cell][token])
            if cell in self.chances:
                break
        return cell


def pooled(counts: Iterable[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Expected and observed counts; cells that expect fewer than `FEWEST` are put together with the next larger
    ones."""
    merged, waiting = list[tuple[float, float]](), (0.0, 0.0)
    for expected, observed in sorted(counts):
        waiting = waiting[0] + expected, waiting[1] + observed
        if waiting[0] >= FEWEST:
            merged.append(waiting)
            waiting = 0.0, 0.0
    if waiting != (0.0, 0.0):
        merged[-1:] = [(merged[-1][0] + waiting[0], merged[-1][1] + waiting[1])]
    both = np.array(merged, dtype=float)
    return both[:, 0], both[:, 1]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) corrected p-values: how likely any of the tests would come out so from chance alone."""
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _judged(pair: Pair, case: Case, tests: list[ChiSquare]) -> Checked:
    worst = min(tests, key=lambda test: test.p_corrected)
    passed, tested = worst.p_corrected >= LEVEL, [test for test in tests if test.tested]
    what = f"{sum(test.texts for test in tests)} texts on {len(tests)} prompts"
    smallest = f"chi-square, smallest p {worst.p_corrected:.2g} after Holm's correction"
    if not passed:
        verdict = f"NOT lossless: {what} do not follow the target's own law ({smallest}, on prompt {worst.prompt_id})"
    elif not tested:
        verdict = f"not tested: {what} are too few to tell laws apart ({_what_would_do(tests)})"
    else:
        what = f"{sum(test.texts for test in tested)} texts on {len(tested)} prompts"
        verdict = f"{what} follow the target's own law ({smallest})"
        if few := len(tests) - len(tested):
            verdict += f"; not tested on {few} more (too few cells)"
    details = [test._asdict() for test in tests]
    named = (pair.label, case.rule.kind, case.tree, says(case.sampling, case.drawn))
    return Checked(*named, "chi-square", passed, verdict, details, bool(tested))


def _what_would_do(tests: list[ChiSquare]) -> str:
    most, needed = max(test.cells for test in tests), [test.needed for test in tests if test.needed]
    cells = f"{most} cell{'s' if most > 1 else ''} of {FEWEST} expected texts or more, {FEWEST_CELLS} are needed"
    return f"{cells}: --texts {min(needed)} would do" if needed else f"{cells}: no number of texts would do"


class Opening:
    """A source whose first draw is given: every text begins with the same token."""

    def __init__(self, token: int, source: Source) -> None:
        self._token: int | None = token
        self._source = source

    def choose(self, weights: torch.Tensor) -> torch.Tensor:
        """See `Source.choose`."""
        if self._token is None:
            return self._source.choose(weights)
        token, self._token = self._token, None
        return torch.tensor([token], device=weights.device)

    def flips(self, chances: torch.Tensor, asking: Asking) -> torch.Tensor:
        """See `Source.flips`."""
        return self._source.flips(chances, asking)
