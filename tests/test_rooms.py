"""Who may import whom: arrows point one way, and ray and pysc2 stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REACHES = {
    "envs": {"envs"},
    "perceiver_policy": {"perceiver_policy"},
    "agents": {"agents", "envs", "perceiver_policy"},
    "training": {"training", "agents", "envs", "perceiver_policy"},
}
GUESTS = {  # package: the files and folders that import it
    "ray": (
        "perceiver_policy/rl_module.py",
        "perceiver_policy/rl_torso.py",
        "envs/battle/rllib_env.py",
        "training/",
    ),
    "pysc2": ("envs/starcraft/",),
    "s2clientprotocol": ("envs/starcraft/",),
    "matplotlib": (
        "perceiver_policy/pictures/",
        "training/benchmark/",
        "training/league/",
        "training/protocol/",
    ),
}
FILES = sorted(path.relative_to(ROOT).as_posix() for room in REACHES for path in (ROOT / room).rglob("*.py"))


def imported(file: str) -> Iterator[str]:
    """The top-level packages that ``file`` imports, at its head or later."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("file", FILES)
def test_imports_follow_the_arrows(file: str) -> None:
    packages = set(imported(file))
    assert packages & REACHES.keys() <= REACHES[file.partition("/")[0]]
    for guest, hosts in GUESTS.items():
        assert guest not in packages or file.startswith(hosts), f"{guest} belongs in {', '.join(hosts)}"


def test_playing_needs_no_ray() -> None:
    """An exported policy acts in programs that have no Ray."""
    code = "import sys, agents, envs, perceiver_policy; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
