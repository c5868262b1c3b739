"""A house of the run's own: brokers that may be restarted and emptied, and simulated providers."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from sandbox.nodes import RabbitNode, RedisNode
from sandbox.nodes.node import Node
from sandbox.simulator import Faults, Latency, Model, Settings, SimulatorProcess
from tests.chaos.load import AGENT_REQUESTS_PER_MINUTE, CUTTING, FLAKY, MORTAL, SOUND
from tests.support.house import House, create_vhost
from topology.fleet import Fleet

_VHOST = "chaos"
_FASTEST_S, _SLOWEST_S = 0.05, 0.15
"""Of the provider's answers."""
_SMALL = SOUND.partition("/")[2]
_MORTAL = MORTAL.partition("/")[2]
_CUT = CUTTING.partition("/")[2]

_FLEET = """
[fleet]
max_spends = {max_spends}
{rate}
[cache]
ttl_s = {ttl_s}
dedupe_window_s = {ttl_s}
[recorder]
url = "sqlite:///{database}"
[providers.simulated]
base_url = "{base_url}"
api_keys = ["env:SIMULATED_KEY"]
concurrency = {slots}
timeout_s = 5
models = [
  {{id = "{small}", input_usd_per_mtok = 1, output_usd_per_mtok = 1}},
  {{id = "{flaky}", input_usd_per_mtok = 1, output_usd_per_mtok = 1}},
]
[providers.mortal]
base_url = "{base_url}"
api_keys = ["env:SIMULATED_KEY"]
concurrency = 2
timeout_s = 5
models = [{{id = "{mortal}", input_usd_per_mtok = 1, output_usd_per_mtok = 1}}]
[providers.gone]
base_url = "http://127.0.0.1:{nobody}/v1"
api_keys = ["env:SIMULATED_KEY"]
timeout_s = 5
models = [{{id = "{flaky}", input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.1}}]
[providers.cutting]
base_url = "{cutting_url}"
api_keys = ["env:SIMULATED_KEY"]
timeout_s = 5
models = [{{id = "{cut}", input_usd_per_mtok = 1, output_usd_per_mtok = 1}}]
"""


@dataclass(frozen=True)
class Place:
    """What a run happens in.

    Attributes:
        nodes: `rabbitmq` and `redis`, where they may be restarted.
        provider: Answers every call.
        cutting: Hangs up in the middle of every answer.
    """

    house: House
    nodes: Mapping[str, Node]
    provider: SimulatorProcess
    cutting: SimulatorProcess

    @property
    def database(self) -> Path:
        """The recorder's."""
        return self.house.folder / "recorder.db"

    def fleet(self, max_spends: int, ttl_s: float = 3600.0, *, limited: bool = True, slots: int = 5) -> Fleet:
        """The fleet's configuration, written where workers read it.

        Args:
            max_spends: As in the configuration.
            limited: Whether agents have a rate.
            slots: The provider's concurrency; with one for each pool at most, a kill takes one call with it.
            ttl_s: For how long an answer is reused, and a finished flight joined, in seconds.
        """
        rate = f"agent_requests_per_minute = {AGENT_REQUESTS_PER_MINUTE}" if limited else ""
        return self.house.fleet(
            _FLEET.format(
                max_spends=max_spends, rate=rate, slots=slots, ttl_s=ttl_s,
                database=self.database,
                base_url=self.provider.base_url, cutting_url=self.cutting.base_url, nobody=_nobody(),
                small=_SMALL, flaky=FLAKY, mortal=_MORTAL, cut=_CUT,
            )
        )  # fmt: skip


@contextmanager
def own_place(folder: Path, seed: int) -> Iterator[Place]:
    """Starts it all, and stops it.

    Args:
        folder: Where data and logs go.
        seed: Of the provider's latencies.
    """
    with ExitStack() as stack:
        rabbitmq = stack.enter_context(RabbitNode(folder / "rabbitmq"))
        redis = stack.enter_context(RedisNode(folder / "redis", append_only=True))
        create_vhost(rabbitmq.management_url, _VHOST)
        amqp_url = urlunsplit(urlsplit(rabbitmq.amqp_url)._replace(path=f"/{_VHOST}"))
        house = House(amqp_url, redis.redis_url, rabbitmq.management_url, _VHOST, "", folder)
        providers = stack.enter_context(two_providers(seed))
        yield Place(house, {"rabbitmq": rabbitmq, "redis": redis}, *providers)


@contextmanager
def two_providers(seed: int) -> Iterator[tuple[SimulatorProcess, SimulatorProcess]]:
    """One that answers every call, and one that hangs up in the middle of every answer."""
    models = tuple(Model(id=name) for name in (_SMALL, FLAKY, _MORTAL))
    latency = Latency(kind="uniform", low_s=_FASTEST_S, high_s=_SLOWEST_S)
    sound = Settings(seed=seed, models=models, latency=latency)
    cutting = Settings(seed=seed, models=(Model(id=_CUT),), faults=Faults(cut=1.0))
    with SimulatorProcess(sound) as provider, SimulatorProcess(cutting) as other:
        yield provider, other


def _nobody() -> int:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
