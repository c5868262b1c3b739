"""The stand-in for Redis held against the real one: the same calls, the same answers, the same content."""

import math
import time
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from broker.scripting import pack
from tests.model.lua import LuaScripts, sources
from tests.support.house import House

if TYPE_CHECKING:
    from collections.abc import Iterator

TIME = "redis.call('TIME')"
DAY_S = 86400.0
LIMITS = (
    {"kind": "lease", "key": "o1:lease", "amount": 2, "name": "lease", "adapts": "o1:adapted"},
    {"kind": "sliding", "key": "o1:sliding", "amount": 5, "window_s": 60, "slack_s": 1, "unit": "requests",
     "cost": 2.5, "name": "sliding"},
    {"kind": "fixed", "key": "o1:fixed", "amount": 9, "window_s": 60, "slack_s": 60, "offset_s": 0,
     "unit": "tokens", "cost": 3, "name": "fixed", "at_once": 0.5, "kept": 0.1,
     "keeps": True},
    {"kind": "bucket", "key": "o1:bucket", "amount": 60, "window_s": 60, "slack_s": 1, "burst": 9,
     "unit": "reserved_tokens", "cost": 3, "name": "bucket"},
)  # fmt: skip
PLACES = (
    None,
    {"queue": "jobs.groq.any.high", "turn": 1.5, "agent": "a", "ahead": 2, "next": []},
    {"queue": "jobs.groq.any.high", "turn": 9.5, "agent": "b", "ahead": 2, "next": [12.5, "a"]},
)
FIRST: dict[str, Any] = {"rank": 0, "rotation": "least_used"}
BUDGET = {
    "kind": "fixed", "key": "o1:budget", "amount": 4, "window_s": 86400, "slack_s": 5, "offset_s": 0,
    "unit": "usd", "cost": 1, "name": "budget of agent a", "own": True,
}  # fmt: skip
RATE = {"key": "o1:rate", "amount": 2, "window_s": 60.0, "name": "rate"}
RETRIES = {"provider": "groq", "key": "o1:retries:groq", "share": 0.2, "park_s": 5.0}
BROKEN = {"key": "o1:closed", "until_": 0.0, "grow_s": 1.0}
RELATIVE = (
    "permit:",
    "|mean",
    "used",
    "notes",
    "request:",
    "sliding",
    "closed",
    "|foreign",
    "|turns",
    "adapted",
    "line:",
)
"""Keys that end some time after they were written, by Redis's own clock; the others end at an instant."""

texts = st.sampled_from(["r1", "r2", "r3"])
tokens = st.sampled_from(["t1", "t2", "t3"])
calls = st.one_of(
    st.tuples(
        st.just("admit"), texts, st.fixed_dictionaries({
            "rank": st.integers(0, 2), "durable": st.booleans(), "max_age_s": st.sampled_from([0, 5, 600]),
            "keep_s": st.sampled_from([0, 5, 600.5]), "backoff_s": st.just(30.0),
            "longest_backoff_s": st.just(600.0), "limits": st.sampled_from([(), (RATE,)]),
            "queue": st.sampled_from(["", "jobs.groq.any.high"]), "agent": st.sampled_from(["a", "b"]),
            "earliest": st.sampled_from([(), (1e10, "requests-86400s")]),
            "budgets": st.sampled_from([(), (BUDGET,)]),
        })),
    st.tuples(st.just("claim"), texts, st.fixed_dictionaries({
        "worker": st.sampled_from(["w1", "w2"]), "token": tokens, "limits": st.sampled_from([(), LIMITS]),
        "retries": st.sampled_from([{}, RETRIES]),
        "rank": st.integers(0, 2),
        "rotation": st.sampled_from(["least_used", "round_robin", "performance", "intelligent"]),
        "place": st.sampled_from(PLACES),
    })),
    st.tuples(st.just("hedge"), texts, st.fixed_dictionaries({
        "token": tokens, "hedges": tokens, "limits": st.sampled_from([(), LIMITS]),
        "rank": st.integers(0, 2),
        "rotation": st.sampled_from(["least_used", "round_robin", "performance", "intelligent"]),
    })),
    st.tuples(st.just("restamp"), texts, st.fixed_dictionaries({"token": tokens})),
    st.tuples(st.just("renew"), texts, st.fixed_dictionaries({"worker": st.just("w1"), "token": tokens})),
    st.tuples(
        st.just("commit"), texts, st.fixed_dictionaries({
            "token": tokens, "ok": st.booleans(), "outcome": st.sampled_from(["a", "b"]),
            "events": st.sampled_from(["", "e"]), "keep_s": st.sampled_from([0, 600]),
            "shared_s": st.sampled_from([0, 5]), "ago": st.sampled_from([0, 20]),
            "retry_in": st.sampled_from([None, 1]),
            "left": st.sampled_from([{}, {"o1:sliding": 0.5, "o1:fixed": 1.0, "o1:bucket": 2.0}]),
            "bill": st.sampled_from([{}, {"requests": 1.0}, {"requests": 0.1, "tokens": 7, "reserved_tokens": 1}]),  # noqa: E501
        })),
    st.tuples(
        st.just("release"), texts, st.fixed_dictionaries({
            "token": tokens, "billed": st.booleans(), "sent": st.booleans(),
            "parked_until": st.just(0.0), "closes_for": st.sampled_from([None, 7]),
            "grow_s": st.sampled_from([0.0, 1.5]), "overloaded": st.booleans(),
        })),
    st.tuples(st.just("settle"), texts, st.fixed_dictionaries({"events": st.sampled_from(["", "e", "ee"])})),
    st.tuples(st.just("cancel"), texts, st.just({})),
)  # fmt: skip
steps = st.lists(st.tuples(calls, st.sampled_from([0.0, 0.25, 4.0, 16.0, 61.0, 700.0])), max_size=25)


