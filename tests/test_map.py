"""The map in the README and the packages' own texts, held against the disk."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "specdraft"
NOT_CODE = {"bundled", "help", "zoo"}


def floors() -> list[str]:
    """The folders in the order in which import-linter holds them, top down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (c["layers"] for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    names = [layer.removeprefix("specdraft.") for layer in layers if "|" not in layer]
    return [name for name in names if (PACKAGE / name).is_dir()]


def test_every_folder_is_a_floor_and_on_the_map() -> None:
    on_disk = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] not in "_."} - NOT_CODE
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    mapped = re.findall(r"^\| `(\w+)/` \|", readme, re.MULTILINE)
    assert set(floors()) == on_disk
    assert mapped == floors()


def test_only_three_modules_are_at_the_root() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "cli", "errors"}


def test_every_package_says_what_it_is_for() -> None:
    below = floors()
    for number, name in enumerate(below):
        said = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert "May import: " in said, name
        allowed = said.split("May import: ")[1].split(".")[0]
        named = [floor for floor in below if re.search(rf"\b{floor}\b", allowed)]
        assert all(floor in below[number + 1 :] for floor in named), f"{name} may not import {named}"


def test_config_folders_have_their_namesakes() -> None:
    """An axis is a folder of choices, and what a choice is lives on the floor of its name."""
    homes = {"pair": "drafters/pair.py", "drafter": "drafters", "tree": "trees/shapes", "sampling": "sampling",
             "acceptance": "acceptance", "prompts": "prompts", "pruning": "prediction/pruning",
             "length": "prediction/length",
             "experiment": "study", "bench": "bench"}  # fmt: skip
    assert {path.name for path in (ROOT / "configs").iterdir() if path.is_dir()} == set(homes)
    assert all((PACKAGE / home).exists() for home in homes.values())


def test_the_tests_take_the_same_folders() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name[0] not in "_."}
    assert folders - {"support"} <= set(floors())
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert not re.search(r"^(from|import) (test_\w+|tests)\b", path.read_text(encoding="utf-8"), re.MULTILINE), path
