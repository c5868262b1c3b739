"""An OpenAI-compatible AI provider over real HTTP, standing in for a paid API.

Its call ledger judges the rest of the project, so this package imports none of the project's other
packages: a mistake cannot be shared. It is configured by `Settings`, served by `run` and driven
from tests and benchmarks by `SimulatorProcess`.
"""

from sandbox.simulator.app import create_app
from sandbox.simulator.ledger import Entry, LimitUsage, Outcome, Summary
from sandbox.simulator.process import SimulatorProcess
from sandbox.simulator.server import run
from sandbox.simulator.settings import Account, Faults, Latency, Limit, Model, Settings

__all__ = [
    "Account",
    "Entry",
    "Faults",
    "Latency",
    "Limit",
    "LimitUsage",
    "Model",
    "Outcome",
    "Settings",
    "SimulatorProcess",
    "Summary",
    "create_app",
    "run",
]