class Pair:
    """The real Redis and the stand-in, with one clock that the test turns.

    It begins with a day to come, so that a history does the same whenever it runs, and that nothing
    ends in the real Redis before the test says so.
    """

    def __init__(self, redis: Redis) -> None:
        told = sources({TIME: "{ARGV[2], ARGV[3]}"})
        self.redis = redis
        self._hashes = {name: redis.script_load(text) for name, text in told.items()}
        self.standin = LuaScripts(sources())
        self.now = math.ceil(time.time() / DAY_S + 1) * DAY_S
        redis.flushdb()

    def run(self, script: str, name: str, details: dict[str, Any]) -> None:
        packed = pack(self._arguments(script, name, details))
        self.standin.now = self.now
        answer = self.standin.evaluate(script, "" if script == "cancel" else "f", packed)
        keys = self.standin.keys("" if script == "cancel" else "f")
        second, micros = divmod(round(self.now * 1e6), 1_000_000)
        real = self.redis.evalsha(self._hashes[script], 3, *keys, packed, str(second), str(micros))
        assert sorted(map(_unordered, answer)) == sorted(map(_unordered, real))
        self._compare()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for key, _, end in self.standin.frozen:
            if end is not None and end <= self.now:
                self.redis.delete(key)
        self.standin.frozen = tuple(e for e in self.standin.frozen if e[2] is None or e[2] > self.now)

    def _compare(self) -> None:
        held = {key: (value, end) for key, value, end in self.standin.frozen}
        keys: Any = self.redis.keys("*")
        assert sorted(held) == sorted(key.decode() for key in keys)
        for key, (value, end) in held.items():
            assert _plain(value) == self._content(key), key
            real_end = self.redis.expiretime(key)
            assert (end is None) == (real_end == -1), key
            if end is not None and not any(part in key for part in RELATIVE):
                assert end == real_end, key

    def _content(self, key: str) -> Any:
        redis: Any = self.redis
        match redis.type(key):
            case b"hash":
                return {field: _unordered(value) for field, value in redis.hgetall(key).items()}
            case b"zset":
                return dict(redis.zrange(key, 0, -1, withscores=True))
            case _:
                return _unordered(redis.get(key))

    def _arguments(self, script: str, name: str, details: dict[str, Any]) -> dict[str, Any]:
        deadline = math.floor(self.now / 100) * 100 + {"r1": 50.0, "r2": 150.0, "r3": 2000.0}[name]
        waiter = pack({"deadline": deadline, "tell_waits": name == "r2"})
        common = {"key": f"a/{name}", "waiter": waiter, "deadline": deadline, **details}
        match script:
            case "claim" | "hedge":
                account = {"name": "main", "limits": [], "keys": [{"closed": []}], "closed": ["o1:closed"]}
                return common | {
                    "lease_s": 15.0, "max_spends": 2, "closed": [],
                    "call": pack({"call": details["token"], "provider": script}),
                    "permit_key": f"o1:permit:{details['token']}", "paused": [], "accounts": [account],
                    "used_key": "o1:used", "notes_key": "o1:notes", "shares": [8.0, 3.0, 1.0],
                    "seat": f"{details.get('worker', 'w3')}:any", "budgets": [BUDGET], "own_budgets": [],
                    "lines": ["o1:line:jobs.groq.any.high|*"],
                }  # fmt: skip
            case "restamp":
                key = f"o1:permit:{details['token']}"
                return common | {"lease_s": 15.0, "permit_key": key, "limits": LIMITS}
            case "renew":
                return common | {
                    "lease_s": 15.0,
                    "started": self.now,
                    "call": pack({}),
                    "leases": ["o1:lease"],
                }
            case "commit":
                retry_at = self.now + details["retry_in"] if details["retry_in"] else 0
                started = self.now - details["ago"]
                failed = [BROKEN] if not details["ok"] else []
                return common | {
                    "started": started, "retry_at": retry_at, "permit_key": f"o1:permit:{details['token']}",
                    "parts": ["o1:closed"], "failed": failed,
                }  # fmt: skip
            case "release":
                until = self.now + (details["closes_for"] or 0)
                closed = (
                    [{"key": "o1:closed", "until_": until, "grow_s": details["grow_s"]}]
                    if details["closes_for"]
                    else []
                )
                failed = [BROKEN] if details["overloaded"] else []
                key = f"o1:permit:{details['token']}"
                return common | {"closed": closed, "failed": failed, "permit_key": key}
            case "settle":
                waiters = [{"key": f"a/{name}", "deadline": deadline}]
                return {"waiters": waiters, "keep_s": 0.0, **details}
            case _:
                return common


