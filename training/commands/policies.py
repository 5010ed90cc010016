"""``perceiver-policy policies``: the policies that come with the package, and how they got there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from agents.box import BOX, BOXED
from envs.battle.compiled import engine_digest
from training.commands.door import door
from training.suite.cards import add_to_box, all_cards, make_card, read_card


@dataclass(frozen=True)
class Args:
    """List the policies in the box with their win rates, or tell about one: how to train it, what it wins.

    Wherever an agent is asked for, policy:NAME is one of them.
    """

    name: tyro.conf.Positional[str | None] = None
    """The policy to tell about."""
    add: tuple[Path, ...] = ()
    """Put the policies of finished runs into the box, each under its folder's name, replacing those there."""
    to: str | None = None
    """With --add and a single run: the name."""
    json: bool = False
    """Print cards as JSON."""


def run(args: Args) -> int:
    """Add, or show."""
    with door():
        if args.add:
            return _add(args)
        if args.to is not None:
            raise ValueError("--to names what --add adds; give both")
        cards = all_cards() if args.name is None else [read_card(args.name.removeprefix(BOXED))]
    if args.json:
        print(json.dumps(cards if args.name is None else cards[0], indent=2))
    elif args.name is None:
        _list(cards)
    else:
        Console().print(Markdown(card_page(cards[0])))
    return 0


def _add(args: Args) -> int:
    """All are checked before the first is written."""
    if args.name is not None or args.json:
        raise ValueError("--add adds and shows nothing; leave out the name and --json")
    if args.to is not None and len(args.add) > 1:
        raise ValueError(f"--to is {args.to}, but --add has {len(args.add)} runs; add them one by one")
    names = [args.to] if args.to is not None else [run.resolve().name for run in args.add]
    if len(set(names)) < len(names):
        raise ValueError(f"two runs would be called {max(names, key=names.count)}; add one with --to NAME")
    for folder, name in zip(args.add, names, strict=True):
        make_card(folder, name)
    for folder, name in zip(args.add, names, strict=True):
        print(f"{BOXED}{name}  {add_to_box(folder, name)}")
    return 0


def _list(cards: list[dict[str, Any]]) -> None:
    console = Console()
    if not cards:
        console.print(f"{BOX} holds no policies", highlight=False)
        return
    title = "On the scenarios and against the enemy trained on, greedy, on the embedded simulator"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("policy", no_wrap=True)
    for column in ("scenario", "won %", "95 % interval", "best script", "its %", "steps"):
        table.add_column(column, justify="left" if column == "scenario" else "right", no_wrap=True)
    for card in cards:
        name, steps = BOXED + card["name"], f"{_steps(card):,}"
        for scenario, entry in card["scenarios"].items():
            result, best = entry["result"], _best(entry["scripts"])
            table.add_row(
                name,
                scenario,
                _percent(result["win_rate"]),
                f"{_percent(result['wilson_low'])} to {_percent(result['wilson_high'])}",
                best,
                _percent(entry["scripts"][best]["win_rate"]),
                steps,
            )
            name = steps = ""  # of the same policy
    console.print(table)
    stale = [card["name"] for card in cards if card["engine"] != engine_digest()]
    if stale:
        console.print(f"Measured on another engine than this one: {', '.join(stale)}", highlight=False)


def card_page(card: dict[str, Any]) -> str:
    """A card in Markdown."""
    training = card["training"]
    lines = [
        f"# {BOXED}{card['name']}",
        "",
        f"A policy of {card['parameters']:,} parameters for {', '.join(card['scenarios'])} against "
        f"{card['opponent']}, {card['control']} control, on the embedded simulator. Made by",
        "",
        f"    {card['command']}",
        "",
        f"with seed {card['seed']}: {training['env_steps']:,} environment steps in "
        f"{training['train_seconds']:,.0f} s, ended by {training['stopped_by']}.",
    ]
    lines += [
        f"Before that {one['name']}: {one['env_steps']:,} steps, {one['train_seconds']:,.0f} s."
        for one in card["started_from"]
    ]
    for scenario, entry in card["scenarios"].items():
        lines += ["", *_scenario_lines(BOXED + card["name"], scenario, entry)]
    versions = ", ".join(f"{package} {version}" for package, version in card["versions"].items())
    measured = "this engine" if card["engine"] == engine_digest() else "another engine than this one"
    lines += [
        "",
        f"Measured on {measured} (`{card['engine'][:16]}`), contract `{card['contract']}`, {versions}.",
    ]
    return "\n".join(lines) + "\n"


def _scenario_lines(name: str, scenario: str, entry: dict[str, Any]) -> list[str]:
    """A scenario's battles, as a table in Markdown."""
    result = entry["result"]
    rows = {name: result} | {f"scripted:{script}": one for script, one in entry["scripts"].items()}
    return [
        f"On {scenario}, {result['orders']} orders, {result['games']:,} battles of seed {result['seed']}, "
        "the same for all:",
        "",
        "| agent | won % | 95 % interval |",
        "| --- | ---: | ---: |",
        *(
            f"| {agent} | {_percent(one['win_rate'])} | {_percent(one['wilson_low'])} to "
            f"{_percent(one['wilson_high'])} |"
            for agent, one in rows.items()
        ),
    ]


def _best(scripts: dict[str, Any]) -> str:
    return max(scripts, key=lambda name: scripts[name]["wins"])


def _steps(card: dict[str, Any]) -> int:
    """Environment steps of all training behind a policy."""
    return card["training"]["env_steps"] + sum(one["env_steps"] for one in card["started_from"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
