"""Several scenarios named together."""

from pathlib import Path

import pytest

from envs.scenarios import ScenarioError, scenario_groups
from training.mixture import parse_mixture


def test_entries_and_weights() -> None:
    assert parse_mixture("3m") == {"3m": 1.0}
    assert parse_mixture(("3m", "8m=2", "2s3z=0.5")) == {"3m": 1.0, "8m": 2.0, "2s3z": 0.5}
    assert parse_mixture("move_to_beacon") == {"move_to_beacon": 1.0}


def test_groups_and_ranges() -> None:
    assert tuple(parse_mixture("smacv2")) == scenario_groups()["smacv2"]
    assert parse_mixture("marine_2-3@smac=4") == {"marine_2v2@smac": 4.0, "marine_3v3@smac": 4.0}
    mixed = parse_mixture(("27m_vs_30m=3", "smac", "corridor=0"))
    assert mixed.keys() == {*scenario_groups()["smac"]} - {"corridor"}
    assert (mixed["27m_vs_30m"], mixed["3m"]) == (3.0, 1.0)
    assert parse_mixture(("marine_2-4=2", "marine_3-5=1"))["marine_3v3"] == 1.0, "the later group counts"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (("3m", "8n"), "unknown scenario '8n'"),
        (("3m", "8n=0"), "unknown scenario '8n'"),
        (("3m", "8m", "3m=2"), "3m is named twice"),
        (("3m", "3m@native"), "two scenarios are called 3m"),
        (("3m", "move_to_beacon"), "move_to_beacon is a mission.*move_to_beacon=0"),
        ("missions", "is a mission"),
        ("3m=-1", "the weight is -1"),
        (("3m=inf", "8m"), "the weight is inf"),
        (("3m=nan", "8m"), "the weight is nan"),
        ("3m=0", "no scenario is left"),
        ((), "no scenario is left"),
    ],
)
def test_what_makes_no_mixture_is_refused(entries: str | tuple[str, ...], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse_mixture(entries)


def test_a_mixture_file(tmp_path: Path) -> None:
    """Its scenario files are found from where it lies, and its weights multiply with the entry's."""
    (tmp_path / "own=1.yaml").write_text(
        "map: {width: 32, height: 32}\nteams:\n- {units: {marine: 2}, spawn: [9, 16]}\n"
        "- {units: {marine: 2}, spawn: [23, 16]}\nstep_limit: 60\n"
    )
    file = tmp_path / "mixed.yaml"
    file.write_text("scenarios: {marine_2-3: 1, 8m: 2.5, own=1.yaml: 3}\n")
    expected = {"marine_2v2": 1.0, "marine_3v3": 1.0, "8m": 2.5, str(tmp_path / "own=1.yaml"): 3.0}
    assert parse_mixture(str(tmp_path / "own=1.yaml")) == {str(tmp_path / "own=1.yaml"): 1.0}
    assert parse_mixture(str(file)) == expected
    assert parse_mixture((f"{file}=2", "3m")) == {name: 2 * w for name, w in expected.items()} | {"3m": 1.0}
    file.write_text("scenarios: {3m: often}\n")
    with pytest.raises(ScenarioError, match=r"mixed.yaml:1: the weight of 3m is 'often'"):
        parse_mixture(str(file))
    file.write_text("scenarios: {3m: 1}\nweights: 2\n")
    with pytest.raises(ScenarioError, match=r"mixed.yaml:2: unknown key 'weights'"):
        parse_mixture(str(file))
