"""A stand-in for Redis: the commands that the scripts use, on a value that can be hashed.

`test_standin.py` holds it against the real one. It keeps no order within hashes, which is Redis's own
word for them, and forgets a key only when it is told to: `Store.purge`.
"""

import math
from collections.abc import Callable
from typing import Any

Frozen = tuple[tuple[str, Any, float | None], ...]
"""Key, value, the instant of its end. A hash is a tuple of pairs, a sorted set a tuple of pairs in order."""


class Store:
    """What Redis holds, open for the commands of one script.

    Args:
        frozen: What it held before.
        now: What its clock says, in epoch seconds.
    """

    def __init__(self, frozen: Frozen, now: float) -> None:
        self._values: dict[str, Any] = {
            key: dict(value) if isinstance(value, tuple) else value for key, value, _ in frozen
        }
        self._ends: dict[str, float | None] = {key: end for key, _, end in frozen}
        self.now = now

    def frozen(self) -> Frozen:
        """What it holds now, as a value."""
        return tuple((key, _tupled(self._values[key]), self._ends.get(key)) for key in sorted(self._values))

    def purge(self) -> None:
        """Forgets what has come to its end."""
        for key, end in list(self._ends.items()):
            if end is not None and end <= self.now:
                self._drop(key)

    def call(self, command: str, *arguments: Any) -> Any:
        """Runs one command; texts in, Redis's answer out, False where it says nil."""
        known: dict[str, Callable[..., Any]] = _COMMANDS
        return known[command](self, *(_text(a) for a in arguments))

    def _drop(self, key: str) -> int:
        self._ends.pop(key, None)
        return 0 if self._values.pop(key, None) is None else 1

    def _time(self) -> list[str]:
        micros = round(self.now * 1e6)
        return [str(micros // 1_000_000), str(micros % 1_000_000)]

    # Texts

    def _get(self, key: str) -> Any:
        return self._values.get(key, False)

    def _set(self, key: str, value: str, *options: str) -> Any:
        before = self._values.get(key, False)
        self._values[key] = value
        words = list(options)
        if "KEEPTTL" not in words:
            self._ends[key] = None
        for word, scale, start in (("EX", 1, self.now), ("PX", 1000, self.now), ("EXAT", 1, 0.0)):
            if word in words:
                self._ends[key] = start + float(words[words.index(word) + 1]) / scale
        return before if "GET" in words else "OK"

    def _incrbyfloat(self, key: str, by: str) -> str:
        value = _text(float(self._values.get(key, "0")) + float(by))
        self._values[key] = value
        return value

    def _exists(self, key: str) -> int:
        return int(key in self._values)

    def _expireat(self, key: str, second: str) -> int:
        if key not in self._values:
            return 0
        self._ends[key] = float(second)
        if float(second) <= self.now:
            self._drop(key)
        return 1

    def _expire(self, key: str, seconds: str) -> int:
        return self._expireat(key, str(self.now + float(seconds)))

    # Hashes

    def _hget(self, key: str, field: str) -> Any:
        return self._values.get(key, {}).get(field, False)

    def _hmget(self, key: str, *fields: str) -> list[Any]:
        return [self._hget(key, field) for field in fields]

    def _hgetall(self, key: str) -> list[Any]:
        return [part for pair in self._values.get(key, {}).items() for part in pair]

    def _hset(self, key: str, *pairs: str) -> int:
        hash_ = self._values.setdefault(key, {})
        before = len(hash_)
        hash_.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(hash_) - before

    def _hsetnx(self, key: str, field: str, value: str) -> int:
        return 0 if self._hexists(key, field) else self._hset(key, field, value)

    def _hdel(self, key: str, *fields: str) -> int:
        return self._remove(key, fields)

    def _hexists(self, key: str, field: str) -> int:
        return int(field in self._values.get(key, {}))

    def _hlen(self, key: str) -> int:
        return len(self._values.get(key, {}))

    def _hkeys(self, key: str) -> list[str]:
        return list(self._values.get(key, {}))

    def _hvals(self, key: str) -> list[str]:
        return list(self._values.get(key, {}).values())

    def _hincrby(self, key: str, field: str, by: str) -> int:
        value = int(self._hget(key, field) or 0) + int(by)
        self._hset(key, field, str(value))
        return value

    # Sorted sets

    def _zadd(self, key: str, score: str, member: str) -> int:
        return self._hset(key, member, float(score))  # type: ignore[arg-type]

    def _zincrby(self, key: str, by: str, member: str) -> str:
        score = float(self._hget(key, member) or 0) + float(by)
        self._zadd(key, str(score), member)
        return _text(score)

    def _zscore(self, key: str, member: str) -> Any:
        score = self._hget(key, member)
        return False if score is False else _text(score)

    def _zrem(self, key: str, *members: str) -> int:
        return self._remove(key, members)

    def _zrange(self, key: str, first: str, last: str, *with_scores: str) -> list[str]:
        ordered = self._ordered(key)
        start, end = (int(i) if int(i) >= 0 else max(len(ordered) + int(i), -1) for i in (first, last))
        part = ordered[max(start, 0) : end + 1]
        return _listed(part, bool(with_scores))

    def _zrangebyscore(self, key: str, low: str, high: str, *options: str) -> list[str]:
        within = [(s, m) for s, m in self._ordered(key) if _above(s, low) and s <= float(high)]
        if "LIMIT" in options:
            first, count = (int(word) for word in options[options.index("LIMIT") + 1 :][:2])
            within = within[first : first + count]
        return _listed(within, "WITHSCORES" in options)

    def _zcount(self, key: str, low: str, high: str) -> int:
        return len(self._zrangebyscore(key, low, high))

    def _zremrangebyscore(self, key: str, low: str, high: str) -> int:
        return self._remove(key, tuple(self._zrangebyscore(key, low, high)))

    def _ordered(self, key: str) -> list[tuple[float, str]]:
        return sorted((score, member) for member, score in self._values.get(key, {}).items())

    def _remove(self, key: str, members: tuple[str, ...]) -> int:
        held = self._values.get(key, {})
        removed = sum(held.pop(member, None) is not None for member in members)
        if removed and not held:
            self._drop(key)
        return removed


_COMMANDS: dict[str, Callable[..., Any]] = {
    "TIME": Store._time, "GET": Store._get, "SET": Store._set, "DEL": Store._drop,
    "EXISTS": Store._exists, "INCRBYFLOAT": Store._incrbyfloat, "EXPIRE": Store._expire,
    "EXPIREAT": Store._expireat, "HGET": Store._hget, "HGETALL": Store._hgetall, "HMGET": Store._hmget,
    "HSET": Store._hset, "HSETNX": Store._hsetnx, "HDEL": Store._hdel, "HEXISTS": Store._hexists,
    "HLEN": Store._hlen, "HKEYS": Store._hkeys, "HVALS": Store._hvals, "HINCRBY": Store._hincrby,
    "ZADD": Store._zadd, "ZCARD": Store._hlen, "ZSCORE": Store._zscore, "ZREM": Store._zrem,
    "ZRANGE": Store._zrange, "ZRANGEBYSCORE": Store._zrangebyscore,
    "ZREMRANGEBYSCORE": Store._zremrangebyscore, "ZINCRBY": Store._zincrby, "ZCOUNT": Store._zcount,
}  # fmt: skip


def _text(value: Any) -> str:
    """A number as Redis writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not (value.is_integer() and math.fabs(value) < 1e15):
        return repr(value)
    return str(int(value))


def _above(score: float, low: str) -> bool:
    return score > float(low[1:]) if low.startswith("(") else score >= float(low)


def _listed(members: list[tuple[float, str]], with_scores: bool) -> list[str]:
    return [text for score, m in members for text in ((m, _text(score)) if with_scores else (m,))]


def _tupled(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value
