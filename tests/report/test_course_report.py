"""The course report: one structure in two languages, its numbers those of the result files."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from support.tiny_models import PairFolders

from specdraft.bench.attention import Row
from specdraft.errors import ResultsError
from specdraft.replay.folds import folds
from specdraft.report.attention import FACTS, TABLE
from specdraft.report.course.asked import AT, Analysis
from specdraft.report.course.blocks import Chart, Grid, Numbered, Paper
from specdraft.report.course.catalogue import LANGUAGES, catalogue
from specdraft.report.course.measures import TERMS, Measures, Price, Setting, measures_of
from specdraft.report.course.paper import QUESTIONS, compose, explain, read_course
from specdraft.report.course.writing import html, write_paper
from specdraft.report.words import plain
from specdraft.results.study_tables import read_records
from specdraft.study import run
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study

SCRIPT = Path(__file__).parents[2] / "scripts" / "course_report.py"
PARTS: dict[str, list[str]] = {  # of the script, and less of what they sweep
    "": [],
    "-nodes": [],
    "-widths": ["tree=kary", "tree.k=2,3,8"],
    "-beams": ["tree=beam", "tree.width=2,3,8"],
    "-siblings": [],
    "-sampled": ["tree=chain,kary", "acceptance=rejection,block,recursive,no_replacement,kseq", "budget=1,8"],
}
SMALL = ["prompts.limit=10", "max_new_tokens=6", "cost.measure=off", "certify=false", "max_prompt_tokens=64"]
CHINESE = re.compile("[\u4e00-\u9fff]")
INTERVAL = re.compile(r"-?\d+\.\d+ \[[^\]]+\]")
ROWS = [
    Row(name, "zoo", 1, 2048, nodes, "wide", nodes, "float32", "cpu", median_s, 0.1, 5, 1e-6, 2.0, 0.2, 0.5)
    for nodes in (4, 8)
    for name, median_s in (("sequential", 8.0), ("dense", 2.0))
]


@pytest.fixture(scope="module")
def folder(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study that the script runs, of a tiny pair, with tree attention and a smaller study of another pair in it."""
    made = tmp_path_factory.mktemp("course-report")
    out = made / "study"
    pair = [f"pair.target.path={tiny_pair_folders.target}", f"pair.draft.path={tiny_pair_folders.draft}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(made / "traces"))
        patch.setattr(run, "prove_rules", lambda *given: [])
        for part, less in PARTS.items():
            run_study(plan_study([f"experiment=course-report{part}", *pair, "pair.name=tiny", *SMALL, *less]), out)
        second = ["experiment=course-report", "tree=chain,kary,wide,sequoia", "budget=1,8,32", "pair.name=second"]
        run_study(plan_study([*second, *pair, *SMALL]), out / "second")
    (out / "attention").mkdir()
    pd.DataFrame(ROWS).to_csv(out / "attention" / TABLE, index=False)
    facts = {"where": "a CPU (x, 1 thread)", "dtype": "float32", "copy_gb_s": 8.0, "device": "cpu"}
    (out / "attention" / FACTS).write_text(json.dumps(facts))
    return out


@pytest.fixture(scope="module")
def papers(folder: Path) -> dict[str, Paper]:
    return {language: compose(read_course(folder, catalogue(language))) for language in LANGUAGES}


@pytest.fixture(scope="module")
def records(folder: Path) -> pd.DataFrame:
    return read_records(folder)


def grids(paper: Paper) -> list[Grid]:
    contents = [block.content for block in paper.blocks if isinstance(block, Numbered)]
    return [content for content in contents if isinstance(content, Grid)]


def drawn(chart: Chart) -> list[list[float]]:
    """The numbers of a chart's data."""
    return [[value for value in row.values() if isinstance(value, int | float)] for row in rows_of(chart)]


def rows_of(chart: Chart) -> list[dict[str, Any]]:
    (rows,) = chart.spec["datasets"].values()
    return list(rows)


def found(part: Any, key: str) -> list[Any]:
    if isinstance(part, list):
        return [one for inner in part for one in found(inner, key)]
    if not isinstance(part, dict):
        return []
    return [*([part[key]] if key in part else []), *(one for inner in part.values() for one in found(inner, key))]


def keys_and_places(texts: Any, at: str = "") -> set[tuple[str, str]]:
    """Every key of a catalogue, with what is filled in there."""
    if isinstance(texts, dict):
        return set().union(*(keys_and_places(inner, f"{at}.{key}") for key, inner in texts.items()))
    if isinstance(texts, list):
        return {(at, str(len(texts)))}.union(*(keys_and_places(text, f"{at}.{i}") for i, text in enumerate(texts)))
    places = sorted(name for _, name, _, _ in Formatter().parse(str(texts)) if name)
    sources = sorted(re.findall(r"\[@\w+\]", str(texts)))
    return {(at, f"{places} {sources}")}


def test_languages_have_the_same_keys_and_fill_in_the_same() -> None:
    english, chinese = (keys_and_places(catalogue(language).texts) for language in LANGUAGES)
    assert english == chinese


def test_every_source_is_in_the_references() -> None:
    texts = catalogue("en")
    cited = set(re.findall(r"\[@(\w+)\]", str(texts.texts)))
    assert cited <= set(texts.references)


class TestBothLanguages:
    def test_they_show_the_same_numbers(self, papers: dict[str, Paper]) -> None:
        english, chinese = papers["en"], papers["zh"]
        assert [chart.name for chart in english.charts] == [chart.name for chart in chinese.charts]
        assert [drawn(chart) for chart in english.charts] == [drawn(chart) for chart in chinese.charts]
        of_both = [
            [INTERVAL.findall(" ".join(plain(cell) for row in grid.rows for cell in row)) for grid in grids(paper)]
            for paper in (english, chinese)
        ]
        assert of_both[0] == of_both[1] and sum(map(len, of_both[0])) > 100

    def test_every_word_of_a_figure_is_chinese(self, papers: dict[str, Paper]) -> None:
        for chart in papers["zh"].charts:
            assert CHINESE.search(chart.title) and CHINESE.search(plain(chart.caption))
            titles = [title for title in found(chart.spec, "title") if isinstance(title, str) and title]
            assert titles and all(CHINESE.search(title) for title in titles), (chart.name, titles)

    def test_every_question_has_a_figure_a_table_and_sentences(self, papers: dict[str, Paper]) -> None:
        for paper in papers.values():
            names = [chart.name for chart in paper.charts]
            assert names == ["trees", "results", "attention", *QUESTIONS]

    def test_sentences_say_what_the_tables_have(self, papers: dict[str, Paper]) -> None:
        for paper in papers.values():
            shown = {
                one
                for grid in grids(paper)
                for row in grid.rows
                for cell in row
                for one in INTERVAL.findall(plain(cell))
            }
            said = {one for text in texts_of(paper) for one in INTERVAL.findall(text)}
            assert len(said) > 15
            leads = said - shown
            assert len(leads) <= 2 * 2, leads  # who leads, and by how much, of both pairs

    @pytest.mark.parametrize(
        ("table", "sentence", "columns"),
        [
            ("Deep, wide", r"tokens per pass by (.*?): .*? them by (.*?): ", (4, 5)),
            (
                "by rank",
                r"accepted in (.*?) of the steps; a second child adds (.*?), the .*? only (.*?\])\.",
                (1, 2, 5),
            ),
            (
                "a node of sequoia",
                r"brings (.*?) accepted .*? second (.*?); up to 32 nodes it is still (.*?) each",
                (1, 2, 6),
            ),
            (
                "less at 2",
                r"efficiency by (.*?) at 8 nodes and by (.*?) at 32; .*? by (.*?) and (.*?\])\.",
                (1, 2, 3, 4),
            ),
            (
                "8 nodes, greedy and",
                r"yields (.*?) tokens .*? and (.*?) at .*? change of (.*?\]), .*? changes by (.*?\])\.",
                (1, 2, 3, 6),
            ),
            (
                "a third node adds",
                r"adds (.*?) accepted .*? choice, (.*?) below the second one, and (.*?) as",
                (1, 2, 3),
            ),
        ],
    )
    def test_a_sentence_has_each_number_in_its_place(
        self, papers: dict[str, Paper], table: str, sentence: str, columns: tuple[int, ...]
    ) -> None:
        (grid,) = (grid for grid in grids(papers["en"]) if table in grid.title)
        (said,) = {match.groups() for text in texts_of(papers["en"]) if (match := re.search(sentence, text))}
        assert said == tuple(plain(grid.rows[0][column]) for column in columns)

    def test_an_explanation_names_the_pairs_that_it_does_not_hold_with(self) -> None:
        texts = catalogue("en")
        grid = Grid("t", ["pair"], [], "")
        chart = Chart("rank", "t", (), {}, "")

        def explained(**holds: bool) -> list[str]:
            found = Analysis("rank", [], holds, chart, grid)
            return [plain(text) for text in explain(texts, [found], "rank.why")]

        (why,) = explained(a=True, b=True)
        assert explained() == [why]  # by definition
        assert explained(a=True, b=True, c=False) == [why, "This is not shown with c."]
        (instead,) = explained(a=True, b=False)
        assert instead.startswith("This is not so with most pairs")

    def test_the_smaller_study_says_what_it_has(self, papers: dict[str, Paper]) -> None:
        (depth,) = (grid for grid in grids(papers["en"]) if "Deep, wide" in grid.title)
        assert [plain(row[0]) for row in depth.rows] == ["tiny", "second"]
        (rank,) = (grid for grid in grids(papers["en"]) if "by rank" in grid.title)
        assert [plain(row[0]) for row in rank.rows] == ["tiny"]


def texts_of(paper: Paper) -> list[str]:
    texts = [block.text for block in paper.blocks if hasattr(block, "text") and isinstance(block.text, tuple)]
    return [plain(text) for text in texts]


class TestMeasures:
    def test_intervals_are_those_of_the_summary(self, folder: Path, records: pd.DataFrame) -> None:
        measures = measures_of(records)
        summary = pd.read_csv(folder / "summary.csv")
        for name in ("block_efficiency", "acceptance_length", "acceptance_rate"):
            for row in summary[summary["acceptance"] == "greedy"].to_dict("records"):
                setting = Setting("tiny", row["tree"], row["budget"])
                wanted = [row[f"{name}{end}"] for end in ("", "_lo", "_hi")]
                assert list(measures.ratio(setting, name)) == pytest.approx(wanted, rel=1e-4, nan_ok=True)

    def test_categories_are_those_of_their_table(self, folder: Path, records: pd.DataFrame) -> None:
        measures, table = measures_of(records), pd.read_csv(folder / "by_category.csv")
        table = table[(table["acceptance"] == "greedy") & (table["budget"] == AT)]
        assert table["category"].nunique() > 1
        for row in table.to_dict("records"):
            found = measures.ratio(Setting("tiny", row["tree"], AT), category=row["category"])
            assert found.value == pytest.approx(row["block_efficiency"], rel=1e-4)

    def test_differences_are_those_of_the_comparisons(self, folder: Path, records: pd.DataFrame) -> None:
        measures, table = measures_of(records), pd.read_csv(folder / "comparisons.csv")
        table = table[(table["acceptance"] == "greedy") & (table["metric"] == "block_efficiency")]
        assert len(table) > 20
        for row in table.to_dict("records"):
            first, second = (Setting("tiny", row[f"tree_{side}"], row["budget"]) for side in "ab")
            wanted = [row[f"difference{end}"] for end in ("", "_lo", "_hi")]
            found = measures.difference(first, second)
            assert list(found) == pytest.approx(wanted, rel=1e-4, abs=1e-6, nan_ok=True)

    def test_a_difference_is_at_most_what_is_possible(self) -> None:
        """Trees of one node accept 0 or 1 tokens a step."""
        deep, wide = (Setting("p", tree, 1) for tree in ("chain", "wide"))
        terms = {name: np.zeros(5) for name in TERMS} | {"steps": np.ones(5)}
        rows = ([1.0, 1, 1, 1, 0], [0.0, 0, 0, 0, 1])
        sums = {
            setting: np.stack([*(terms | {"accepted_tokens": np.array(accepted)}).values()])
            for setting, accepted in zip((deep, wide), rows, strict=True)
        }
        measures = Measures(sums, dict.fromkeys(sums, (1.0, 1.0)), {"p": np.array(["a"] * 5)})
        found = measures.difference(deep, wide, "acceptance_length")
        assert found.value == pytest.approx(0.6) and found.high == 1 and found.low < 0

    def test_the_best_is_picked_on_one_half_and_measured_on_the_other(self, records: pd.DataFrame) -> None:
        measures, price = measures_of(records), Price(0.1, 0.02)
        settings = [Setting("tiny", tree, budget) for tree in ("chain", "kary") for budget in (1, 2, 4, 8)]
        kinds = list(measures.categories["tiny"])
        half = folds(kinds, 0).tolist()
        totals = {}
        for setting in settings:
            accepted, bonus, _, steps, *_ = measures.sums[setting]
            cost = price.of(*measures.sizes[setting])
            totals[setting] = [((accepted[i] + bonus[i]), steps[i] * cost) for i in range(len(half))]

        def speed(setting: Setting, one: int) -> float:
            of_half = [terms for terms, where in zip(totals[setting], half, strict=True) if where == one]
            return sum(tokens for tokens, _ in of_half) / sum(cost for _, cost in of_half)

        picked = [max(settings, key=lambda setting: speed(setting, one)) for one in (0, 1)]
        terms = [totals[picked[1 - where]][i] for i, where in enumerate(half)]
        chosen = measures.best(settings, price)
        assert chosen.picked == tuple(dict.fromkeys(picked))
        assert chosen.speed.value == pytest.approx(sum(a for a, _ in terms) / sum(b for _, b in terms))

    def test_one_prompt_of_each_category_has_two_halves_and_one_prompt_has_itself(self, records: pd.DataFrame) -> None:
        measures, price = measures_of(records), Price(0.1, 0.02)
        settings = [Setting("tiny", tree, 4) for tree in ("chain", "kary")]
        for prompts in (5, 1):
            sums = {setting: measures.sums[setting][:, :prompts] for setting in settings}
            few = Measures(sums, measures.sizes, {"tiny": np.array(list("abcde"[:prompts]))})
            assert few.best(settings, price).speed.value > 0

    def test_estimates_are_those_of_the_summary(self, records: pd.DataFrame) -> None:
        chain = (records["tree"] == "chain") & (records["acceptance"] == "greedy")
        est = {"est_tokens_per_s": np.where(chain, 50.0, np.nan), "est_speedup": np.where(chain, 1.25, np.nan)}
        measures = measures_of(records.assign(**est))
        settings = [Setting("tiny", tree, AT) for tree in ("chain", "kary")]
        assert measures.priced(settings, None) == settings[:1]
        assert measures.speed(settings[0], None).value == pytest.approx(1.25)
        assert measures.best(settings, None).picked == (settings[0],)

    def test_nodes_add_up_to_the_acceptance_length(self, papers: dict[str, Paper], records: pd.DataFrame) -> None:
        (gain,) = (chart for chart in papers["en"].charts if chart.name == "gain")
        rows = pd.DataFrame(rows_of(gain))
        rows = rows[(rows["panel"] == "tiny") & (rows["series"] == "sequoia")].sort_values("at")
        steps = rows["at"].diff().fillna(rows["at"])
        total = measures_of(records).ratio(Setting("tiny", "sequoia", int(rows["at"].max())), "acceptance_length")
        assert (rows["value"] * steps).sum() == pytest.approx(total.value)

    def test_chains_under_rules_that_are_equal_are_counted_once(self, records: pd.DataFrame) -> None:
        rules = set(records[(records["tree"] == "chain") & (records["temperature"] == 1)]["acceptance"])
        assert {"rejection", "recursive", "no_replacement", "kseq", "block"} <= rules
        counted = {one.acceptance for one in measures_of(records).settings("tiny", 1.0) if one.tree == "chain"}
        assert counted == rules - {"recursive", "no_replacement", "kseq"}
        steps = records[
            (records["tree"] == "chain") & (records["acceptance"] == "rejection") & (records["budget"] == 8)
        ]
        chain = measures_of(records).sums[Setting("tiny", "chain", 8, "rejection", 1.0)]
        assert chain[3].sum() == pytest.approx(steps["steps"].sum())

    def test_two_lengths_of_text_are_not_mixed(self, records: pd.DataFrame) -> None:
        mixed = records.assign(max_new_tokens=[5, *records["max_new_tokens"][1:]])
        with pytest.raises(ResultsError, match="one max_new_tokens for each pair; tiny has 5, 6"):
            measures_of(mixed)


class TestFiles:
    def test_pages_and_figures(self, papers: dict[str, Paper], tmp_path: Path) -> None:
        for paper in papers.values():
            write_paper(paper, tmp_path)
        text = (tmp_path / "COURSE_REPORT.zh.md").read_text(encoding="utf-8")
        for name in re.findall(r"\]\(<([^>]+)>\)", text):
            svg = (tmp_path / name).read_text(encoding="utf-8")
            assert CHINESE.search(svg) and "<text" in svg
        page = (tmp_path / "course-report.zh.html").read_text(encoding="utf-8")
        assert page.count("<svg") == len(papers["zh"].charts) and '<html lang="zh">' in page
        assert not re.search(r"<(script|link|img)|url\((?!#)", page) and "`" not in page
        names = re.findall(r' id="([^"]+)"', page)
        assert names and all(
            name.startswith("trees-gradient") for name in names
        )  # a figure's own: the page has several
        assert (tmp_path / "COURSE_REPORT.md").exists() and (tmp_path / "course-figures" / "en" / "gain.svg").exists()

    def test_names_from_the_study_are_escaped(self, papers: dict[str, Paper]) -> None:
        grid = Grid("a <b>", ["x"], [(("<i>",),)], "", ("&",))
        page = html(Paper("en", "<t>", [Numbered("Table 1", grid)]), {})
        assert "<i>" not in page and "&lt;i&gt;" in page and "a &lt;b&gt;" in page and "&amp;" in page

    def test_the_closed_form_stands_beside_every_chain(self, papers: dict[str, Paper], folder: Path) -> None:
        (grid,) = (grid for grid in grids(papers["en"]) if "closed form" in grid.title)
        summary = pd.read_csv(folder / "summary.csv")
        chains = summary[(summary["tree"] == "chain") & (summary["acceptance"] == "rejection")]
        for row, chain in zip(grid.rows, chains.to_dict("records"), strict=True):
            predicted = sum(chain["alpha"] ** power for power in range(chain["budget"] + 1))
            inside = chain["block_efficiency_lo"] <= predicted <= chain["block_efficiency_hi"]
            assert (plain(row[3]), plain(row[5])) == (f"{predicted:.2f}", "yes" if inside else "no")

    def test_tree_attention(self, papers: dict[str, Paper]) -> None:
        said = " ".join(texts_of(papers["en"]))
        assert (
            "is faster than sequential (each path on its own) in 2 of 2 cells, 4.00 to 4.00 times (median 4.00)" in said
        )


class TestScript:
    @pytest.fixture
    def main(self) -> Any:
        spec = spec_from_file_location("course_report", SCRIPT)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main

    @pytest.mark.parametrize(
        ("language", "said"),
        [
            ("language=fr", "language='fr' is not known"),
            ("zh", "'zh' is not known; expected language=en or language=zh"),
        ],
    )
    def test_a_language_that_there_is_none_of(
        self, main: Any, folder: Path, language: str, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(typer.Exit) as stop:
            main(folder, language)
        assert stop.value.exit_code == 2 and said in capsys.readouterr().err

    def test_a_folder_that_is_no_benchmark_is_one_line(
        self, main: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        study = shutil.copytree(folder, tmp_path / "study", ignore=shutil.ignore_patterns("parts", "traces", "second"))
        (study / "attention" / FACTS).unlink()
        with pytest.raises(typer.Exit) as stop:
            main(study)
        assert stop.value.exit_code == 2
        assert "attention: not a benchmark of tree attention" in capsys.readouterr().err
        assert not (study / "COURSE_REPORT.md").exists()
