from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from itertools import product
from math import prod
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from specdraft.bench.attention_plan import AttentionSpec
from specdraft.config import (
    Settings,
    Study,
    bundled_config_dir,
    compose_study,
    load_group,
    override_groups,
    override_keys,
    own_group,
    unless_said,
)
from specdraft.config.files import ConfigFiles
from specdraft.errors import ConfigError
from specdraft.study.generate import SpeculativeDecoder
from specdraft.study.method_plan import MethodsSpec
from specdraft.study.points import schemas, shape_of
from specdraft.trees.shapes import registry

SWEEP = """
defaults: [{pair: zoo}, {drafter: model}, {tree: chain}, {prompts: bundled}, {sampling: greedy},
    {acceptance: greedy}, {pruning: none}, {length: constant}, _self_, {optional experiment: null}]
name: small
grid: {pair: "zoo,zoo-tiny", tree: "chain,kary", budget: "4,8", prompts.limit: 16}
"""
FILES = sorted(p.relative_to(bundled_config_dir()).with_suffix("") for p in bundled_config_dir().glob("*/**/*.yaml"))
GROUP_FILES = [path for path in FILES if path.parts[0] != "experiment"]
EXPERIMENTS = [path.name for path in FILES if path.parts[0] == "experiment"]


ALIAS_BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.fixture
def user_dir(tmp_path: Path) -> Callable[..., Path]:
    """Writes config files, given as `group__name="yaml"`, into a folder of the user's own beside a small
    `sweep.yaml`."""

    def write(**files: str) -> Path:
        for name, text in ({"sweep": SWEEP} | files).items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "sweep.yaml").write_text(SWEEP)
    return folder


def compose(folder: Path | None, *overrides: str) -> Study:
    return compose_study(list(overrides), schemas(), folder)


def grid(folder: Path | None, *overrides: str) -> dict[str, list[object]]:
    found: dict[str, list[object]] = compose(folder, *overrides).resolved["grid"]
    return found


def test_default_study() -> None:
    default = compose(None)
    axes = default.resolved["grid"]
    assert {"pair", "tree", "budget"} <= axes.keys()
    assert len(default.points) == prod(len(values) for values in axes.values())
    assert {(p.groups["pair"].name, p.settings.budget) for p in default.points} == set(
        product(axes["pair"], axes["budget"])
    )
    assert {p.settings.name for p in default.points} == {"default"}


def test_grid_is_a_product(small: Path) -> None:
    study = compose(small)
    assert study.resolved["grid"] == {
        "pair": ["zoo", "zoo-tiny"],
        "tree": ["chain", "kary"],
        "budget": [4, 8],
        "prompts.limit": [16],
    }
    assert [(p.groups["pair"].name, p.groups["tree"].kind, p.settings.budget) for p in study.points] == list(
        product(("zoo", "zoo-tiny"), ("chain", "kary"), (4, 8))
    )
    assert {(p.groups["prompts"].limit, p.settings.name) for p in study.points} == {(16, "small")}


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("budget=4,8", [4, 8]),
        ("budget=7", None),
        ("budget=range(2,9,3)", [2, 5, 8]),
        ("budget=choice(2,4)", [2, 4]),
        ("budget=sort(3,1,2)", [1, 2, 3]),
        ("tree=glob(be*)", ["beam", "beam_search", "best_first", "best_first-calibrated", "best_first-sized"]),
        ("tree=glob(*a*,exclude=[b*,p*,m*,e*,seq*])", ["adaptive", "chain", "kary"]),
    ],
)
def test_sweep_grammar(small: Path, override: str, values: list[object] | None) -> None:
    key, _, text = override.partition("=")
    composed = compose(small, "pair=zoo", *(["tree=chain"] if key == "budget" else ["budget=4"]), override)
    assert composed.resolved["grid"].get(key) == values
    if values is None:
        assert {str(p.settings.budget) for p in composed.points} == {text}


