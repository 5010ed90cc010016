"""What of a run survives: a process killed as it writes, a disk that takes no more."""

import errno
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.rl.run_folder import Progress, RunFolder

KILLED_AS_IT_WRITES = """
import os, signal, sys
from pathlib import Path
from training.rl.run_folder import Progress, RunFolder

def half(to):
    Path(to, "state").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

RunFolder(Path(sys.argv[1])).save_checkpoint(Progress(env_steps=20), half)
"""


def whole(to: str) -> None:
    Path(to, "state").write_text("whole")


def test_a_process_killed_as_it_writes_a_checkpoint_leaves_the_one_before(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save_checkpoint(Progress(env_steps=10), whole)
    killed = subprocess.run([sys.executable, "-c", KILLED_AS_IT_WRITES, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(folder.checkpoints.iterdir())) == 2, "half of a checkpoint is there"
    path, progress = folder.latest_checkpoint()
    assert (progress.env_steps, (path / "state").read_text()) == (10, "whole")
    folder.save_checkpoint(Progress(env_steps=30), whole)
    assert sorted(path.name[-2:] for path in folder.checkpoints.iterdir()) == ["10", "30"]


def test_an_export_that_a_killed_process_had_written_gets_its_place(tmp_path):
    folder = RunFolder(tmp_path)
    workspace = tmp_path / ".policy.abc"
    for name in ("old", "new"):
        (workspace / name).mkdir(parents=True)
        (workspace / name / "config.yaml").write_text(name)
    folder.sweep()
    assert (folder.policy / "config.yaml").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    (workspace / "new").mkdir(parents=True)
    (workspace / "new" / "config.yaml").write_text("half")
    folder.sweep()
    assert (folder.policy / "config.yaml").read_text() == "new"
    assert not workspace.exists()


@pytest.fixture
def small_disk():
    """No file of this process may pass 64 kB: the kernel cuts it off in the middle, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def test_a_disk_that_takes_no_more_leaves_the_checkpoint_before(tmp_path, small_disk):
    folder = RunFolder(tmp_path)
    folder.save_checkpoint(Progress(env_steps=10), whole)
    sizes = []

    def too_much(to):
        try:
            Path(to, "state").write_bytes(bytes(2**17))
        finally:
            sizes.append(Path(to, "state").stat().st_size)

    with pytest.raises(OSError, match="File too large") as refused:
        folder.save_checkpoint(Progress(env_steps=20), too_much)
    assert refused.value.errno == errno.EFBIG
    assert sizes == [2**16], "half of it was written"
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step_000000000010"]
    assert folder.latest_checkpoint()[1].env_steps == 10
