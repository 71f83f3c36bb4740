"""What a study wants of machines: targets over several graphics cards, and workers that have as many."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec

from specdraft.config import Point, Settings
from specdraft.drafters.pair import PairFiles
from specdraft.errors import ConfigError
from specdraft.models.placement import cards_of
from specdraft.models.spec import SPREAD, PairSpec

ANSWER_S = 10.0  # for a cluster to take a call


def placed(points: Iterable[Point], gpus: int | None) -> list[Point]:
    """The points, their targets over so many graphics cards. Raises `ConfigError` for targets that are elsewhere."""
    if gpus is None:
        return [*points]
    return [replace(point, groups=point.groups | {"pair": _placed(point.groups["pair"], gpus)}) for point in points]


def _placed(pair: PairSpec, gpus: int) -> PairSpec:
    asked, device = f"resources.target.gpus={gpus}", pair.target.device
    if pair.target.served:
        raise ConfigError(f"{asked} has no effect with pair.target.server.url: no weights are read")
    if device not in ("auto", "cuda", SPREAD):
        raise ConfigError(f"{asked} does not go with pair.target.device={device}; leave one of them out")
    return replace(pair, target=replace(pair.target, device=f"{SPREAD}:{gpus}"))


def check_resources(settings: Settings, pairs: Iterable[PairFiles]) -> None:
    """Raise `ConfigError` where this machine has fewer graphics cards than a study wants of it, or no Ray; what a
    cluster has is seen once it answers."""
    if settings.executor == "local":
        for model in {id(files): files for pair in pairs for files in pair.models}.values():
            if model.spec.cards:
                cards_of(model.spec)
        return
    if settings.executor == "ray" and find_spec("ray") is None:
        raise ConfigError("executor=ray needs the package ray: pip install 'specdraft[ray]'")
    if settings.resources.address is not None:
        _check_address(settings.resources.address)
    else:
        from specdraft.study.executors.shares import share_of

        share_of(settings)


def _check_address(address: str) -> None:
    """Raise `ConfigError` where nothing answers at `HOST:PORT`, for which Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r"[\w.-]+", host) or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"resources.address={address}: nothing answers there ({error})") from error