def test_quoted_values_are_plain_strings(small: Path) -> None:
    points = compose(small, "pair=zoo", "tree=chain", "budget=4", "pair.target.path='/a b,c','/d\\'e'").points
    assert [p.groups["pair"].target.path for p in points] == ["/a b,c", "/d'e"]
    assert [p.groups["pair"].target.path for p in (compose(small, *points[i].overrides).points[0] for i in (0, 1))] == [
        "/a b,c",
        "/d'e",
    ]


def test_lists_are_values_of_an_axis(small: Path) -> None:
    points = compose(small, "pair=zoo", "tree=branching", "budget=4", "tree.factors=[3,1],[2]").points
    assert [p.groups["tree"].factors for p in points] == [[3, 1], [2]]


def test_the_last_word_on_a_key_counts(small: Path) -> None:
    fixed, swept = (
        compose(small, "tree=chain", "budget=4,8", "budget=2"),
        compose(small, "tree=chain", "budget=2", "budget=4,8"),
    )
    assert "budget" not in fixed.resolved["grid"]
    assert {p.settings.budget for p in fixed.points} == {2}
    assert swept.resolved["grid"]["budget"] == [4, 8]


@pytest.mark.parametrize(
    ("overrides", "left"),
    [
        (["pair=zoo-tiny"], {"tree", "budget", "prompts.limit"}),
        (["budget=3", "tree=chain"], {"pair", "prompts.limit"}),
        (["budget=3,5", "tree=chain"], {"pair", "budget", "prompts.limit"}),
        (["tree=kary", "tree.k=2,3"], {"pair", "budget", "prompts.limit", "tree.k"}),
        (["tree.kind=wide"], {"pair", "budget", "prompts.limit"}),
        (["pair.target.path=/a", "pair.draft.path=/b"], {"tree", "budget", "prompts.limit"}),
        (["prompts=jsonl", "prompts.path=f", "tree=chain"], {"pair", "budget"}),
        (["prompts.categories=[story]", "tree=chain"], {"pair", "budget"}),
        (["max_new_tokens=5", "tree=chain"], {"pair", "budget", "prompts.limit"}),
    ],
)
def test_what_is_said_takes_its_axis_out(small: Path, overrides: list[str], left: set[str]) -> None:
    assert set(grid(small, *overrides)) == left


def test_points_say_how_to_make_them_again(small: Path) -> None:
    for point in compose(small, "tree=kary", "tree.k=2,3", "pair=zoo,zoo-tiny", "budget=4", "max_new_tokens=9").points:
        again = compose(small, *point.overrides).points
        assert len(again) == 1
        assert (again[0].settings, again[0].groups) == (point.settings, point.groups)


def test_experiment_names_the_study_and_replaces_the_grid(user_dir: Callable[..., Path]) -> None:
    folder = user_dir(
        experiment__wide="""# @package _global_
name: wide-study
max_new_tokens: 12
prompts: {limit: 3}
pair: {target: {dtype: bfloat16}}
grid:
  pair: zoo,zoo-tiny
  prompts: bundled
  budget: 2,4
"""
    )
    found = compose(folder, "experiment=wide")
    assert found.resolved["grid"] == {"pair": ["zoo", "zoo-tiny"], "prompts": ["bundled"], "budget": [2, 4]}
    assert {(p.settings.name, p.settings.max_new_tokens) for p in found.points} == {("wide-study", 12)}
    assert {
        (p.groups["pair"].name, p.groups["pair"].target.dtype, p.groups["prompts"].limit) for p in found.points
    } == {
        ("zoo", "bfloat16", 3),
        ("zoo-tiny", "bfloat16", 3),
    }
    assert grid(folder, "experiment=wide", "budget=5").keys() == {"pair", "prompts"}
    assert compose(folder, "experiment=wide", "name=mine", "budget=2", "pair=zoo").points[0].settings.name == "mine"


