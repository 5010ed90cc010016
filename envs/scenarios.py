"""Scenarios: who fights whom, where and for how long. Named ones, and YAML files of one's own.

The model is ``envs/scenario_model.py``, its files are explained in ``envs/scenario_files.py``; the scenarios
named by :func:`scenario_names` are such files, shipped with the package. This module is the face of both.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from envs.scenario_files import parse_scenario, scenario_from_json
from envs.scenario_limits import (
    MAX_MAP_SIZE,
    MAX_STEPS,
    MAX_UNITS,
    MIN_MAP_SIZE,
    MissionKind,
    Placement,
    Preset,
    ScenarioError,
    formation_radius,
)
from envs.scenario_model import Draw, Group, Mission, Scenario, Team
from envs.skirmish import skirmish

__all__ = [
    "MAX_MAP_SIZE",
    "MAX_STEPS",
    "MAX_UNITS",
    "MIN_MAP_SIZE",
    "Draw",
    "Group",
    "Mission",
    "MissionKind",
    "Placement",
    "Preset",
    "Scenario",
    "ScenarioError",
    "Team",
    "formation_radius",
    "load_scenario",
    "scenario_from_json",
    "scenario_groups",
    "scenario_names",
]

_GROUP_OF_PREFIX = {"smacv2": "smacv2", "symmetric": "symmetric", "choke": "symmetric", "battle": "large"}

MAX_FILE = 1 << 20
"""Bytes of a scenario file."""


def scenario_names() -> list[str]:
    """Names of the shipped scenarios, small ones first."""
    return sorted(_shipped_names(), key=lambda name: (_shipped(name).num_units, name))


def scenario_groups() -> Mapping[str, tuple[str, ...]]:
    """Names of the shipped scenarios, small ones first, by what they are.

    "smac": the maps of the StarCraft Multi-Agent Challenge; "smacv2": its successor's drawn teams;
    "missions": mini-games with a score; "symmetric": even battles with drawn types or terrain; "large": many
    units.
    """
    groups: dict[str, list[str]] = {key: [] for key in ("smac", "smacv2", "missions", "symmetric", "large")}
    for name in scenario_names():
        group = _GROUP_OF_PREFIX.get(name.split("_")[0], "smac")
        groups["missions" if _shipped(name).mission is not None else group].append(name)
    return {group: tuple(names) for group, names in groups.items()}


def load_scenario(name_or_path: str | Path) -> Scenario:
    """A shipped scenario by name, a fight of any size such as ``marine_5v6`` (``envs/skirmish.py``), or one
    of your own from a path ending in ``.yaml`` or ``.yml``.

    A name or path followed by ``@smac`` or ``@native`` gives the scenario under that preset; its name then
    ends in ``@smac``, so that results tell them apart.

    Raises:
        ScenarioError: unknown name or preset (with the known ones), or a file that breaks a rule (with its
            line).
    """
    text, at, preset = str(name_or_path).rpartition("@")
    if not at or "/" in preset or "." in preset:  # the @ is part of a path
        text, preset = str(name_or_path), ""
    elif preset not in {*Preset}:
        raise ScenarioError(f"{name_or_path}: unknown preset {preset!r}; known: {', '.join(Preset)}")
    scenario = _load(text)
    if preset:
        scenario = replace(scenario, preset=Preset(preset))
    if scenario.preset is Preset.NATIVE:
        return scenario
    return replace(scenario, name=f"{scenario.name}@{scenario.preset}")


def _load(text: str) -> Scenario:
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise ScenarioError(f"{path}: no such file")
        if path.stat().st_size > MAX_FILE:
            raise ScenarioError(
                f"{path}: {path.stat().st_size} bytes; a scenario file has at most {MAX_FILE}"
            )
        return parse_scenario(path.read_bytes(), str(path), path.stem)
    known = _shipped_names()
    if text not in known:
        fight = skirmish(text)
        if fight is not None:
            return fight
        near = difflib.get_close_matches(text, known, n=3, cutoff=0.3)
        hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
        raise ScenarioError(
            f"unknown scenario {text!r}; {hint}; a path to a .yaml file works too, "
            "and UNIT_NvM, such as marine_5v6"
        )
    return _shipped(text)


@cache
def _shipped_names() -> tuple[str, ...]:
    names = (path.name for path in _folder().iterdir())
    return tuple(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


@cache
def _shipped(name: str) -> Scenario:
    return parse_scenario(_folder().joinpath(f"{name}.yaml").read_bytes(), f"{name}.yaml", name)


def _folder() -> Traversable:
    return resources.files("envs").joinpath("scenarios")
