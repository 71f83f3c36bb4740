"""JSON that a user names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specdraft.errors import ConfigError


def read_json(file: Path, named: str) -> Any:
    """What a JSON file holds, which the user named as `named`. Raises `ConfigError` where it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{named}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{named}: not JSON: {error}") from error
