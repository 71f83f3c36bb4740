"""What a study wants of machines is looked at before its folder is made."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from specdraft.config import Settings
from specdraft.config.settings import ResourceSpec
from specdraft.errors import ConfigError
from specdraft.study import resources
from specdraft.study.resources import check_resources


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of somebody who takes calls; Ray is there."""
    monkeypatch.setattr(resources, "find_spec", lambda name: name)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def asked(address: str) -> Settings:
    return Settings(executor="ray", resources=ResourceSpec(address=address))


def test_an_address_that_answers_and_those_that_only_ray_can_read(port: int) -> None:
    for address in (f"127.0.0.1:{port}", f"localhost:{port}", "auto", "ray://head:10001"):
        check_resources(asked(address), ())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999999"])
def test_an_address_that_does_not_answer(address: str, port: int) -> None:
    with pytest.raises(ConfigError, match=rf"^resources\.address={address}: nothing answers there \(.*\)$"):
        check_resources(asked(address), ())


def test_ray_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"executor=ray needs the package ray: pip install 'specdraft\[ray\]'"):
        check_resources(asked("auto"), ())
