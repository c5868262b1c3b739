"""A short run in the suite; `make chaos` has the long one."""

import pytest

from tests.chaos.account import account
from tests.chaos.brokers import Place, two_providers
from tests.chaos.printing import Progress, table
from tests.chaos.running import Plan, run
from tests.chaos.schedule import make_schedule
from tests.faults.points import POINTS
from tests.support.house import House

KILLS = 30
REQUESTS = 400
SLOW = {"front.parked"}
"""A rate's window is a minute: `make chaos` waits for it."""


@pytest.mark.timeout(420)
async def test_thirty_kills_at_named_points_and_every_call_and_request_is_accounted_for(
    own_redis: House,
) -> None:
    points = [point for point in POINTS if point not in SLOW]
    schedule = make_schedule(1, KILLS, points, named=True)
    plan = Plan(1, schedule, REQUESTS, least_served=0.9)

    with two_providers(seed=1) as providers:
        books = await run(Place(own_redis, {}, *providers), plan, Progress(shown=False))

    figures = account(books, plan.terms)
    assert not any(figure.wrongs for figure in figures), f"\n{table(figures)}"
