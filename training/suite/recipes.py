"""Suites as data: which scenarios, and how each is trained. ``smac.yaml`` and ``smacv2.yaml`` lie beside it.

A file of one's own has the same two keys; every field of :class:`~training.rl.config.TrainConfig` may be in
either place, but ``scenario``, ``run_dir`` and ``resume``::

    defaults: {gamma: 0.99, max_env_steps: 500_000}
    scenarios:
      3m: {max_env_steps: 300_000}
      8m: {init_from: suite:3m}  # with the weights that this suite's 3m ends with
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.mixture import parse_mixture
from training.rl.config import TrainConfig
from training.suite.jobs import Job

GROUPS = ("smac", "smacv2")
SUITE = "suite:"
"""What precedes a scenario in ``init_from``: the policy that the same suite trains on it."""
_HERE = Path(__file__).parent
_SUITES_OWN = ("scenario", "run_dir", "resume")
_FIELDS = sorted({field.name for field in dataclasses.fields(TrainConfig)} - set(_SUITES_OWN))


@dataclass(frozen=True)
class Recipe:
    """Settings of a suite's jobs, by scenario."""

    source: str
    """The file, for messages."""
    defaults: Mapping[str, Any]
    scenarios: Mapping[str, Mapping[str, Any]]

    def settings(self, scenario: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a scenario's job; ``changes`` count most."""
        return {**self.defaults, **self.scenarios.get(scenario, {}), **changes}


def group_recipe(group: str) -> Recipe:
    """The recipe that comes with the package for one of :data:`GROUPS`."""
    return load_recipe(_HERE / f"{group}.yaml")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        OSError: there is no such file.
        ValueError: it is no recipe; the message says where.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content.keys() <= {"defaults", "scenarios"}:
        raise ValueError(f"{path} is no recipe; it has the keys defaults and scenarios, and no others")
    defaults = _fields(path, "defaults", content.get("defaults"))
    scenarios = content.get("scenarios") or {}
    if not isinstance(scenarios, dict):
        raise ValueError(f"{path}: scenarios must map names to settings")
    named = {str(name): _fields(path, str(name), given) for name, given in scenarios.items()}
    return Recipe(str(path), defaults, named)


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE as a recipe's fields; the values are YAML.

    Raises:
        ValueError: one is not of this form, or names no field.
    """
    fields = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"change {change!r} must be KEY=VALUE, such as seed=1")
        try:
            fields[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"change {change!r}: {value!r} is no YAML value") from error
    return _fields(None, "changes", fields)


def suite_jobs(
    recipe: Recipe,
    scenarios: Sequence[str],
    directory: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    games: int = 1000,
    seed: int = 0,
) -> list[Job]:
    """A job for each scenario.

    Args:
        recipe: how.
        scenarios: which, each once; the recipe's defaults hold for those it does not name.
        directory: the suite's folder, in which ``suite:NAME`` lies.
        changes: fields that hold for all, whatever the recipe says.
        games, seed: of the evaluation after training.

    Raises:
        ScenarioError: an unknown scenario.
        ValueError: none or one twice, settings that :class:`~training.rl.config.TrainConfig` refuses, or a
            ``suite:NAME`` that is not among the scenarios.
    """
    if len(set(scenarios)) < max(len(scenarios), 1):
        raise ValueError(f"scenarios are {' '.join(scenarios)!r}; give one or more, each once")
    jobs = []
    for scenario in scenarios:
        if len(parse_mixture(scenario)) > 1:
            raise ValueError(f"{scenario} is more than one scenario; name them one by one")
        settings = recipe.settings(scenario, changes or {})
        after: tuple[str, ...] = ()
        start = settings.get("init_from")
        if isinstance(start, str) and start.startswith(SUITE):
            other = start.removeprefix(SUITE)
            if other not in scenarios:
                raise ValueError(
                    f"{recipe.source}: {scenario} starts from {start}, and {other} is not in the suite; add "
                    "it, or start from chance with init_from=null among the changes"
                )
            after, settings["init_from"] = (other,), str(directory / other)
        try:
            config = TrainConfig(scenario=scenario, **settings)
        except ValueError as error:
            raise ValueError(f"{recipe.source}, {scenario}: {error}") from error
        jobs.append(Job(scenario, config, after=after, games=games, seed=seed))
    return jobs


def _fields(path: Path | None, place: str, given: Any) -> dict[str, Any]:
    """Fields of a job, lists as tuples."""
    where = f"{path}, {place}" if path is not None else place
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError(f"{where}: settings must be KEY: VALUE, not {given!r}")
    for key in given:
        if key in _SUITES_OWN:
            raise ValueError(f"{where}: {key} is the suite's business; leave it out")
        if key not in _FIELDS:
            near = difflib.get_close_matches(str(key), _FIELDS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_FIELDS)}"
            raise ValueError(f"{where}: no setting {key!r}; {hint}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
