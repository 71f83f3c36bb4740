"""From YAML files and command-line overrides to the points of a study's grid.

Hydra composes the chosen file of each group (`files`) and parses every override (`overrides`); omegaconf checks the
result against the dataclasses that the caller hands in (`typed`). Each choice of a group is composed once, however many
points share it (`points`).

May import: errors. What may be asked of a YAML file is in `yaml_bounds.py`; a group's schema belongs to the floor that
it is about; the keys of no group are in `settings.py`.
"""

from __future__ import annotations

from specdraft.config.compose import Study, compose_study, load_group
from specdraft.config.files import bundled_config_dir
from specdraft.config.json_files import read_json
from specdraft.config.kinds import kinds_in, label
from specdraft.config.overrides import override_groups, override_keys, override_text, unless_said
from specdraft.config.own_keys import own_group, own_keys
from specdraft.config.points import Point
from specdraft.config.settings import OutputSpec, Settings
from specdraft.config.typed import Schema, typed

__all__ = [
    "OutputSpec",
    "Point",
    "Schema",
    "Settings",
    "Study",
    "bundled_config_dir",
    "compose_study",
    "kinds_in",
    "label",
    "load_group",
    "override_groups",
    "override_keys",
    "override_text",
    "own_group",
    "own_keys",
    "read_json",
    "typed",
    "unless_said",
]
