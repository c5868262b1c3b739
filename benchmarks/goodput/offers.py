"""The four providers: what each allows and how long its calls take, and that as everybody needs it written.

Figures are of real minutes, as providers state them. All of them are run `faster` times as fast.
"""

from dataclasses import dataclass
from typing import Final

from benchmarks.goodput.optimum import Bucket, Supply
from sandbox.simulator import Latency, Limit, Model, Settings

MODEL: Final = "sim-small"
KEY: Final = "sk-simulated"
_MINUTE_S: Final = 60.0


@dataclass(frozen=True)
class Offer:
    """One provider, in real minutes.

    Attributes:
        requests: In a minute; None: no such limit.
        tokens: In a minute, charged on arrival: the prompt and the bound on the answer.
        burst: What the bucket holds, where `requests` is one; else they are counted in a sliding minute.
        concurrency: Calls in flight; None: no such limit.
        latency_s: How long each call takes.
        usd_per_mtok: The price of any million tokens.
    """

    name: str
    latency_s: float
    usd_per_mtok: float
    requests: int | None = None
    tokens: int | None = None
    burst: int | None = None
    concurrency: int | None = None

    @property
    def requests_per_minute(self) -> float:
        """What it takes at most in the long run, tokens aside."""
        in_flight = (
            float("inf") if self.concurrency is None else self.concurrency * _MINUTE_S / self.latency_s
        )
        return min(in_flight, float("inf") if self.requests is None else self.requests)

    def settings(self, faster: float) -> Settings:
        """The simulated provider, so many times as fast."""
        window_s = _MINUTE_S / faster
        limits = []
        if self.burst is not None:
            limits.append(
                Limit(requests=self.requests, window_s=window_s, counting="bucket", burst=self.burst)
            )
        elif self.requests is not None:
            limits.append(Limit(requests=self.requests, window_s=window_s))
        if self.tokens is not None:
            limits.append(Limit(tokens=self.tokens, window_s=window_s))
        price = Model(id=MODEL, input_usd_per_mtok=self.usd_per_mtok, output_usd_per_mtok=self.usd_per_mtok)
        latency = Latency(median_s=self.latency_s / faster)
        return Settings(
            models=(price,), limits=tuple(limits), concurrency=self.concurrency, latency=latency
        )  # fmt: skip

    def supply(self, faster: float) -> Supply:
        """The same for the optimum, tokens aside."""
        window_s, latency_s = _MINUTE_S / faster, self.latency_s / faster
        if self.requests is None:
            return Supply(latency_s, concurrency=self.concurrency)
        if self.burst is not None:
            bucket = Bucket(window_s / self.requests, self.burst)
            return Supply(latency_s, concurrency=self.concurrency, bucket=bucket)
        return Supply(latency_s, ((self.requests, window_s),), self.concurrency)


OFFERS: Final = (
    Offer("window", latency_s=2.4, usd_per_mtok=0.1, requests=36),
    Offer("tokens", latency_s=4.8, usd_per_mtok=0.2, requests=30, tokens=12_000),
    Offer("slots", latency_s=6.0, usd_per_mtok=0.3, concurrency=3),
    Offer("bucket", latency_s=3.6, usd_per_mtok=0.4, requests=24, burst=6),
)
"""One for each kind of limit; the cheaper it is, the sooner a plain route comes by it."""


def capacity_per_minute(offers: tuple[Offer, ...] = OFFERS) -> float:
    """Requests that all of them take in a real minute."""
    return sum(offer.requests_per_minute for offer in offers)
