"""What is to become of an admitted call: its fault and its latency."""

from dataclasses import dataclass
from math import exp, log
from random import Random

from sandbox.simulator.settings import Fault, Faults, Latency


@dataclass(frozen=True, slots=True)
class Fate:
    """Decided when a call is admitted."""

    fault: Fault
    first_wait_s: float
    """Seconds before the first byte of the answer, generation of further tokens aside."""


def draw(faults: Faults, latency: Latency, seed: int, sha256: str, nth: int, scripted: Fault | None) -> Fate:
    """The fate of the `nth` admitted call for a prompt, whatever order calls arrive in.

    Args:
        faults: Probabilities of the faults.
        latency: Distribution of the first wait.
        seed: Of the provider.
        sha256: Of the prompt.
        nth: Which occurrence of this prompt, from 1.
        scripted: The fault to use instead of a random one.
    """
    random = Random(f"{seed}:{sha256}:{nth}")
    drawn = _draw_fault(faults, random)
    first_wait_s = _draw_wait_s(latency, random)
    fault = scripted or drawn
    match fault:
        case "slow":
            first_wait_s += faults.slow_s
        case "timeout":
            first_wait_s = faults.hang_s
        case _:
            pass
    return Fate(fault, first_wait_s)


def _draw_fault(faults: Faults, random: Random) -> Fault:
    point = random.random()
    for fault, probability in faults.probabilities.items():
        if point < probability:
            return fault
        point -= probability
    return "ok"


def _draw_wait_s(latency: Latency, random: Random) -> float:
    match latency.kind:
        case "constant":
            wait_s = latency.median_s
        case "uniform":
            wait_s = random.uniform(latency.low_s, latency.high_s or 0.0)
        case "lognormal":
            wait_s = latency.median_s * exp(latency.sigma * random.gauss(0.0, 1.0))
        case "exponential":
            wait_s = -log(1.0 - random.random()) * latency.median_s / log(2.0)
    wait_s = max(latency.low_s, wait_s)
    return wait_s if latency.high_s is None else min(latency.high_s, wait_s)