def test_users_files_go_before_the_bundled_ones(user_dir: Callable[..., Path]) -> None:
    folder = user_dir(tree__kary="kind: kary\nk: 5\n", tree__own="kind: beam\nwidth: 4\n")
    (folder / "dangling.yaml").symlink_to(folder / "nowhere")
    (folder / ".git").mkdir()
    trees = [p.groups["tree"].label for p in compose(folder, "pair=zoo", "budget=4", "tree=kary,own,chain").points]
    assert trees == ["kary-k5", "beam-w4", "chain"]
    assert grid(folder, "pair=zoo", "budget=4", "tree=glob(o*)")["tree"] == ["own"]


def test_resolved_config_is_yaml(small: Path) -> None:
    text = compose(small, "pair=zoo", "max_new_tokens=5", "tree=kary,chain").yaml()
    read = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(read, dict)
    assert (read["max_new_tokens"], read["pair"]["name"], read["grid"]["tree"]) == (5, "zoo", ["kary", "chain"])


WANTED = {"drafter/server": {"url": "http://127.0.0.1:8080/v1"}}  # what a file alone does not say


@pytest.mark.parametrize("path", GROUP_FILES, ids=str)
def test_every_bundled_file_composes(path: Path) -> None:
    group, name = path.parts[0], str(Path(*path.parts[1:]))
    if group == "bench":
        own_group(group, name, [], AttentionSpec if name.startswith("attention") else MethodsSpec)[0].check()
        return
    loaded = load_group(group, name, schemas()[group])
    if group == "pair":
        loaded.check()
        assert loaded.name == name
    elif group == "tree" and name != "paths":
        loaded.limits(4)
    elif group in ("sampling", "drafter", "acceptance", "pruning", "length"):
        for key, value in WANTED.get(f"{group}/{name}", {}).items():
            setattr(loaded, key, value)
        loaded.check()