def _plain(value: Any) -> Any:
    if not isinstance(value, tuple):
        return _unordered(value.encode("latin-1"))
    return {
        name.encode("latin-1"): _unordered(v.encode("latin-1")) if isinstance(v, str) else v
        for name, v in value
    }


def _unordered(text: bytes) -> Any:
    """Packed tables in some order of their own: Lua's. What is none is a text.

    Redis adds in 80 bits and writes 17 decimals, of arguments whose digits depend on its version: a
    number counts by its first 14 digits.
    """
    if text[:1] and text[0] >= 0x80:
        return repr(_sorted(_unpacked(text)))
    try:
        return f"{float(text):.14g}"
    except ValueError:
        return repr(text)


def _unpacked(text: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(text)
    return list(unpacker)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((k, _sorted(v)) for k, v in value.items())
    return [_sorted(v) for v in value] if isinstance(value, list) else value


@pytest.fixture
def redis(own_redis: House) -> "Iterator[Redis]":
    with Redis.from_url(own_redis.redis_url) as redis:
        yield redis


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=steps)
def test_any_run_of_the_scripts_is_the_same_on_both(
    redis: Redis, history: list[tuple[tuple[str, str, dict[str, Any]], float]]
) -> None:
    pair = Pair(redis)
    for (script, name, details), pause_s in history:
        pair.run(script, name, details)
        pair.wait(pause_s)


def test_a_retry_budget_is_used_up_and_fed_alike_on_both(redis: Redis) -> None:
    pair = Pair(redis)
    claim = {"worker": "w1", "token": "t1", "limits": (), "retries": RETRIES, **FIRST}
    failed = {
        "token": "t1", "billed": False, "sent": True, "parked_until": 0.0, "closes_for": None, "grow_s": 0.0,
        "overloaded": True,
    }  # fmt: skip
    result = {
        "token": "t1", "ok": True, "outcome": "a", "events": "", "keep_s": 0, "shared_s": 0, "ago": 0,
        "retry_in": None, "bill": {},
    }  # fmt: skip
    for _ in range(12):
        pair.run("claim", "r3", claim)
        pair.run("release", "r3", failed)
        pair.wait(0.25)
    pair.wait(61.0)  # the circuit is half open
    pair.run("claim", "r3", claim)
    pair.run("commit", "r3", result)


def test_a_whole_life_of_a_flight_is_the_same_on_both(redis: Redis) -> None:
    pair = Pair(redis)
    admission = {
        "rank": 1, "durable": False, "max_age_s": 600, "keep_s": 600, "backoff_s": 30.0,
        "longest_backoff_s": 600.0, "limits": (), "queue": "jobs.groq.any.high", "agent": "a", "earliest": (),
        "budgets": (),
    }  # fmt: skip
    result = {
        "token": "t2", "ok": True, "outcome": "a", "events": "e", "keep_s": 600, "shared_s": 0, "ago": 1,
        "retry_in": None, "bill": {"requests": 1.0, "tokens": 7},
    }  # fmt: skip
    failed = {
        "token": "t3", "billed": False, "sent": True, "parked_until": 0.0, "overloaded": True,
        "closes_for": None, "grow_s": 0.0,
    }  # fmt: skip
    lifetime: list[tuple[str, str, dict[str, Any]]] = [
        ("admit", "r3", admission),
        ("admit", "r2", admission),
        ("claim", "r3", {"worker": "w1", "token": "t1", "limits": LIMITS, "retries": RETRIES, **FIRST}),
        ("hedge", "r3", {"hedges": "t1", "token": "t3", "limits": (), **FIRST}),
        ("renew", "r3", {"worker": "w3", "token": "t3"}),
        ("release", "r3", failed),
        ("renew", "r3", {"worker": "w1", "token": "t1"}),
        ("claim", "r3", {"worker": "w2", "token": "t2", "limits": LIMITS, "retries": RETRIES, **FIRST}),
        ("commit", "r3", result),
        ("settle", "r3", {"events": "e"}),
        ("cancel", "r2", {}),
        ("admit", "r3", admission),
    ]
    for number, (script, name, details) in enumerate(lifetime):
        pair.run(script, name, details)
        pair.wait(20.0 if number == 6 else 0.0)
