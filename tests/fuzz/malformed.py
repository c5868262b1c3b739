"""Malformed messages, made from a seed: the same seed and number give the same message.

A kind is a function from a `Maker` to a `Malformed`, which says what must become of it. Kinds register
themselves with `@kind`; the modules `kinds_*` hold them.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, Final

import msgpack
from pamqp.commands import Basic

from topology import names

AGENT: Final = "tester"


class End(StrEnum):
    """What can become of a message, as its sender and people see it."""

    ANSWERED = "answered"
    """With a typed error."""
    SERVED = "served"
    """With a result: what is odd about it does no harm."""
    KEPT = "kept"
    """A copy with its reason is in `dead.kept`."""
    RETURNED = "returned"
    """Unroutable: the broker returns it to its sender."""
    NOTHING = "nothing"
    """By design nobody hears of it: whom it concerns is gone, or it asks for nothing."""


@dataclass(frozen=True)
class Expected:
    """The ends that are right; of an answer its type, of an answer or a copy a part of the text.

    `may_die`: on its way there it may pass the undertaker, which leaves a copy: that is no end.
    """

    ends: tuple[End, ...]
    type: str | None = None
    says: str = ""
    may_die: bool = False


@dataclass(frozen=True)
class Malformed:
    """One message as it is published.

    Attributes:
        id: Its message id; unique.
        reply_id: The correlation id under which a reply would come.
        properties: Complete; `Raw` where they hold what a client library would not send.
    """

    kind: str
    id: str
    reply_id: str
    exchange: str
    routing_key: str | bytes
    properties: Basic.Properties
    body: bytes
    expected: Expected


class Raw(Basic.Properties):
    """Properties some of which are given as the bytes that go over the wire."""

    def __init__(self, raw: dict[str, bytes], **plain: Any) -> None:
        super().__init__(**plain)
        self.raw = raw

    def marshal(self) -> bytes:
        flags, parts = 0, b""
        for name in Basic.Properties.__slots__:
            value = getattr(self, name)
            if name in self.raw:
                flags |= self.flags[name]
                parts += self.raw[name]
            elif value is not None and value != "":
                flags |= self.flags[name]
                parts += self.encode_property(name, value)
        return struct.pack(">H", flags) + parts


def shortstr(value: bytes) -> bytes:
    """A short string on the wire, whatever its bytes."""
    return bytes([len(value)]) + value


class Maker:
    """What a kind makes its message from.

    Attributes:
        rng: The only source of chance.
        id: A request id, unique.
        now: Epoch seconds.
    """

    def __init__(self, kind_: str, rng: Random, id_: str, reply_to: str, now: float) -> None:
        self.kind, self.rng, self.id, self.reply_to, self.now = kind_, rng, id_, reply_to, now

    def request(self, **changes: Any) -> dict[str, Any]:
        """A good request's body with these fields changed; a field given as `...` is left out."""
        value = {
            "v": 1,
            "id": self.id,
            "agent": AGENT,
            "params": {"messages": [{"role": "user", "content": "hello"}]},
            **changes,
        }
        return {k: v for k, v in value.items() if v is not ...}

    def waiter(self, **changes: Any) -> dict[str, Any]:
        return {
            "agent": AGENT,
            "id": self.id,
            "reply_to": self.reply_to,
            "priority": "normal",
            "deadline": self.now + 600.0,
            "queued_at": self.now,
            **changes,
        }

    def job(self, **changes: Any) -> dict[str, Any]:
        return {
            "v": 1,
            "fingerprint": self.rng.randbytes(20).hex(),
            "request": self.request(),
            "waiter": self.waiter(),
            "route": [{"provider": "simulated", "model": "sim-small"}],
            "position": 0,
            **changes,
        }

    def send(
        self,
        body: object,
        expected: Expected,
        *,
        exchange: str = names.REQUESTS,
        key: str | bytes = f"normal.{AGENT}",
        reply_id: str | None = None,
        raw: dict[str, bytes] | None = None,
        **properties: Any,
    ) -> Malformed:
        """The message with this body (packed unless it is bytes); properties given as None are left out."""
        told = {
            "message_id": self.id,
            "correlation_id": self.id,
            "reply_to": self.reply_to,
            "content_type": "application/msgpack",
            "delivery_mode": 2,
            **properties,
        }
        plain = {k: v for k, v in told.items() if v is not None and k not in (raw or {})}
        made = Raw(raw, **plain) if raw else Basic.Properties(**plain)
        packed = body if isinstance(body, bytes) else pack(body)
        answers_to = self.id if reply_id is None else reply_id
        return Malformed(self.kind, self.id, answers_to, exchange, key, made, packed, expected)


def pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def answered(type_: str | None = "invalid_request", says: str = "") -> Expected:
    return Expected((End.ANSWERED,), type_, says)


def kept(says: str) -> Expected:
    return Expected((End.KEPT,), None, says)


def either(*ends: End) -> Expected:
    return Expected(ends)


def after_death(*ends: End, type_: str | None = None, says: str = "") -> Expected:
    """With a copy, and one of these ends besides."""
    return Expected(ends, type_, says, may_die=True)


SERVED: Final = either(End.SERVED)
RETURNED: Final = either(End.RETURNED)
NOTHING: Final = either(End.NOTHING)

Make = Callable[[Maker], Malformed]
KINDS: Final[dict[str, tuple[float, Make]]] = {}
HEAVY: Final = 0.005
"""The weight of a kind with a body of megabytes."""

GOOD: Final = "a good request in between"


def kind(weight: float = 1.0) -> Callable[[Make], Make]:
    """Registers a kind; heavy ones get a weight far below 1."""

    def register(make: Make) -> Make:
        assert make.__name__ not in KINDS
        KINDS[make.__name__] = (weight, make)
        return make

    return register


def good(maker: Maker) -> Malformed:
    """A request that nothing is wrong with, with a prompt of its own."""
    params = {"messages": [{"role": "user", "content": f"hello {maker.id}"}]}
    return maker.send(maker.request(params=params), SERVED)


def messages(
    seed: int, count: int, reply_to: str, now: Callable[[], float], good_every: int = 1000
) -> Iterator[Malformed]:
    """`count` malformed messages, each kind at least once if they suffice, and good ones in between.

    The instant `now` is all that differs from one run to the next.
    """
    in_order = list(KINDS)
    weights = [weight for weight, _ in KINDS.values()]
    for number in range(count):
        if number % good_every == 0:
            yield good(Maker(GOOD, Random(0), f"g{seed}.{number}", reply_to, now()))
        rng = Random(f"{seed}.{number}")
        name = in_order[number] if number < len(in_order) else rng.choices(in_order, weights)[0]
        yield KINDS[name][1](Maker(name, rng, f"m{seed}.{number}", reply_to, now()))