def test_every_shape_has_a_file() -> None:
    files = {path.name for path in GROUP_FILES if path.parts[0] == "tree"}
    assert set(registry()) <= files
    assert len(GROUP_FILES) > 20


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["budgt=4"], ["'budgt'", "did you mean 'budget'?"]),
        (["tre=chain"], ["'tre'", "did you mean 'tree'?"]),
        (["tree=chian"], ["tree=chian", "did you mean 'chain'?"]),
        (["tree=chain,chian"], ["tree=chian", "did you mean 'chain'?"]),
        (["pair=zoo-tiney"], ["pair=zoo-tiney", "did you mean 'zoo-tiny'?"]),
        (["experiment=none"], ["experiment=none"]),
        (["experiment=a,b"], ["one experiment at a time"]),
        (["tree=kary", "tree.kk=3"], ["tree.kk", "did you mean 'k'?"]),
        (["tree.kind=karry"], ["tree.kind='karry'", "did you mean 'kary'?"]),
        (["pair.target.pth=x"], ["pair.target.pth", "did you mean 'path'?"]),
        (["output=3"], ["output: ", "3"]),
        (["pair.target=zoo:target"], ["pair.target: ", "zoo:target"]),
        (["tree=paths", "tree.paths=[0,1]"], ["tree.paths: "]),
        (["output.stesp=true"], ["output.stesp", "did you mean 'steps'?"]),
        (["budget=abc"], ["budget", "abc"]),
        (["budget=1.5"], ["budget", "1.5"]),
        (["budget=true"], ["budget", "True"]),
        (["budget=1,two"], ["budget", "two"]),
        (["tree=kary", "tree.k=[1]"], ["tree.k", "[1]"]),
        (["max_new_tokens=0"], ["max_new_tokens=0", "1 or more"]),
        (["max_prompt_tokens=0"], ["max_prompt_tokens=0", "1 or more"]),
        (["repeats=0"], ["repeats=0", "1 or more"]),
        (["seed=-1"], ["seed=-1", "0 or more"]),
        (["name=a/b"], ["name='a/b'"]),
        (["name=.."], ["name='..'"]),
        (["engine=live2"], ["engine='live2'", "did you mean 'live'?"]),
        (["budget=interval(1,2)"], ["interval()", "range()"]),
        (["budget"], ["'budget'", "key=value"]),
        (["~tree"], ["'~tree'", "deleted"]),
        (["tree@x=chain"], ["@x"]),
        (["tree=glob(zzz*)"], ["matches no tree"]),
        (["name=${nothing}"], ["nothing"]),
        (["hydra.verbose=true"], ["'hydra'"]),
        (["grid.budget=3"], ["'grid'"]),
        (["prompts.limit=few"], ["prompts.limit", "few"]),
        (["temperature=1"], ["'temperature'", "did you mean 'sampling.temperature' or 'tree.temperature'?"]),
        (["path=x"], ["'path'", "did you mean 'drafter.path' or 'prompts.path'?"]),
        (["steps=true"], ["'steps'", "did you mean 'output.steps' or 'tree.steps'?"]),
        (["budget=range(1,1000000000)"], ["budget=range(1,1000000000)", "most_combinations=100000"]),
        (["budget=shuffle(range(1,1000000000))"], ["budget=shuffle", "most_combinations=100000"]),
        (["seed=range(0,10000000)"], ["seed=range(0,10000000)", "most_combinations=100000"]),
        (["budget=range(0,1,1e-9)"], ["budget=range(0,1,1e-9)", "most_combinations=100000"]),
        (["budget=1,2,3", "most_combinations=11"], ["grid has 12 combinations", "3 of budget", "most_combinations=11"]),
        (["most_combinations=0"], ["most_combinations=0"]),
        (["most_combinations=1,2"], ["most_combinations=1,2"]),
        (["budget=range(1,4,0)"], ["'budget=range(1,4,0)' is not a range", "zero"]),
        (["budget=" + "9" * 5000], ["budget=999", "out of range"]),
        (["seed=" + "9" * 20], ["seed=999", "out of range"]),
        (["seed=1," + "9" * 20], ["seed=1,999", "out of range"]),
        (["tree=paths", "tree.paths=" + "[" * 500 + "]" * 500], ["tree.paths=[[", "30 levels of brackets", "file"]),
        (["tree=paths", "tree.paths=[" + "[0]," * 3000 + "[0]]"], ["tree.paths=[[0]", "at most 10000 characters"]),
        (["tree=chain,wide", "tree.k=2"], ["tree.k is not a key of tree=chain; it goes with tree=kary"]),
        (["tree.max_children=2"], ["tree.max_children is not a key of tree=chain; it goes with tree=best_first|"]),
        (["tree.lenght=2"], ["tree.lenght is not a key (known: kind)"]),
    ],
)
def test_bad_overrides(small: Path, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        compose(small, *overrides)
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("file", "text", "overrides", "words"),
    [
        ("tree__own", "kind: [\n", ["tree=own"], ["tree/own.yaml, line 2", "not YAML"]),
        ("tree__own", "kind: kary\nk: two\n", ["tree=own"], ["tree.k", "two"]),
        ("tree__own", "kind: kary\nq: 2\n", ["tree=own"], ["tree.q", "known: k"]),
        ("tree__own", "", ["tree=own"], ["tree.kind=None"]),
        (
            "experiment__own",
            "# @package _global_\nbugdet: 4\n",
            ["experiment=own"],
            ["'bugdet'", "did you mean 'budget'?"],
        ),
        ("experiment__own", "budget: 4\n", ["experiment=own"], ["# @package _global_"]),
        ("experiment__own", "# @package _global_\ngrid: {bugdet: 4}\n", ["experiment=own"], ["'bugdet'"]),
        ("experiment__own", "# @package _global_\ngrid: {tree: chian}\n", ["experiment=own"], ["tree=chian"]),
        ("experiment__own", "# @package _global_\ngrid: 3\n", ["experiment=own"], ["grid=3"]),
        (
            "experiment__own",
            "# @package _global_\ngrid: {budget: 'interval(1,2)'}\n",
            ["experiment=own"],
            ["interval()"],
        ),
        (
            "experiment__own",
            "# @package _global_\ndefaults:\n  - override /tree: nope\n",
            ["experiment=own"],
            ["tree/nope"],
        ),
        ("tree__own", ALIAS_BOMB, ["tree=own"], ["tree/own.yaml", "too many values"]),
        ("tree__own", "kind: chain\nx: &x [*x]\n", ["tree=own"], ["tree/own.yaml", "*x is part of what it stands for"]),
        ("tree__own", f"paths: {'[' * 500}{']' * 500}", ["tree=own"], ["tree/own.yaml", "nested too deeply"]),
        ("tree__own", f"kind: kary\nk: {'9' * 5000}", ["tree=own"], ["tree/own.yaml", "5000 digits"]),
        ("tree__own", "#" * 1_000_001, ["tree=own"], ["tree/own.yaml", "too large"]),
        ("tree__own", "3", ["tree=own"], ["tree=own", "expected keys and values"]),
        ("tree__own", "defaults: [own]\nkind: chain\n", ["tree=own"], ["tree=own", "includes itself"]),
    ],
)
def test_bad_files(user_dir: Callable[..., Path], file: str, text: str, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        compose(user_dir(**{file: text}), "pair=zoo", *overrides)
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


def test_files_that_are_no_text(user_dir: Callable[..., Path]) -> None:
    folder = user_dir()
    (folder / "me").symlink_to(folder)
    (folder / "tree").mkdir()
    (folder / "tree/again.yaml").symlink_to("again.yaml")
    assert len(compose(folder, "pair=zoo", "tree=chain", "budget=4").points) == 1
    with pytest.raises(ConfigError, match="tree=again: there is no such tree"):
        compose(folder, "tree=again")
    (folder / "tree/latin.yaml").write_bytes("kind: chain  # \xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8 \(byte 15\)"):
        compose(folder, "tree=chain")
    (folder / "tree/latin.yaml").unlink()
    (folder / "tree/folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.yaml: a folder; expected a YAML file"):
        compose(folder, "tree=chain")


def test_as_many_as_the_limit_are_fine(small: Path) -> None:
    assert len(compose(small, "budget=range(1,4)", "most_combinations=12").points) == 12
    assert (
        len(compose(small, "pair=zoo", "tree=chain", "budget=shuffle(range(1,4))", "most_combinations=3").points) == 3
    )


@pytest.mark.parametrize("text", ["[(0,),(0,0)]", "[(0,), (0, 0)]", "'[(0,), (0, 0)]'", "[[0],[0,0]]"])
def test_rank_paths_as_python_writes_them(small: Path, text: str) -> None:
    (point,) = compose(small, "pair=zoo", "budget=4", "tree=paths", f"tree.paths={text}").points
    assert point.groups["tree"].paths == [[0], [0, 0]]


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        (["tree=chain,kary,wide", "tree.k=2,3"], ["chain", "kary", "kary-k3", "wide"]),
        (["tree=chain,kary", "tree.k=3"], ["chain", "kary-k3"]),
        (["tree=kary,beam", "tree.k=2,3", "tree.width=2,4"], ["kary", "kary-k3", "beam", "beam-w4"]),
        (["tree=kary", "tree.k=2,3"], ["kary", "kary-k3"]),
    ],
)
def test_a_parameter_applies_to_the_shapes_that_have_it(small: Path, said: list[str], labels: list[str]) -> None:
    study = compose(small, "pair=zoo", "budget=4", *said)
    assert [point.groups["tree"].label for point in study.points] == labels
    for point in study.points:
        (again,) = compose(small, *point.overrides).points
        assert again.groups == point.groups
    assert [note.partition(" ")[0] for note in study.notes] == [
        text.partition("=")[0] for text in said[1:] if "," in said[0]
    ]


