"""A league across processes: runners of its own, and a kill from outside."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from training.league import LeagueConfig, run_league
from training.league.folder import LeagueFolder
from training.league.payoff import Result
from training.rl.config import TrainConfig

pytestmark = pytest.mark.slow

TINY_MODEL = ("encoder.num_latents=2", "encoder.num_latent_channels=8", "unit_input.num_channels=8")


@pytest.mark.timeout(600)
def test_opponents_weights_travel_to_remote_runners(tmp_path):
    """A main exploiter on two runners against the main player's weights, which only the main player has."""
    league = LeagueConfig(
        scripts=("attack-move",), league_exploiters=0, turn_steps=96, opponents=1, snapshot_steps=10**6
    )
    job = TrainConfig(
        run_dir=tmp_path / "run",
        num_env_runners=2,
        num_battles=8,
        rollout_steps=32,
        minibatch_size=128,
        num_epochs=1,
        max_env_steps=1536,
        model_overrides=TINY_MODEL,
    )
    result = run_league(league, job, console=Console(file=io.StringIO()))
    payoff = result.state.payoff
    i, j = (payoff.names.index(name) for name in ("main-exploiter-1", "main"))
    assert payoff.counts[i, j].sum() > 0
    assert payoff.counts[i, j, Result.WIN] == payoff.counts[j, i, Result.LOSS]
    assert result.state.learners["main-exploiter-1"].env_steps == 768


@pytest.mark.timeout(900)
def test_a_kill_from_outside_loses_no_more_than_a_turn(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "training.cli", "league", "--run-dir", str(run)]
    settings = ["--max-env-steps", "4096", "--turn-steps", "64", "--num-battles", "8", "--opponents", "2"]
    settings += ["--rollout-steps", "32", "--minibatch-size", "128", "--snapshot-steps", "1024"]
    settings += ["--model-overrides", *TINY_MODEL]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [*command, *settings], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state = run / "league.json"
    while not state.is_file() or json.loads(state.read_text())["turn"] < 4:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = LeagueFolder(run).read()
    subprocess.run([*command, "--resume"], env=environment, check=True, capture_output=True)
    after = LeagueFolder(run).read()
    assert after.learners["main"].env_steps == 4096
    assert after.turn == 22, "three learners; the main player's eighth turn is the last"
    n = len(before.payoff.names)
    assert after.payoff.names[:n] == before.payoff.names
    assert (after.payoff.counts[:n, :n] >= before.payoff.counts).all()
    assert after.snapshots[: len(before.snapshots)] == before.snapshots
    assert np.isfinite(after.payoff.decayed).all()
