"""The policies in the box: exports that come with the package, by name, for ``policy:NAME``.

A folder of :data:`BOX` holds ``config.yaml`` and ``model.safetensors``, as every export does, and
``card.json``: how the policy was trained and how often it wins. In programs::

    UnitSetPolicy.from_pretrained(boxed_policy("3m"))
    LearnedAgent.from_name("3m")
"""

from __future__ import annotations

import difflib
from pathlib import Path

BOXED = "policy:"
"""What precedes the name of a policy in the box, on command lines and in results."""
BOX = Path(__file__).parent / "policies"
CARD_FILE = "card.json"


def boxed_names() -> tuple[str, ...]:
    """Names of the policies in the box, sorted."""
    return tuple(sorted(card.parent.name for card in BOX.glob(f"*/{CARD_FILE}")))


def boxed_policy(name: str) -> Path:
    """The folder of a policy in the box.

    Raises:
        ValueError: there is none of this name; the message lists the nearest.
    """
    names = boxed_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        known = ", ".join(BOXED + known for known in names) or "none"
        hint = f"did you mean {BOXED}{near[0]}?" if near else f"in the box: {known}"
        raise ValueError(f"no policy {name!r} in the box; {hint}")
    return BOX / name
