"""Every key answers 429 for a while: nobody is punished, nobody gets an error, few calls are wasted."""

import asyncio
from itertools import pairwise

from sandbox.simulator import Account, SimulatorProcess
from tests.support.house import House
from tests.support.waiting import until

_AT_ONCE = 8
_COOL_DOWN_S = 1.0
_NEARLY = 0.9
"""The provider's clock is that of arrivals: a probe may come a little sooner after the one before."""


async def test_in_a_storm_each_account_is_tried_by_one_call_after_each_cool_down(
    house: House, simulator: SimulatorProcess
) -> None:
    names = ("a", "b")
    simulator.change(
        accounts=[Account(name=name, keys=[f"sk-{name}"]).model_dump() for name in names],
        faults={"rate_limited": 1.0, "retry_after_s": _COOL_DOWN_S},
    )
    house.environ |= {f"KEY_{name.upper()}": f"sk-{name}" for name in names}
    accounts = "\n".join(
        f'[[providers.simulated.accounts]]\nname = "{name}"\napi_keys = ["env:KEY_{name.upper()}"]'
        for name in names
    )
    fleet = house.fleet(
        f'[providers.simulated]\nbase_url = "{simulator.base_url}"\nconcurrency = {_AT_ONCE}\n{accounts}\n'
        '[[providers.simulated.models]]\nid = "sim-small"\n'
    )

    async with (
        house.workers(fleet, ["front"], *[["backend:all"]] * 2),
        house.agent() as optimizer,
        house.events() as events,
    ):
        asked = [asyncio.create_task(optimizer.chat(f"Prompt {n}", timeout=90)) for n in range(20)]
        await until(lambda: len(simulator.ledger()) >= 2 * _AT_ONCE, timeout_s=60)
        refused = simulator.ledger()
        simulator.change(faults={"rate_limited": 0.0})
        replies = await asyncio.gather(*asked)
        await until(
            lambda: (
                {getattr(e, "account", None) for e in events if e.type == "optimizer.key.restored"}
                == set(names)
            )
        )

    assert {reply.status for reply in replies} == {"ok"}
    assert {call.outcome for call in refused} == {"rate_limited"}
    for name in names:
        # Before the first was refused, as many were under way as the provider's concurrency allows.
        probes = [call.arrived_at for call in refused[_AT_ONCE:] if call.account == name]
        assert len(probes) >= 2
        assert all(later - earlier >= _NEARLY for earlier, later in pairwise(probes))
    assert len([call for call in simulator.ledger() if call.outcome == "ok"]) == 20
