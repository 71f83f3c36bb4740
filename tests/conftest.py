"""What every test may ask for: the command line, and a tiny random pair made in code. Nothing is downloaded."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels on a CPU; before anything imports Triton
gc.disable()  # until all is imported

import sys

import pytest
import torch
import typer
from hypothesis import HealthCheck, settings
from support.command_line import Run, Said
from support.tiny_models import PairFolders, save_pair
from support.tiny_t5 import save_t5_pair
from transformers.utils import logging as transformers_logging

from specdraft import cli
from specdraft.bench import measuring
from specdraft.drafters.pair import Pair, load_pair

torch.set_num_threads(1)  # a second thread only makes models of this size wait for it
settings.register_profile("specdraft", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # for busy machines
settings.load_profile("specdraft")
transformers_logging.disable_progress_bar()


def pytest_collection_finish() -> None:
    """What is imported stays: looking through it for garbage, again and again, is a tenth of the tests' time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def built_once() -> Iterator[None]:
    """The command line is built once: Typer does it in every call, which takes as long as many a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="module")
def few_rounds() -> Iterator[None]:
    """Costs are measured in as few rounds as give any, for tests to which they are numbers like others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "LEAST_ROUNDS_S", 0.0)
        patch.setattr(measuring, "steady", lambda seconds: len(seconds) >= measuring.FEWEST)
        yield


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["specdraft", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        code = stop.value.code
        return Said(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_pair_folders(tmp_path_factory: pytest.TempPathFactory) -> PairFolders:
    """A target and a draft model as saved folders. Do not write into them."""
    return save_pair(tmp_path_factory.mktemp("tiny-pair"))


@pytest.fixture(scope="session")
def tiny_pair(tiny_pair_folders: PairFolders) -> Pair:
    return load_pair(tiny_pair_folders.spec())


@pytest.fixture(scope="session")
def t5_pair_folders(tmp_path_factory: pytest.TempPathFactory) -> PairFolders:
    """An encoder-decoder and its draft model as saved folders. Do not write into them."""
    return save_t5_pair(tmp_path_factory.mktemp("t5-pair"))
