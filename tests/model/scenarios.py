"""The searches: who asks for what, and how much goes wrong. With the scripts as they are, all find nothing.

`SHORT` runs in the suite, `BIG` by `make model`.
"""

from typing import Final

from tests.model.flight import Ask
from tests.model.world import Budget, Scenario
from topology.names import Priority

R1: Final = Ask("r1")
R2: Final = Ask("r2")
KEPT_1: Final = Ask("r1", durable=True)
KEPT_2: Final = Ask("r2", durable=True)
REFRESH: Final = Ask("r2", max_age_s=0.0)
OFF: Final = Ask("r1", max_age_s=0.0, keep_s=0.0)
HURRIED: Final = Ask("r1", timeout_s=30.0)
BURIED: Final = Ask("r1", keep_s=5.0, priority=Priority.BATCH, buried_s=3000.0)
URGENT: Final = Ask("r2", keep_s=5.0, timeout_s=25.0, priority=Priority.HIGH)


def scenario(name: str, *asks: Ask, must: str = "r1 r2", max_spends: int = 2, **budget: int) -> Scenario:
    return Scenario(name, asks, Budget(**budget), tuple(must.split()), max_spends)


SHORT: Final = (
    scenario("two ask, nothing goes wrong", R1, R2),
    scenario("workers are killed", R1, R2, kills=2),
    scenario("more workers are killed than it may be bought", R1, kills=3),
    scenario("fronts are killed", R1, R2, front_kills=1),
    scenario("a front and a worker are killed", R1, kills=1, front_kills=1),
    scenario("a connection is cut", R1, R2, cuts=1),
    scenario("everybody is slow", R1, delays=2),
    scenario("a worker freezes", R1, R2, freezes=1),
    scenario("a worker freezes, and calls fail", R1, freezes=1, failures=1, faults=1),
    scenario("Redis is emptied", R1, R2, flushes=1, resends=1),
    scenario("Redis is emptied, and a worker is killed", R1, flushes=1, kills=1, failures=1),
    scenario("answers of Redis are lost", R1, lost=2, kills=1),
    scenario("durable: Redis is emptied", R1, KEPT_2, flushes=1, failures=1),
    scenario("durable: fronts and workers die", KEPT_1, kills=1, front_kills=1, flushes=1),
    scenario("refresh: a worker is killed", R1, REFRESH, kills=1),
    scenario("refresh: a worker freezes", R1, REFRESH, freezes=1),
    scenario("refresh: Redis is emptied", R1, REFRESH, flushes=1),
    scenario("off: it is asked again and again", OFF, cuts=1, front_kills=1, resends=1),
    scenario("calls fail, and may be billed", R1, R2, timeouts=2, failures=1),
    scenario("calls may always be billed", R1, timeouts=3),
    scenario("the request is refused", R1, R2, faults=1, kills=1),
    scenario("the other has little time", Ask("r1", timeout_s=0.5), R2, must="r2", failures=1, kills=1),
    scenario("little time, and a worker is killed", HURRIED, kills=1),
    scenario("the job of the first is deep in its queue", BURIED, URGENT),
    scenario("a second call is made", R1, hedges=1, delays=1),
    scenario("a second call is made, and one of them fails", R1, hedges=1, failures=1, faults=1),
    scenario("a second call is made, and workers are killed", KEPT_1, hedges=1, kills=2),
    scenario("a second call is made, and a worker freezes", R1, hedges=1, freezes=1),
    scenario("a second call is made, and Redis is emptied", KEPT_1, hedges=1, flushes=1, failures=1),
    scenario("a second call is made, and the flight is opened anew", R1, REFRESH, hedges=1),
    scenario("a second call is made, and nobody wants it", R1, must="", hedges=1, cancels=1),
    scenario("one of two calls it off", R1, R2, must="r2", cancels=1, kills=1),
    scenario("called off, and a connection is cut", R1, must="", cancels=1, cuts=1),
)
BIG: Final = (
    scenario("kills of all kinds", R1, R2, kills=2, front_kills=1),
    scenario("three kills and a lost answer", R1, kills=3, lost=1, front_kills=1),
    scenario("cut connections", R1, R2, cuts=2, kills=1),
    scenario("slow, with short deadlines", Ask("r1", timeout_s=20.0), R2, must="r2", front_kills=1, delays=2),
    scenario("slow and killed", R1, R2, delays=1, kills=1),
    scenario("frozen and killed", R1, R2, freezes=1, kills=1),
    scenario("frozen twice, with failures", R1, freezes=2, failures=1, faults=1, cuts=1),
    scenario("everything once", R1, kills=1, front_kills=1, freezes=1, flushes=1, failures=1),
    scenario("emptied twice", R1, R2, flushes=2, kills=1),
    scenario("durable: emptied and frozen", KEPT_1, KEPT_2, flushes=1, freezes=1, failures=1),
    scenario("durable: emptied and killed", R1, KEPT_2, flushes=1, kills=1, front_kills=1),
    scenario("refresh: frozen, emptied", R1, REFRESH, freezes=1, flushes=1),
    scenario("refresh: killed and cut", R1, REFRESH, kills=1, front_kills=1, cuts=1),
    scenario("off: slow", OFF, cuts=1, front_kills=1, delays=2, resends=1),
    scenario("called off", R1, R2, must="r2", cancels=1, kills=1, front_kills=1, cuts=1),
    scenario("a second call: killed, and cut off", KEPT_1, hedges=1, kills=1, front_kills=1, cuts=1),
    scenario("a second call: slow, frozen, killed", R1, hedges=2, freezes=1, kills=1, delays=1, failures=1),
    scenario("a second call: emptied, and killed", KEPT_1, hedges=1, flushes=1, freezes=1, kills=1),
    scenario("a second call: refresh", R1, REFRESH, hedges=2, kills=1, faults=1),
)
