"""The package as a whole."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_package_imports_neither_ray_nor_the_world() -> None:
    code = (
        "import sys, perceiver_policy; "
        "print([m for m in ('ray', 'envs', 'agents', 'training', 'gymnasium') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
