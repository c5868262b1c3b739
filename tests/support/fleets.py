"""The text of a `fleet.toml` for simulated providers, a table at a time."""

from sandbox.simulator import SimulatorProcess

_PROVIDER = """
[providers.{name}]
base_url = "{base_url}"
api_keys = ["{key}"]
concurrency = {concurrency}
[[providers.{name}.models]]
id = "sim-small"
input_usd_per_mtok = {price}
output_usd_per_mtok = {price}
"""


def provider(
    name: str,
    simulator: SimulatorProcess,
    *,
    concurrency: int = 8,
    price: float = 0.1,
    key: str = "env:SIMULATED_KEY",
) -> str:
    """A provider with the model `sim-small`; the cheapest is the first that is asked for it."""
    return _PROVIDER.format(
        name=name, base_url=simulator.base_url, concurrency=concurrency, price=price, key=key
    )
