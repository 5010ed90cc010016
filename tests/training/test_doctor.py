"""The doctor finds what is there, says what is wrong and names one thing to do."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import pytest

from training import doctor
from training.cli import main
from training.doctor import Check, Status, examine, next_step


def found(name: str) -> Check:
    return next(check for check in examine() if check.name == name)


def test_a_good_installation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SC2PATH", raising=False)
    checks = examine()
    assert not [check for check in checks if check.status is Status.BAD]
    assert {"python", "torch", "simulator", "ray works", "pysc2 works", "StarCraft II"} <= {
        c.name for c in checks
    }
    assert main(["doctor"]) == 0
    assert "Next:" in capsys.readouterr().out


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))
    check = found("no-such-package")
    assert check.status is Status.BAD
    assert next_step(examine()) == "pip install no-such-package"
    assert main(["doctor"]) == 1


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 9), "BAD"), ((3, 11, 0), "GOOD"), ((3, 13, 9), "GOOD"), ((3, 14, 0), "BAD")],
)
def test_the_pythons_of_the_package(
    version: tuple[int, ...], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["requires-python"] == ">=3.11,<3.14"
    monkeypatch.setattr(sys, "version_info", version)
    check = doctor._python()
    assert check.status is Status[status]
    assert ("3.11" in check.remedy) == (status == "BAD")


def test_details_are_printed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.commands.doctor.examine", lambda: [Check("a", Status.GOOD, "/opt/[v2]/py")])
    assert main(["doctor"]) == 0
    assert "/opt/[v2]/py" in capsys.readouterr().out


def test_a_wrong_sc2path(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike) -> None:
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    check = found("StarCraft II")
    assert check.status is Status.NOTE
    assert "SC2PATH" in next_step([check])


def test_what_breaks_unforeseen_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def _ray() -> Check:
        raise RuntimeError("half installed")

    monkeypatch.setattr(doctor, "_ray", _ray)
    check = found("ray works")
    assert check.status is Status.BAD
    assert "half installed" in check.detail


def test_what_is_needed_comes_first() -> None:
    note = Check("a", Status.NOTE, "", "later")
    assert next_step([note, Check("b", Status.BAD, "", "now")]) == "now"
    assert next_step([note]) == "later"
    assert next_step([Check("c", Status.GOOD, "")]) == "perceiver-policy train"