def test_a_parameter_of_a_rule_or_a_drafter_too(small: Path) -> None:
    def groups(*said: str) -> list[object]:
        points = compose(small, "pair=zoo", "budget=4", "tree=chain", *said).points
        return [point.groups[said[0].partition("=")[0]].label for point in points]

    assert groups("acceptance=greedy,typical", "acceptance.delta=0.1,0.2") == [
        "greedy", "typical-delta0.1", "typical-delta0.2"]  # fmt: skip
    assert groups("drafter=model,ngram", "drafter.num_output_tokens=4,5") == ["model", "ngram-not4", "ngram-not5"]


def test_keys_that_overrides_set() -> None:
    overrides = ["pair=zoo", "+sampling.top_k=5", "tree.paths=[[0],[1]]", "output.steps=a=b", "~budget", "pair=x"]
    assert override_keys(overrides) == ["pair", "sampling.top_k", "tree.paths", "output.steps", "budget", "pair"]
    assert override_groups(overrides) == ["pair", "sampling", "tree", "output", "budget", "pair"]


def test_defaults_give_way_to_a_key_and_to_what_is_below_it() -> None:
    defaults = {"pair": "zoo", "budget": "8", "prompts.limit": "2"}
    assert unless_said([], defaults) == ["pair=zoo", "budget=8", "prompts.limit=2"]
    assert unless_said(["pair.draft.path=x", "budgets=3", "prompts=bundled"], defaults) == [
        "budget=8",
        "prompts.limit=2",
    ]
    assert unless_said(["+budget=3", "prompts.limit=1"], defaults) == ["pair=zoo"]


