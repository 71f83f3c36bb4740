"""Every number between markers is what the studies under `results/` say."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
CELL = "n:reference pair=zoo tree=chain budget=16 block_efficiency"


@pytest.fixture(scope="module")
def numbers() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("fill_numbers")


def test_no_number_is_stale(numbers: ModuleType) -> None:
    marked = 0
    for path in numbers.marked_files():
        text = path.read_text(encoding="utf-8")
        assert numbers.filled(text, ROOT / "results") == text, f"{path}: run scripts/fill_numbers.py"
        marked += len(numbers.MARKED.findall(text)) + len(numbers.INLINE.findall(text))
    assert marked >= 10


def test_what_is_between_markers_is_replaced_and_nothing_else(numbers: ModuleType) -> None:
    text = f"a 9.9\n<!-- bench -->\n| x | 9.9 |\n<!-- /bench -->\nb <!-- {CELL} -->9.9<!-- /n --> c 9.9\n"
    new = numbers.filled(text, ROOT / "results")
    ratios = json.loads((ROOT / "results" / "reference" / "bench_decode.json").read_text())["ratios"]
    assert all(f"| {name} | {value:.2f} |" in new for name, value in ratios.items())
    assert new.startswith("a 9.9\n<!-- bench -->\n") and new.endswith(" c 9.9\n") and new.count("9.9") == 2
    assert f"b <!-- {CELL} -->2.40 [2.26, 2.57]<!-- /n --> c" in new
    assert numbers.filled(new, ROOT / "results") == new


def test_forms_of_a_number(numbers: ModuleType) -> None:
    def of(expression: str) -> str:
        return str(numbers.number(expression, ROOT / "results"))

    lead = "reference/comparisons.csv pair=zoo budget=16 tree_a=chain tree_b=kary metric=block_efficiency"
    assert of(f"{lead} difference") == "-0.46 [-0.55, -0.37]"
    assert of(f"{lead} -difference") == "0.46 [0.37, 0.55]"
    assert of(f"{lead} =difference:.1f") == "-0.5"
    assert of("theory/zoo.json alpha:.3f").startswith("0.62")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- nothing -->\n1\n<!-- /nothing -->", "'nothing' is no table (known: methods"),
        ("<!-- bench -->\n1\n", "<!-- bench --> has no other end"),
        ("1\n<!-- /bench -->\n", "<!-- /bench --> has no other end"),
        ("<!-- n:nowhere a=1 b -->1<!-- /n -->", "nowhere: there is no such file below results/"),
        (f"<!-- {CELL.replace('chain', 'none')} -->1<!-- /n -->", "0 rows have pair=zoo tree=none budget=16"),
        (f"<!-- {CELL.replace(' tree=chain', '')} -->1<!-- /n -->", "rows have pair=zoo budget=16"),
        (f"<!-- {CELL}x -->1<!-- /n -->", "block_efficiencyx: there is no value"),
        (f"<!-- {CELL} -->1", "has no other end"),
    ],
)
def test_markers_that_cannot_be_filled(text: str, said: str, numbers: ModuleType) -> None:
    with pytest.raises(numbers.StaleError) as error:
        numbers.filled(text, ROOT / "results")
    assert said in str(error.value)


def test_a_stale_number_fails_the_check(
    numbers: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(stale := f"<!-- {CELL} -->2.41<!-- /n -->\n")
    with pytest.raises(numbers.typer.Exit) as stop:
        numbers.main([page], check=True)
    assert (stop.value.exit_code, page.read_text()) == (1, stale)
    assert f"- {stale.strip()}" in capsys.readouterr().err
    numbers.main([page])
    assert "2.40 [2.26, 2.57]" in page.read_text()
    numbers.main([page], check=True)
