"""A file beside a study: which possibility explains a difference, each one planted; and when none does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import engine_files as files
from support.sides import USUAL, made_side, write_side

from specdraft.errors import ConfigError, ResultsError
from specdraft.exchange.explain import within
from specdraft.exchange.reading import METRICS
from specdraft.exchange.reconcile import Reconciled, reconcile
from specdraft.exchange.source import read_foreign
from specdraft.results.intervals import Interval
from specdraft.results.metrics import HELPERS, LATENCY, add_ratios
from specdraft.results.study_side import StudySide
from specdraft.results.summary import SUMS, summarise
from specdraft.results.tables import COMBINATION_KEYS
from specdraft.viewer.exchange_tables import answer


def steady_study(name: str, long: int = 10, rate: float = 1.5) -> StudySide:
    """400 texts of 10 steps or, every other one, of `long` steps, which accept twice as much; half the texts end
    without a bonus token."""
    rows: list[dict[str, Any]] = []
    for prompt in range(400):
        steps = (10, long)[prompt % 2]
        accepted = int(steps * rate * (2 if steps > 10 else 1)) + prompt % 3 - 1
        bonus = steps - prompt // 2 % 2
        counts = {"steps": steps, "drafted_tokens": 4 * steps, "accepted_tokens": accepted, "bonus_tokens": bonus}
        where = {"combination": "one", "tree": "chain", "prompt_id": str(prompt), "category": "c", "engine": "replay"}
        counts |= {"new_tokens": 1 + accepted + bonus}
        rows.append(dict.fromkeys((*SUMS, *HELPERS, LATENCY), 0.0) | USUAL | where | counts)
    table = pd.DataFrame(rows)
    manifest = {"study": {"name": name, "seed": 0, "prompts": "p"}, "prompts": 400}
    return StudySide(Path(name), name, summarise(table, COMBINATION_KEYS), add_ratios(table), manifest, {})


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_side(steady_study("steady"), tmp_path_factory.mktemp("steady") / "study")


def beside(tmp_path: Path, text: str, *folders: Path, row: tuple[str, ...] = ()) -> Reconciled:
    path = tmp_path / "theirs"
    path.write_text(text)
    return reconcile(read_foreign(path), folders, row)


def gauge(length: float, rate: float | None = None) -> str:
    """SGLang's figures, without counts."""
    named = {"length": length} | ({} if rate is None else {"rate": rate})
    return "".join(f"sglang:spec_accept_{name} {value:.5f}\n" for name, value in named.items())


def explains(found: Reconciled, metric: str = "block_efficiency") -> list[str]:
    return [one.what for one in found.possibilities if one.metric == metric and one.together]


DEFINITIONS: list[tuple[str, Callable[[pd.Series], float]]] = [
    ("the bonus token is not counted there", lambda row: row["accepted_tokens"] / row["steps"]),
    ("a bonus token is counted in every step", lambda row: 1 + row["accepted_tokens"] / row["steps"]),
    ("the bonus token is counted twice", lambda row: 1 + row["block_efficiency"]),
    ("each text's first token, of the prefill", lambda row: row["new_tokens"] / row["steps"]),
    ("the index of the last step, from 0", lambda row: (row["new_tokens"] - 400) / (row["steps"] - 400)),
]


@pytest.mark.parametrize(("what", "figure"), DEFINITIONS, ids=[what for what, _ in DEFINITIONS])
def test_a_definition_that_explains_is_found(
    tmp_path: Path, steady: Path, what: str, figure: Callable[[pd.Series], float]
) -> None:
    row = steady_study("steady").summary.iloc[0]
    found = beside(tmp_path, gauge(figure(row)), steady)
    (named,) = (one for one in found.comparison if one.metric == "block_efficiency")
    assert named.together is False
    assert [one.startswith(what) for one in explains(found)] == [True], explains(found)
    (line,) = answer(found)
    assert "they differ" in line and what in line


def test_the_same_figure_is_the_same(tmp_path: Path, steady: Path) -> None:
    row = steady_study("steady").summary.iloc[0]
    found = beside(tmp_path, gauge(row["block_efficiency"], row["acceptance_rate"]), steady)
    assert [one.together for one in found.comparison] == [True, True]
    assert all("the same within the interval" in line for line in answer(found))


def test_none_explains(tmp_path: Path, steady: Path) -> None:
    found = beside(tmp_path, gauge(1.9), steady)
    assert explains(found) == []
    assert "none of these explains it" in next(answer(found))
    assert any("chat template" in note for note in found.notes)


def test_a_mean_of_ratios_is_told_from_a_ratio_of_sums(tmp_path: Path) -> None:
    side = steady_study("uneven", long=90)
    folder, records = write_side(side, tmp_path / "study"), side.records
    assert records is not None
    each = records["block_efficiency"].mean()
    assert abs(each - side.summary.iloc[0]["block_efficiency"]) > 0.5
    found = beside(tmp_path, gauge(each), folder)
    assert explains(found) == ["the mean over prompts is given, not the ratio of sums"]
    counts = {"drafts": 10, "draft_tokens": 40, "accepted_tokens": 16}
    counted = "".join(f"vllm:spec_decode_num_{name} {count}\n" for name, count in counts.items())
    assert not any(one.what.startswith("the mean") for one in beside(tmp_path, counted, folder).possibilities)


