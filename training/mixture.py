"""Several scenarios named together, each with a weight: what one policy trains on, or is evaluated on.

An entry is a scenario as :func:`~envs.scenarios.load_scenario` takes it, a group of
:func:`~envs.scenarios.scenario_groups` (``smac``, ``smacv2``, ``symmetric``, ``large``), a range of fights
(``marine_2-8``, see ``envs/skirmish.py``) or a mixture file; groups and ranges take a preset, too
(``smac@smac``). ``=NUMBER`` behind it is the weight of each scenario it names, 1 if left out::

    3m 8m=2 2s3z                three scenarios, half of the battles on 8m
    marine_1-8 marine_4-8v+1    thirteen sizes of marine fights
    smac 27m_vs_30m=3           all of SMAC, one of them more often
    smac corridor=0             all of SMAC but one

A scenario named for itself has its own weight, whatever a group says; weight 0 leaves it out. A mixture file
is YAML, with entries and weights under ``scenarios``; scenario files in it are found from where it lies::

    scenarios: {marine_2-8: 1, 8m: 2, maps/own.yaml: 1}

Missions are played for a score that knows no common measure with a victory: a mixture holds none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from envs.marked_yaml import Marked, Reader
from envs.scenarios import ScenarioError, load_scenario, scenario_groups
from envs.skirmish import skirmish_range

_KEY = "scenarios"


def parse_mixture(entries: str | Sequence[str]) -> dict[str, float]:
    """The scenarios that entries name, as :func:`~envs.scenarios.load_scenario` takes them, with weights.

    Weights are as given, not shares. A single scenario may be a mission.

    Raises:
        ScenarioError: an unknown or wrong scenario; one named twice, or two of one name; a weight that is
            negative or infinite; a mission among others; or nothing is left.
    """
    of_groups: dict[str, float] = {}
    of_its_own: dict[str, float] = {}
    for scenario, weight, alone in _named((entries,) if isinstance(entries, str) else entries):
        if not 0 <= weight < math.inf:
            raise ScenarioError(f"{scenario}: the weight is {weight:g}; it must be 0 or more, and finite")
        if alone and scenario in of_its_own:
            raise ScenarioError(f"{scenario} is named twice; give it a weight, such as {scenario}=2, instead")
        (of_its_own if alone else of_groups)[scenario] = weight
    mixture = {name: weight for name, weight in (of_groups | of_its_own).items() if weight}
    if not mixture:
        raise ScenarioError("no scenario is left: name at least one with a weight above 0")
    loaded = {name: load_scenario(name) for name in mixture}
    names = [scenario.name for scenario in loaded.values()]
    for spelled, one in loaded.items():
        if names.count(one.name) > 1:
            raise ScenarioError(f"two scenarios are called {one.name}; rename one, or leave out {spelled}")
        if one.mission is not None and len(loaded) > 1:
            raise ScenarioError(
                f"{one.name} is a mission, which has a score and no winner; a mixture holds battles only: "
                f"leave it out with {spelled}=0, or train on it alone"
            )
    return mixture


def _named(entries: Sequence[str]) -> Iterator[tuple[str, float, bool]]:
    """Scenario, weight, and whether it was named for itself; mixture files taken apart."""
    for entry in entries:
        name, weight = _weighted(entry)
        listed = _listed(name)
        if listed is None:
            yield from _expanded(name, weight)
            continue
        folder = Path(name).parent
        for inner, own_weight in listed.items():
            spelled = str(folder / inner) if inner.endswith((".yaml", ".yml")) else inner
            yield from _expanded(spelled, own_weight * weight)


def _weighted(entry: str) -> tuple[str, float]:
    name, equals, number = entry.rpartition("=")
    if not equals:
        return entry, 1.0
    try:
        return name, float(number)
    except ValueError:
        return entry, 1.0  # the = is part of a path


def _expanded(name: str, weight: float) -> Iterator[tuple[str, float, bool]]:
    text, at, preset = name.partition("@")
    several = scenario_groups().get(text) or skirmish_range(text)
    if not several:
        load_scenario(name)  # an unknown one is refused even with weight 0
        yield name, weight, True
    for one in several:
        yield f"{one}{at}{preset}", weight, False


def _listed(name: str) -> dict[str, float] | None:
    """The entries of a mixture file; None if ``name`` is no such file."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return None
    read = Reader(str(path))
    root = read.document(path.read_bytes())
    if not isinstance(root, Marked) or _KEY not in root:
        return None
    entries = read.mapping(read.mapping(root, 1, "a mixture", (_KEY,))[_KEY], root.lines[_KEY], _KEY, None)
    for entry, weight in entries.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            read.fail(entries.lines[entry], f"the weight of {entry} is {weight!r}; it must be a number")
    return {entry: float(weight) for entry, weight in entries.items()}
