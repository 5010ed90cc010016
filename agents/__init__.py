"""What plays: exported policies, without ray (:mod:`agents.learned`), and scripts (:mod:`agents.scripted`).

    agent = load_agent("scripted:kite")      # or the directory of an exported policy
    orders = agent.act(observation)

Importing this package imports neither torch nor ray.
"""

from agents.base import Agent, Observation, Orders
from agents.roster import load_agent, load_opponent
from agents.scripted import SCRIPTS, ScriptedAgent

__all__ = ["SCRIPTS", "Agent", "Observation", "Orders", "ScriptedAgent", "load_agent", "load_opponent"]
