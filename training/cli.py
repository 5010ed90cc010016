"""The command line: ``perceiver-policy COMMAND ...``.

Each command is a module of :mod:`training.commands`, with _ for -, that has ``Args``, a dataclass that is its
options and their help, and ``run(args)``, which returns the exit code. Only the module of the command asked
for is imported, so that ``perceiver-policy scenarios`` does not wait for torch.

A command whose options have defaults that depend on others (on a file, say) has ``defaults(argv)``, which
returns an ``Args``. One that can go on after an interruption has ``how_to_go_on(args)``, which tells how.

Exit codes: 0 done, 1 ran and found something wrong, 2 bad input (one line on standard error says what),
130 interrupted from the keyboard, 143 ended by SIGTERM.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib import metadata

import tyro

from training.commands.door import door, nearest, refuse

PROGRAM = "perceiver-policy"
INTERRUPTED = 130
"""Exit code, as shells give it: 128 and the number of SIGINT."""
COMMANDS = {
    "train": "train a policy, evaluate it, record a battle",
    "tune": "search for the main hyperparameters of training",
    "suite": "a policy for each scenario of a suite, beside the scripts",
    "policies": "those that come with the package, and how often they win",
    "evaluate": "how often an agent wins, with an interval",
    "league": "self-play: a main player, exploiters, snapshots, scripts",
    "ladder": "everybody against everybody, with ratings",
    "export": "a run's policy as a folder that loads anywhere",
    "import-perceiver": "a published Perceiver as a model of ours",
    "export-perceiver": "a model of ours for Hugging Face's transformers",
    "protocol": "many runs as one table, with intervals over seeds",
    "sweep": "train several seeds, scenarios and settings, resumably",
    "watch": "play or replay a battle into a web page and a GIF",
    "look": "what a policy attends to in a battle, as pictures",
    "scenarios": "what can be played; check a scenario file of your own",
    "benchmark": "measure the engine, the network and training",
    "calibrate": "how scripts fare everywhere, beside published numbers",
    "doctor": "is everything there, and what to do next",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments after the program's name; default: those of this process.

    Returns:
        The exit code, see the module docstring.

    Raises:
        SystemExit: with code 2, the input is bad; with code 0, help was asked for.
    """
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("", "-h", "--help"):
        print(_help())
        return 0 if name else 2
    if name == "--version":
        print(PROGRAM, metadata.version(PROGRAM))
        return 0
    if name not in COMMANDS:
        refuse(f"no command {name!r}; {nearest(name, COMMANDS)}")
    go_on = "the same command starts over"
    try:
        command = importlib.import_module(f"training.commands.{name.replace('-', '_')}")
        with door():  # dataclasses check their own values
            default = {"default": command.defaults(rest)} if hasattr(command, "defaults") else {}
            args = tyro.cli(command.Args, prog=f"{PROGRAM} {name}", args=rest, **default)
        try:
            return command.run(args)
        except KeyboardInterrupt:
            if hasattr(command, "how_to_go_on"):
                go_on = command.how_to_go_on(args)
            raise
    except KeyboardInterrupt:
        print(f"Interrupted; {go_on}", file=sys.stderr)
        return INTERRUPTED


def _help() -> str:
    commands = "\n".join(f"  {name:16} {summary}" for name, summary in COMMANDS.items())
    more = f"{PROGRAM} COMMAND --help lists a command's options."
    return f"usage: {PROGRAM} COMMAND [OPTIONS]\n\n{commands}\n\n{more}"


if __name__ == "__main__":
    sys.exit(main())
