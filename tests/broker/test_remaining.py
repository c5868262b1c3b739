"""What is left of quotas, wherever they stand."""

from pathlib import Path

from broker.remaining import Quotas
from tests.broker.test_flights import Desk
from topology.loading import load_fleet

FLEET = """
[providers.groq]
base_url = "http://groq.test/v1"
requests_per_day = 1000
requests_per_minute = 30
day_resets_at = "06:00 UTC"
[[providers.groq.accounts]]
name = "main"
api_keys = ["env:KEY"]
limits = [{ usd = 5, window_s = 3600 }]
[[providers.groq.models]]
id = "llama"
tokens_per_day = 100_000
[providers.house]
base_url = "http://house.test/v1"
keyless = true
models = [{ id = "own", limits = [{ requests = 9, window_s = 7200, counting = "bucket", burst = 18 }] }]
"""
NOON = 1_800_057_600.0 - 43_200.0


async def test_every_limit_of_an_hour_or_more_is_looked_at(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET, "utf-8")

    found = await Quotas(desk.flights, load_fleet(path, {}, secrets=False)).remaining(NOON)

    assert [(str(one.about), one.about.limit, one.left, one.amount) for one in found] == [
        ("groq", "requests-86400s", 1000, 1000),
        ("groq, account main", "usd-3600s", 5, 5),
        ("groq/llama, account main", "tokens-86400s", 100_000, 100_000),
        ("house/own, account keyless", "requests-7200s", 18, 18),
    ]
    assert [one.opens_at for one in found] == [NOON + 18 * 3600, None, NOON + 18 * 3600, None]
