"""The `optimizer` command, beside a test's event loop."""

import asyncio

from typer.testing import CliRunner, Result

from console.main import app
from tests.support.house import House


async def optimizer(house: House, *arguments: str) -> Result:
    """Runs the command in this house. Its Redis must be its own: commands put no prefix before their keys."""
    environ = {
        **house.environ,
        "OPTIMIZER_AMQP_URL": house.amqp_url,
        "OPTIMIZER_REDIS_URL": house.redis_url,
        "OPTIMIZER_MANAGEMENT_URL": house.management_url,
    }
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, arguments, env=environ))
