"""``perceiver-policy look``: what a policy attends to at a moment of a battle, as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import load_agent, load_opponent
from agents.learned import LearnedAgent
from envs.battle.batch import AutoReset, Control, require_units
from envs.battle.match import Match
from envs.battle.tactics import DEFAULT
from envs.scenarios import load_scenario
from envs.unit_set import ACTOR_KEYS, Verb
from perceiver_policy.looking import record
from perceiver_policy.pictures import draw_attention_matrix, draw_latents, look_at_policy, require_pictures
from training.commands.door import door, refuse, require_writable
from training.trained_as import trained_as

VERBS = [verb.name.lower().replace("_", " ") for verb in Verb]


@dataclass(frozen=True)
class Args:
    """Play a battle up to a step, and draw what the policy attends to there: unit_N.png for some of its units
    (attention, pointer, verbs), latents.png over the steps so far, attention_LAYER.png for every layer.

    Needs the extra ``pictures``.
    """

    agent: str
    """Who plays the first side: policy:NAME, or the folder of an exported policy or of a run."""
    opponent: str = DEFAULT
    """Who plays the second side, as for ``watch``."""
    scenario: str = "8m"
    """A scenario's name, or the path of a scenario file."""
    step: int = 20
    """The step to look at; 0 is the start."""
    units: int = 3
    """How many of the living units to draw, from the first."""
    seed: int = 0
    """The battle's seed."""
    out: Path = Path("look")
    """The folder to write to; made if need be."""


class Moment(NamedTuple):
    """A step of a battle, as the policy meets it."""

    observation: dict[str, Tensor]  # one row an observer: the team, or each of its units
    latents: Tensor  # (T, observers, N, D), of each step so far
    living: list[tuple[int, int]]  # observer and slot of each living unit


def run(args: Args) -> int:
    """Play, and write the pictures."""
    with door():
        for name, value, least in (("step", args.step, 0), ("units", args.units, 1)):
            if value < least:
                raise ValueError(f"--{name} is {value}; it must be at least {least}")
        if not 0 <= args.seed < 2**64:
            raise ValueError(f"--seed is {args.seed}; it must be from 0 to 2**64 - 1")
        scenario = load_scenario(args.scenario)
        agent, opponent = load_agent(args.agent), load_opponent(args.opponent)
        if not isinstance(agent, LearnedAgent):
            raise ValueError(f"--agent is {args.agent}, which has no attention; give a policy's folder")
        for side, player in enumerate((agent, opponent)):
            if not isinstance(player, str):
                require_units(scenario, side)
        args.out.mkdir(parents=True, exist_ok=True)
        require_pictures(args.out / "latents.png")
        require_writable(args.out / "latents.png")
        control = trained_as(args.agent).control
    match = Match(scenario, 1, players=(agent, opponent), control=control, auto_reset=AutoReset.OFF)
    match.reset(np.array([args.seed], np.uint64))
    moment = play(match, agent, args.step)
    where = f"{scenario.name}, step {args.step}"
    for path in draw(agent, moment, args.units, args.out, where):
        print(path)
    return 0


def play(match: Match, agent: LearnedAgent, step: int) -> Moment:
    """Play up to a step; the policy is asked there, too, but its orders are not given.

    Raises:
        SystemExit: with code 2, the battle is over by then.
    """
    latents = []
    for taken in range(step + 1):
        with record(agent.policy, layers=()) as recording:
            if taken < step:
                result = match.step({})
            else:
                agent.act(_observers(match))
        (stages,) = recording.latents.values()
        num_blocks = agent.policy.config.encoder.num_blocks
        latents.append(torch.cat(stages[num_blocks - 1 :: num_blocks]).clone())
        if taken < step and result.done[0]:
            refuse(f"the battle is over after {taken + 1} steps; give a --step from 0 to {taken}")
    rows = _observers(match)
    living = [(int(observer), int(slot)) for observer, slot in np.argwhere(rows["controlled_mask"])]
    return Moment({key: torch.as_tensor(array) for key, array in rows.items()}, torch.stack(latents), living)


def draw(agent: LearnedAgent, moment: Moment, num_units: int, out: Path, where: str) -> list[Path]:
    """Write the pictures of a moment, and return their paths."""
    paths = []
    for observer, slot in moment.living[:num_units]:
        unit = max(observer, slot)  # one observer with many slots, or many observers with one
        paths.append(out / f"unit_{unit}.png")
        look_at_policy(
            agent.policy,
            moment.observation,
            paths[-1],
            unit=slot,
            index=observer,
            verbs=VERBS,
            title=f"{where}, unit {unit}",
        )
    observer = moment.living[0][0]
    paths.append(out / "latents.png")
    draw_latents(moment.latents[:, observer], paths[-1], steps="step", title=f"Latents, {where}")
    with torch.no_grad(), record(agent.policy) as recording:
        agent.policy({key: tensor[observer : observer + 1] for key, tensor in moment.observation.items()})
    for entry in recording.attention:
        name = f"{entry.name}, call {entry.call}" if entry.call else entry.name
        paths.append(out / f"attention_{name.replace(', call ', '_')}.png")
        draw_attention_matrix(entry.probabilities[0], paths[-1], title=f"{name}: {where}")
    return paths


def _observers(match: Match) -> dict[str, NDArray]:
    """What the first side sees, one row an observer: the team, or each of its units."""
    observation = match.batch.observations[0]
    assert observation is not None
    team = match.batch.control is Control.TEAM
    return {key: observation[key] if team else observation[key][0] for key in ACTOR_KEYS}
