"""Who is drawn, frozen and begun anew."""

from collections import Counter

import numpy as np
import pytest

from training.league.config import LeagueConfig, require_league
from training.league.matchmaking import Matchmaker, begins_anew, forgotten, snapshot_is_due
from training.league.members import Learner, Role, Script, Snapshot
from training.league.payoff import Game, Payoff, Result
from training.rl.config import TrainConfig

MAIN = Learner("main", Role.MAIN)
EXPLOITER = Learner("main-exploiter-1", Role.MAIN_EXPLOITER)
LEAGUE_EXPLOITER = Learner("league-exploiter-1", Role.LEAGUE_EXPLOITER)
MEMBERS = [
    Script("easy"),
    Script("hard"),
    Snapshot("main.1", "main", Role.MAIN, 100),
    Snapshot("main.2", "main", Role.MAIN, 200),
    Snapshot("main-exploiter-1.1", "main-exploiter-1", Role.MAIN_EXPLOITER, 100),
    MAIN,
    EXPLOITER,
    LEAGUE_EXPLOITER,
]


def payoff_of(player: str, rates: dict[str, float]) -> Payoff:
    """Ten games against each, so many of them won."""
    payoff = Payoff(decay=1.0, min_games=5)
    for member in MEMBERS:
        payoff.add_member(member.name)
    for name, rate in rates.items():
        wins = round(10 * rate)
        payoff.record(player, [Game(name, Result.WIN)] * wins + [Game(name, Result.LOSS)] * (10 - wins))
    return payoff


def shares(learner: Learner, rates: dict[str, float], draws: int = 4000, **config) -> dict[str, float]:
    """How often each is drawn."""
    matchmaker = Matchmaker(
        LeagueConfig(**config), payoff_of(learner.name, rates), MEMBERS, np.random.default_rng(0)
    )
    drawn = Counter(matchmaker.opponent(learner) for _ in range(draws))
    return {name: count / draws for name, count in drawn.items()}


EVERYBODY = {"easy": 1.0, "hard": 0.1, "main.1": 0.9, "main.2": 0.5, "main-exploiter-1.1": 0.7}


def test_the_main_player_meets_itself_and_the_hard_ones():
    """0.35 + 0.15 itself (nothing is forgotten), the rest by (1-p)²: 0, 0.81, 0.01, 0.25, 0.09 of 1.16."""
    drawn = shares(MAIN, EVERYBODY)
    expected = {"main": 0.5, "hard": 0.349, "main.1": 0.004, "main.2": 0.108, "main-exploiter-1.1": 0.039}
    assert drawn.keys() == expected.keys()
    assert drawn == pytest.approx(expected, abs=0.025)


def test_an_exploiter_that_is_too_strong_is_met_more():
    drawn = shares(MAIN, EVERYBODY | {"main-exploiter-1.1": 0.2}, self_play_share=0, verification_share=1)
    assert drawn == {"main-exploiter-1.1": 1.0}


def test_what_was_forgotten_is_met_more():
    """Against the older snapshot it wins less than against the newer one."""
    rates = EVERYBODY | {"main.1": 0.2, "main.2": 0.6}
    drawn = shares(MAIN, rates, self_play_share=0, verification_share=1)
    assert drawn == pytest.approx({"main.1": 0.8, "main.2": 0.2}, abs=0.02)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((0.9, 0.8, 0.5), 0),  # falling towards the newest, as it should
        ((0.4, 0.8, 0.5), 2),
        ((0.9, 0.8, 0.9, 0.5), 0),  # risen, and yet beaten
        ((0.9, 0.6, 0.9, 0.5), 3),
        ((0.5,), 0),
        ((), 0),
    ],
)
def test_forgotten(rates, expected):
    payoff = Payoff(decay=1.0, min_games=0)
    names = [f"main.{i}" for i in range(len(rates))]
    for name in ("main", *names):
        payoff.add_member(name)
    for name, rate in zip(names, rates, strict=True):
        wins = round(10 * rate)
        payoff.record("main", [Game(name, Result.WIN)] * wins + [Game(name, Result.LOSS)] * (10 - wins))
    assert forgotten(payoff, "main", names) == names[:expected]


def test_a_main_exploiter_meets_the_main_player_only():
    assert shares(EXPLOITER, {"main": 0.2}) == {"main": 1.0}
    climbing = shares(EXPLOITER, {"main": 0.1, "main.1": 0.9, "main.2": 0.5})
    assert climbing == pytest.approx({"main": 0.5, "main.1": 0.09 / 0.68, "main.2": 0.25 / 0.68}, abs=0.03)


def test_a_league_exploiter_meets_all_that_are_frozen():
    drawn = shares(LEAGUE_EXPLOITER, EVERYBODY, weighting="even")
    assert drawn == pytest.approx(dict.fromkeys(EVERYBODY, 0.2), abs=0.03)


