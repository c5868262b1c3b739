"""What an operator does to connections."""

from urllib.parse import quote

import httpx

from tests.support.house import House
from tests.support.waiting import until


async def close_connections(house: House, word: str) -> int:
    """Closes the connections whose properties hold `word`; returns how many."""
    async with httpx.AsyncClient(base_url=house.management_url, timeout=30) as client:
        found: list[str] = []

        async def are_listed() -> bool:
            answer = await client.get(f"/api/vhosts/{house.vhost}/connections")
            rows = answer.json() if answer.is_success else []
            named = [(row["name"], str(row.get("client_properties", {}))) for row in rows]
            found[:] = [name for name, properties in named if word in properties]
            return bool(found)

        await until(are_listed)
        for name in found:
            await client.delete(f"/api/connections/{quote(name, safe='')}")
    return len(found)
