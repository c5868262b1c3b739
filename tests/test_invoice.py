"""From the provider's invoice to the ledger: the ids that it was sent, both sides' prices, the doubts."""

import json
from pathlib import Path

import pytest

from hub.invoice import read_invoice
from hub.store import tables
from hub.store.database import Database
from sandbox.simulator import SimulatorProcess
from tests.support.commands import optimizer
from tests.support.entries import rows
from tests.support.house import House
from tests.support.waiting import until
from topology.sections import RecorderSection


async def test_the_simulated_providers_invoice_settles_what_was_doubtful_and_equals_the_rest(
    house: House, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    url = f"sqlite:///{house.folder / 'optimizer.db'}"
    recorder = RecorderSection.model_validate({"url": url})
    fleet = house.simulated(simulator.base_url).model_copy(update={"recorder": recorder})
    simulator.change(script=["cut", "malformed", "server_error"])
    database = Database(url)

    def states() -> list[str]:
        return sorted(row["state"] for row in rows(database, tables.calls))

    async with house.workers(fleet, ["front", "backend:all", "recorder"]), house.agent() as agent:
        await agent.map([f"Prompt {n}" for n in range(7)], model="sim-small")
        await until(lambda: states() == ["doubtful"] * 2 + ["settled"] * 8)

    path, lines = tmp_path / "invoice.csv", tmp_path / "invoice.jsonl"
    path.write_text(simulator.invoice(), "utf-8")
    lines.write_text(simulator.invoice("jsonl"), "utf-8")
    assert read_invoice(path).charges == read_invoice(lines).charges
    house.environ["OPTIMIZER_RECORDER__URL"] = url
    told = await optimizer(house, "report", "reconcile", str(path), "--json")
    facts = json.loads(told.stdout)
    assert told.exit_code == 0
    assert {name: part["calls"] for name, part in facts["findings"].items()} == {"equal": 8, "billed": 2}
    assert facts["lines"] == 9
    assert facts["ledger_after_usd"] == pytest.approx(facts["invoice_usd"])
    assert facts["ledger_before_usd"] < facts["invoice_usd"]
    assert states() == ["settled"] * 10
