"""What the simulator's rules imply for the calibration's numbers, checked.

Orderings: on a scenario one script should do at least as well as another. Both played the same seeds, and the
numbers depart from what the rules imply if a paired test finds the other one ahead by more than chance.
Mirrors: a player against itself wins as often as it loses. Scores: what a mission's script must come out at.
Each family of tests is corrected for its size (Bonferroni): a departure anywhere in it comes by chance alone
once in twenty calibrations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from scipy.stats import binomtest

from agents.roster import SCRIPTED
from training.benchmark.calibration import SCRIPTS, Part, Played
from training.evaluate import EvaluationResult, paired_p_value

ERROR = 0.05
"""Chance of a departure in a family of tests where there is none."""
RANGED_AGAINST_MELEE = ("2m_vs_1z", "3s_vs_3z", "3s_vs_4z", "3s_vs_5z", "6h_vs_8z", "2c_vs_64zg")
"""Where we have only ranged units and they have only melee units."""
EQUAL_TEAMS = ("3m", "8m", "25m", "2s3z", "3s5z", "1c3s5z", "MMM", "bane_vs_bane")
"""SMAC's maps with equal teams."""
SCORE_LIMITS: Mapping[tuple[str, str], tuple[float, float]] = {
    ("move_to_beacon", "collect"): (25.0, 28.0),
    ("move_to_beacon", "random"): (0.0, 2.0),
}
"""Between what a mean score must be, by mission and script: published are 25 to 28, and 1."""


class Claim(StrEnum):
    """A family of tests."""

    RANDOM_LAST = "random is last"
    KITE_FIRST = "kite is first where ranged units face melee units"
    FOCUS_FIRE = "focus-fire is at least as good as closest where teams are equal"
    MIRROR = "a player against itself wins half of what is decided"
    SCORE = "a mission's script scores what it scores in the game"


class Verdict(StrEnum):
    """What the numbers say of a claim."""

    HOLDS = "holds"
    EVEN = "no difference beyond chance"
    DEPARTS = "departs"


@dataclass(frozen=True)
class Check:
    """A claim at one scenario, and what the numbers say."""

    claim: Claim
    scenario: str
    who: str
    """The scripts compared, or the player."""
    verdict: Verdict
    numbers: str
    """What the verdict rests on."""

    def to_dict(self) -> dict[str, Any]:
        """With JSON types."""
        return asdict(self)


class _Ordering(NamedTuple):
    """One script should do at least as well as another."""

    claim: Claim
    scenario: str
    better: str
    worse: str


def judge(played: Sequence[Played]) -> list[Check]:
    """Check whatever these matches allow to check."""
    results = {
        (one.match.scenario, one.match.agent.removeprefix(SCRIPTED)): one.result
        for one in played
        if one.match.part in (Part.SMAC, Part.MISSIONS)
    }
    mirrors = [one.result for one in played if one.match.part is Part.MIRRORS]
    checks = [*_check_orderings(results), *_check_mirrors(mirrors)]
    return checks + [_check_score(*key, results[key]) for key in SCORE_LIMITS if key in results]


def _orderings() -> list[_Ordering]:
    orderings = [
        _Ordering(Claim.KITE_FIRST, name, "kite", other)
        for name in RANGED_AGAINST_MELEE
        for other in SCRIPTS
        if other not in ("kite", "random")
    ]
    return orderings + [_Ordering(Claim.FOCUS_FIRE, name, "focus-fire", "closest") for name in EQUAL_TEAMS]


def _check_orderings(results: Mapping[tuple[str, str], EvaluationResult]) -> list[Check]:
    battles = [key for key in results if key[1] != "random" and results[key].scores is None]
    last = [_Ordering(Claim.RANDOM_LAST, scenario, script, "random") for scenario, script in battles]
    compared = [
        ordering
        for ordering in last + _orderings()
        if {(ordering.scenario, ordering.better), (ordering.scenario, ordering.worse)} <= results.keys()
    ]
    checks = []
    for ordering in compared:
        first = results[ordering.scenario, ordering.better]
        second = results[ordering.scenario, ordering.worse]
        tests = sum(other.claim is ordering.claim for other in compared)
        p_value = paired_p_value(first, second)
        if p_value >= ERROR / tests:
            verdict = Verdict.EVEN
        else:
            verdict = Verdict.HOLDS if first.win_rate > second.win_rate else Verdict.DEPARTS
        numbers = f"{100 * first.win_rate:.1f} % and {100 * second.win_rate:.1f} %, p = {p_value:.2g}"
        who = f"{ordering.better}, {ordering.worse}"
        checks.append(Check(ordering.claim, ordering.scenario, who, verdict, numbers))
    return checks


def _check_mirrors(results: Sequence[EvaluationResult]) -> list[Check]:
    """Two-sided binomial tests of the battles that somebody won."""
    checks = []
    for result in results:
        decided = result.wins + result.losses
        p_value = float(binomtest(result.wins, decided).pvalue) if decided else 1.0
        verdict = Verdict.DEPARTS if p_value < ERROR / len(results) else Verdict.HOLDS
        numbers = f"{result.wins} of {decided} won by the first side, p = {p_value:.2g}"
        checks.append(Check(Claim.MIRROR, result.scenario, result.agent, verdict, numbers))
    return checks


def _check_score(scenario: str, script: str, result: EvaluationResult) -> Check:
    least, most = SCORE_LIMITS[scenario, script]
    verdict = Verdict.HOLDS if least <= result.mean <= most else Verdict.DEPARTS
    numbers = f"{result.mean:.1f}, to be between {least:g} and {most:g}"
    return Check(Claim.SCORE, scenario, script, verdict, numbers)
