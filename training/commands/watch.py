"""``perceiver-policy watch``: a battle as a web page and a film."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from agents import load_opponent
from agents.roster import policy_folder
from envs.battle.batch import Control, require_units
from envs.battle.export import require_film
from envs.battle.replay import read_replay, record_battle
from envs.battle.tactics import DEFAULT, is_engine_player
from envs.scenarios import load_scenario
from training.battle_record import show_replay
from training.commands.door import door, require_writable
from training.trained_as import trained_as


@dataclass(frozen=True)
class Args:
    """Play a battle, or take a recorded one, and write replay.jsonl, battle.html and battle.gif or an MP4.

    The web page plays anywhere and loads nothing; the replay is simulated again exactly.
    """

    replay: tyro.conf.Positional[Path | None] = None
    """A recorded battle to show; without one, a battle is played."""
    agent: str = "scripted:kite"
    """Who plays the first side: scripted:NAME, policy:NAME, the folder of an exported policy or of a run, or
    a name as for --opponent."""
    opponent: str = DEFAULT
    """Who plays the second side: a player inside the engine (attack-move, attack-move-easy, -medium or -hard,
    focus-fire, kite, retreat-regroup, split, flank, hit-and-run, ambush, or a draw: mixed, black-box),
    scripted:NAME, policy:NAME, or a folder."""
    scenario: str = "3s_vs_5z"
    """A scenario's name, or the path of a scenario file."""
    seed: int = 0
    """The battle's seed."""
    out: Path = Path("battle")
    """The folder to write to; made if need be."""
    film: str = "battle.gif"
    """The name of the film in that folder; one that ends in .mp4 needs the extra ``video``."""
    sight: Literal["all", "first", "second"] = "all"
    """Whose sight the film shows: what that side does not see lies in fog."""


def run(args: Args) -> int:
    """Play or replay, and write the files."""
    with door():
        require_film(args.film)
        if Path(args.film).name != args.film:
            raise ValueError(f"--film is {args.film}; give a name, the folder is --out's")
        if args.replay is not None:
            recorded = read_replay(args.replay)
            recorded.play()
        else:
            scenario = load_scenario(args.scenario)
            first, second = load_opponent(args.agent), load_opponent(args.opponent)
            if not 0 <= args.seed < 2**64:
                raise ValueError(f"--seed is {args.seed}; it must be from 0 to 2**64 - 1")
            for side, player in enumerate((first, second)):
                if not isinstance(player, str):
                    require_units(scenario, side)
            control = trained_as(args.agent).control
            _note_control(args.opponent, control)
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / "replay.jsonl"
        require_writable(path)
    if args.replay is None:
        record_battle(path, scenario, (first, second), seed=args.seed, control=control)
    elif args.replay.resolve() != path.resolve():
        shutil.copyfile(args.replay, path)
    shown = show_replay(path, args.film, {"all": None, "first": 0, "second": 1}[args.sight])
    print(f"{shown.title}: {shown.ending}\n{shown.page}\n{shown.film}\n{path}")
    return 0


def _note_control(opponent: str, control: Control) -> None:
    """Say so if the opponent is shown otherwise than it was trained: a battle has one control for both."""
    trained = trained_as(opponent).control
    learned = not is_engine_player(opponent) and policy_folder(opponent) is not None
    if learned and trained is not control:
        print(
            f"note: {opponent} learned {trained.value} control, but plays under {control.value} control",
            file=sys.stderr,
        )
