"""Fixtures in the place of the tiny pair, for folders whose tests decode a lot: a layer less."""

from __future__ import annotations

import pytest

from specdraft.drafters.pair import Pair, load_pair
from support.tiny_models import PairFolders, save_pair


@pytest.fixture(scope="session")
def tiny_pair_folders(tmp_path_factory: pytest.TempPathFactory) -> PairFolders:
    """A target and a draft model as saved folders. Do not write into them."""
    return save_pair(tmp_path_factory.mktemp("tinier-pair"), layers=2)


@pytest.fixture(scope="session")
def tiny_pair(tiny_pair_folders: PairFolders) -> Pair:
    return load_pair(tiny_pair_folders.spec())