def test_requests_are_averaged_on_both_sides(tmp_path: Path) -> None:
    """Few long requests weigh more in a ratio of sums; the means over requests agree."""
    folder = write_side(steady_study("steady"), tmp_path / "study")
    even = [files.aiperf_row([4, 2, 2, 2 + n % 2], 40 + 4 * (n % 2)) for n in range(20)]
    found = beside(tmp_path, files.lines(*even), folder)
    (both,) = (
        one for one in found.possibilities if one.what.startswith("the mean") and one.metric == "acceptance_length"
    )
    assert abs(both.theirs - np.mean([1.2, 15 / 11])) < 1e-9 and both.together is False


def test_another_row_explains_only_all_figures(tmp_path: Path) -> None:
    side = made_side("rows", {"chain": 0.3, "kary": 0.45}, prompts=60)
    folder = write_side(side, tmp_path / "study")
    kary = side.summary.set_index("tree").loc["kary"]
    both = beside(tmp_path, gauge(kary["block_efficiency"], kary["acceptance_rate"]), folder, row=("tree=chain",))
    assert {
        metric: "it is tree=kary" in explains(both, metric) for metric in ("block_efficiency", "acceptance_rate")
    } == {
        "block_efficiency": True,
        "acceptance_rate": True,
    }
    one = beside(tmp_path, gauge(kary["block_efficiency"], 0.9), folder, row=("tree=chain",))
    assert "it is tree=kary" not in explains(one)


def test_another_study_explains(tmp_path: Path) -> None:
    side, raw = made_side("mine", {"chain": 0.3}, prompts=60), made_side("raw", {"chain": 0.5}, prompts=60)
    ours, theirs = write_side(side, tmp_path / "mine"), write_side(raw, tmp_path / "raw")
    (ours / "config.yaml").write_text("name: mine\nprompts: {kind: bundled}\n")
    (theirs / "config.yaml").write_text("name: raw\nprompts: {kind: bundled, chat_template: none}\n")
    value = raw.summary.iloc[0]["block_efficiency"]
    found = beside(tmp_path, gauge(value), ours, theirs)
    assert [what for what in explains(found) if "raw" in what] == [f"as in {theirs}: prompts.chat_template=none"]
    with pytest.raises(ResultsError, match="the same folder"):
        beside(tmp_path, gauge(value), ours, Path(str(ours)))


def test_which_row_is_meant(tmp_path: Path, small_study: Path) -> None:
    several = beside(tmp_path, "[4, 2, 1]", small_study)
    assert several.row != "" and "tree=chain budget=2" in several.row  # it drafts up to 2 tokens
    assert any("the study's chain of that length is taken" in note for note in several.notes)
    open_still = beside(tmp_path, gauge(1.5), small_study)
    assert open_still.row == "" and len(open_still.matching) == 6 and open_still.possibilities == []
    assert any("6 rows match: say which one is meant (tree=... budget=...)" in note for note in open_still.notes)
    distances = [abs(possible[0].theirs - possible[0].ours.value) for possible in open_still.matching.values()]
    assert distances == sorted(distances)
    chosen = beside(tmp_path, gauge(1.5), small_study, row=("tree=kary", "budget=4"))
    assert chosen.positions is not None and len(chosen.positions) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("kary",), "'kary' is not KEY=VALUE"),
        (("tree=",), "'tree=' is not KEY=VALUE"),
        (("shape=kary",), "'shape' is no key of a study's rows"),
        (("tree=wide",), "tree=wide: no row of"),
        (("tree=chain", "budget=x"), "budget=x: no row of"),
        (("tree=chain", "budget=8"), "expected 2, 4"),
    ],
)
def test_a_row_that_is_not_there(tmp_path: Path, small_study: Path, row: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        beside(tmp_path, gauge(2.0), small_study, row=row)
    assert message in str(error.value)


def test_a_row_needs_a_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected --study DIR"):
        beside(tmp_path, gauge(2.0), row=("tree=chain",))
    assert beside(tmp_path, gauge(2.0)).study is None
    with pytest.raises(ResultsError, match="no such folder"):
        beside(tmp_path, gauge(2.0), tmp_path / "nothing")


def test_intervals_of_both_sides_count() -> None:
    ours, alone, few = Interval(2.0, 1.9, 2.1), Interval(2.2, np.nan, np.nan), Interval(2.0, np.nan, np.nan)
    assert within(alone, ours) is False and within(Interval(2.2, 1.9, 2.5), ours) is True
    assert within(Interval(2.5, 2.3, 2.7), ours) is False
    assert within(alone, few) is None and within(few, few) is True
    assert within(Interval(2.104, np.nan, np.nan), ours, half_unit=0.005) is True


def test_few_prompts_have_no_interval(tmp_path: Path) -> None:
    folder = write_side(made_side("few", {"chain": 0.3}, prompts=3), tmp_path / "study")
    found = beside(tmp_path, gauge(9.0), folder)
    assert [one.together for one in found.comparison] == [None] and "no interval" in next(answer(found))
    assert set(METRICS) >= {one.metric for one in found.possibilities}