def test_each_default_is_in_one_place(small: Path) -> None:
    parameters = inspect.signature(SpeculativeDecoder).parameters
    for name in ("budget", "max_new_tokens", "max_prompt_tokens", "seed"):
        assert parameters[name].default == getattr(Settings, name)
    assert compose(small).points[0].settings == Settings(name="small", budget=4)
    assert shape_of(["tree=chain"])[1] == Settings.budget


@pytest.mark.parametrize(
    "value", ["${oc.env:SECRET}", "a-${oc.env:SECRET}", "${oc.env:SECRET,x}", "${oc.${name}:SECRET}", "${oc.decode:1}"]
)
def test_environment_variables_do_not_get_into_values(
    value: str, small: Path, user_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    pair = "name: {}\ntarget: {{path: zoo:target}}\ndraft: {{path: zoo:draft}}\n"
    escaped = value.replace("$", "\\u0024", 1)
    cases = [
        (small, [f"pair.name='{value}'"]),
        (small, [f"name={value}"]),
        (user_dir(pair__mine=pair.format(f"'{value}'")), ["pair=mine"]),
        (user_dir(pair__mine=pair.format(f'"{escaped}"')), ["pair=mine"]),
        (user_dir(sweep=SWEEP.replace("tree: chain}", f"tree: '{value}'}}")), []),
        (user_dir(sweep=SWEEP.replace('"4,8"', f'"{escaped}"')), []),
    ]
    for folder, overrides in cases:
        with pytest.raises(ConfigError, match=r"is refused; a value may refer to other keys only") as caught:
            compose(folder, *overrides)
        assert "s3cret" not in str(caught.value)


def test_values_may_refer_to_keys_and_comments_may_hold_anything(user_dir: Callable[..., Path]) -> None:
    folder = user_dir(sweep=SWEEP + "seed: ${max_new_tokens}  # not ${oc.env:HOME}\nmax_new_tokens: 5\n# ${a:b}\n")
    assert {point.settings.seed for point in compose(folder).points} == {5}


def test_missing_config_dir(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config-dir .*none: no such folder"):
        compose(tmp_path / "none")


class TestComposedOnce:
    """What is composed for each point is composed for each part."""

    GRID = ("pair=zoo,zoo-tiny", "tree=chain,beam,medusa,best_first", "sampling=greedy,sample", "budget=2,4")

    @pytest.mark.parametrize(
        ("wanted", "count"),
        [(GRID, 32), (("experiment=course-report-widths",), 30), (("experiment=course-report-siblings",), 6)],
    )
    def test_a_choice_is_what_hydra_composes(
        self, wanted: tuple[str, ...], count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quick = compose_study([*wanted], schemas())
        monkeypatch.setattr(ConfigFiles, "_plain", False)
        assert compose_study([*wanted], schemas()).points == quick.points
        assert len(quick.points) == count

    @pytest.mark.parametrize("study", [None, *EXPERIMENTS])
    def test_hydra_composes_a_bundled_study_once(self, study: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tenth of a second each time: with every choice it would be the most of what a sweep takes to begin."""
        composed = []

        def compose(self: ConfigFiles, choices: list[str]) -> DictConfig:
            composed.append(choices)
            return whole(self, choices)

        whole = ConfigFiles.compose
        monkeypatch.setattr(ConfigFiles, "compose", compose)
        chosen = [f"experiment={study}"] if study else []
        assert compose_study(chosen, schemas()).points
        assert composed == [chosen]

    def test_a_changed_file_is_read_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = Path(shutil.copytree(bundled_config_dir(), tmp_path / "configs"))
        monkeypatch.setattr("specdraft.config.files.bundled_config_dir", lambda: folder)
        found = []
        for k in (3, 4):
            (folder / "tree" / "kary.yaml").write_text(f"kind: kary\nk: {k}\n")
            for _ in range(2):
                with ConfigFiles(None, schemas()) as files:
                    tree = files.compose(["tree=kary"])["tree"]
                found.append(tree["k"])
                tree["k"] = 0  # a copy, whoever has it
        assert found == [3, 3, 4, 4]

    def test_a_file_with_defaults_of_its_own_is_composed(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "own.yaml").write_text("defaults: [kary]\nk: 5\n")
        own, chain = compose_study(["pair=zoo", "tree=own,chain", "budget=2"], schemas(), tmp_path).points
        assert (own.groups["tree"].label, chain.groups["tree"].label) == ("kary-k5", "chain")

    @pytest.mark.parametrize("text", ["# @package _global_\ntree: {max_depth: 3}\n", "# @package tree\nmax_depth: 3\n"])
    def test_an_experiment_has_a_say_in_each_choice(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "experiment").mkdir()
        (tmp_path / "experiment" / "own.yaml").write_text(text)
        points = compose_study(["experiment=own", "pair=zoo", "+tree=sequoia,measured"], schemas(), tmp_path).points
        assert {point.groups["tree"].max_depth for point in points} == {3}

    def test_numbers(self) -> None:
        points = compose_study(
            ["pair=zoo", "tree=chain", "budget=2,4", "max_new_tokens=8,9", "seed=3"], schemas()
        ).points
        said = [(p.settings.budget, p.settings.max_new_tokens, p.settings.seed) for p in points]
        assert said == [(2, 8, 3), (2, 9, 3), (4, 8, 3), (4, 9, 3)]
        assert len({id(p.settings) for p in points}) == 4

    def test_a_number_that_another_value_refers_to(self) -> None:
        said = ["pair=zoo", "tree=chain", "budget=2", "max_new_tokens=${budget}", "name=a,b"]
        settings = [point.settings for point in compose_study(said, schemas()).points]
        assert [(one.name, one.budget, one.max_new_tokens) for one in settings] == [("a", 2, 2), ("b", 2, 2)]

    def test_numbers_are_checked(self) -> None:
        with pytest.raises(ConfigError, match="max_new_tokens=0 is out of range"):
            compose_study(["pair=zoo", "tree=chain", "max_new_tokens=4,0"], schemas())
        with pytest.raises(ConfigError, match="max_new_tokens"):
            compose_study(["pair=zoo", "tree=chain", "max_new_tokens=4,true"], schemas())