def test_without_anybody_frozen_there_is_the_main_player():
    payoff = Payoff()
    for learner in (MAIN, LEAGUE_EXPLOITER):
        payoff.add_member(learner.name)
    config = LeagueConfig(self_play_share=0, verification_share=0)
    matchmaker = Matchmaker(config, payoff, [MAIN, LEAGUE_EXPLOITER], np.random.default_rng(0))
    assert matchmaker.opponent(MAIN) == matchmaker.opponent(LEAGUE_EXPLOITER) == "main"


def test_when_a_player_is_frozen():
    config = LeagueConfig(snapshot_steps=100, exploiter_steps=200, exploiter_win_rate=0.7)
    frozen = ["easy", "hard"]

    def due(learner: Learner, rates: dict[str, float], steps: int, last: int = 0) -> bool:
        learner = Learner(learner.name, learner.role, env_steps=steps, last_snapshot=last)
        return snapshot_is_due(config, payoff_of(learner.name, rates), learner, frozen)

    assert not due(MAIN, {"easy": 1, "hard": 1}, 99)
    assert due(MAIN, {}, 100)
    assert not due(MAIN, {}, 199, last=100)
    assert due(EXPLOITER, {"main": 0.8}, 1)
    assert not due(EXPLOITER, {"main": 0.7}, 199)
    assert due(EXPLOITER, {"main": 0.0}, 200)
    assert due(LEAGUE_EXPLOITER, {"easy": 1, "hard": 0.8}, 1)
    assert not due(LEAGUE_EXPLOITER, {"easy": 1, "hard": 0.7}, 1)
    assert not due(LEAGUE_EXPLOITER, {"easy": 1}, 1), "no games say nothing"


def test_who_begins_anew():
    rng = np.random.default_rng(0)
    config = LeagueConfig(reset_probability=0.25)
    assert not any(begins_anew(config, MAIN, rng) for _ in range(20))
    assert all(begins_anew(config, EXPLOITER, rng) for _ in range(20))
    assert np.mean([begins_anew(config, LEAGUE_EXPLOITER, rng) for _ in range(2000)]) == pytest.approx(
        0.25, abs=0.03
    )


# What is refused


@pytest.mark.parametrize(
    ("league", "job", "message"),
    [
        ({}, {"scenario": "3s_vs_5z"}, "not symmetric"),
        ({}, {"scenario": "move_to_beacon"}, "not symmetric"),
        ({"turn_steps": 60}, {}, "turn_steps is 60.*may last 60"),
        ({"scripts": ("nobody",)}, {}, "no opponent 'nobody'"),
        ({"opponents": 65}, {}, "num_battles = 128 leave 1"),
        ({"opponents": 40}, {"scenario": ("3m", "8m")}, "need 4"),
        ({}, {"scenario": ("3m", "3s_vs_5z")}, "3s_vs_5z.*not symmetric"),
        ({}, {"swap_sides": False}, "both sides"),
        ({}, {"scenario": ("3m", "8m"), "curriculum": "contested"}, "by their weights"),
        ({}, {"opponent": "kite"}, "--scripts"),
        ({}, {"target_win_rate": 0.9}, "target_win_rate is 0.9"),
        ({}, {"evaluation_games": 5}, "ladder"),
        ({}, {"algorithm": "appo", "num_env_runners": 1}, "ppo or mappo"),
    ],
)
def test_what_cannot_be_played_is_refused(league, job, message):
    with pytest.raises(ValueError, match=message):
        require_league(LeagueConfig(**league), TrainConfig(**job))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scripts": ("kite", "kite")}, "each once"),
        ({"opponents": 0}, "at least 1"),
        ({"main_exploiters": -1}, "negative"),
        ({"self_play_share": 1.5}, "from 0 to 1"),
        ({"self_play_share": 0.9, "verification_share": 0.2}, "above 1"),
        ({"exponent": 0.0}, "exponent is 0.0"),
        ({"weighting": "soft"}, "'soft'; known: hard, variance, even"),
        ({"payoff_decay": 0.0}, "payoff_decay"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LeagueConfig(**changes)


def test_settings_survive_their_file(tmp_path):
    config = LeagueConfig(scripts=("kite",), opponents=2, weighting="variance")
    (tmp_path / "league.yaml").write_text(config.to_yaml())
    assert LeagueConfig.load(tmp_path / "league.yaml") == config
    for content in ("[]", "{", "opponents: 2", "{scripts: [], nobody: 1}"):
        (tmp_path / "league.yaml").write_text(content)
        with pytest.raises(ValueError, match="league's settings"):
            LeagueConfig.load(tmp_path / "league.yaml")
