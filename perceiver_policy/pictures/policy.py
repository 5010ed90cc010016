"""What a unit of a policy attends to, where it would point, and what it would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from perceiver_policy.looking import input_attention, record
from perceiver_policy.pictures.canvas import LARGE, NORMAL, SMALL, new_figure, require_pictures, save
from perceiver_policy.pictures.units import add_legend, draw_field, make_field
from perceiver_policy.policy import ACTOR_KEYS, Observation, UnitSetPolicy


def look_at_policy(
    policy: UnitSetPolicy,
    observation: Observation,
    path: str | Path,
    *,
    unit: int = 0,
    index: int = 0,
    verbs: Sequence[str] | None = None,
    title: str | None = None,
) -> None:
    """Draw one unit's attention over the units, its pointer, and the probabilities of its verbs.

    The attention is that of the unit's query through the latents
    (:func:`~perceiver_policy.looking.input_attention`); the pointer is p(target | verb) for the likeliest of
    the verbs that have a target.

    Args:
        policy: as it stands, in training mode or not.
        observation: as for the policy, with any number of observations (B, ...).
        path: the file to write.
        unit: the slot of ``controlled`` to look at.
        index: which of the observations.
        verbs: names of the V verbs.
        title: above the picture.

    Raises:
        MissingExtra: matplotlib is not installed.
        ValueError: there is no such observation, the slot commands no unit, or ``verbs`` are not V names.
    """
    require_pictures(path)
    size, num_verbs = len(observation["unit_mask"]), policy.config.num_verbs
    if not 0 <= index < size:
        raise ValueError(f"index is {index}, but there are {size} observations; they count from 0")
    if verbs is not None and len(verbs) != num_verbs:
        raise ValueError(f"verbs are {len(verbs)} names, but the policy has {num_verbs} verbs")
    names = verbs or [f"verb {verb}" for verb in range(num_verbs)]
    alone = {key: observation[key][index : index + 1] for key in ACTOR_KEYS}
    slots = alone["controlled_mask"][0].nonzero()[:, 0].tolist()
    if unit not in slots:
        raise ValueError(f"unit is {unit}; slots that command a unit: {slots}")
    row = int(alone["controlled"][0, unit])
    with torch.no_grad(), record(policy) as recording:
        output = policy(alone)
    attention = input_attention(recording)[0, unit, : alone["unit_mask"].shape[1]]
    verb_logits = output.verb_logits[0, unit]
    first = num_verbs - policy.config.num_target_verbs
    pointing = alone["verb_mask"][0, unit, first:]
    verb = first + int(verb_logits[first:].argmax())
    with torch.no_grad():
        target_logits = output.target_logits(torch.full_like(alone["controlled"], verb))[0, unit]
    pointer = target_logits.softmax(-1) if pointing.any() else torch.zeros_like(attention)

    field = make_field(alone["units"][0], alone["unit_mask"][0], policy.config.geometry)
    figure = new_figure(13.0, 6.0 * field.shape + 3.6)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(6.0 * field.shape + 1.0, 2.2))[:, 0]
    left, right = top.subplots(1, 2)
    draw_field(top, left, field, attention, from_unit=row)
    left.set_title("attends to, through the latents" + _note(left.get_title()), fontsize=NORMAL)
    draw_field(top, right, field, pointer, from_unit=row, label="probability of the target, numbers in %")
    add_legend(top, field, asks=True)
    told = f"would point at, given {names[verb]}" if pointing.any() else "has nothing to point at"
    right.set_title(told, fontsize=NORMAL, parse_math=False)
    axes = bottom.subplots()
    probabilities = verb_logits.softmax(-1).cpu().numpy()
    allowed = alone["verb_mask"][0, unit].cpu().numpy()
    places = np.arange(num_verbs)
    axes.bar(places, np.where(allowed, probabilities, 0.0), color="#54278f", width=0.7)
    for place, probability, is_allowed in zip(places, probabilities, allowed, strict=True):
        text = f"{probability:.0%}" if is_allowed else "not\nopen"
        axes.annotate(
            text,
            (place, probability if is_allowed else 0.0),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
            color="black" if is_allowed else "0.6",
        )
    axes.set_xticks(places, names, fontsize=SMALL, rotation=30, ha="right", parse_math=False)
    axes.set(ylim=(0, 1.15), xlim=(-0.6, num_verbs - 0.4))
    axes.set_ylabel("probability", fontsize=SMALL)
    axes.tick_params(axis="y", labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title or f"unit {unit}, row {row}", fontsize=LARGE, parse_math=False)
    save(figure, path)


def _note(text: str) -> str:
    return f" ({text})" if text else ""
