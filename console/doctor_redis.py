"""What the doctor asks Redis: its version, that it forgets nothing, and its clock."""

import re
import time
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from broker.opening import open_redis
from console.doctor_findings import Finding, fail, ok, warn
from producer_sdk.settings import masked

OLDEST: Final = 7
MOST_APART_S: Final = 1.0
_ANSWER_S: Final = 5.0
_NEARLY_FULL: Final = 0.9


async def check_redis(redis_url: str) -> list[Finding]:
    """Whether it is reached, is young enough, evicts nothing, writes to disk, and knows the time."""
    try:
        async with open_redis(redis_url, _ANSWER_S) as redis:
            info: dict[str, Any] = await redis.info()
            apart_s = await _clock_apart_s(redis)
    except (RedisError, OSError, ValueError) as error:
        return [_unreachable(redis_url, error)]
    return [*server_findings(info, masked(redis_url)), clock_finding(apart_s)]


def server_findings(info: Mapping[str, Any], where: str) -> list[Finding]:
    """What the answer to `INFO` means."""
    return [_server(info, where), _eviction(info), _persistence(info)]


async def _clock_apart_s(redis: Redis) -> float:
    """This machine's clock less Redis's, in seconds, to half a round trip."""
    before = time.time()
    seconds, microseconds = await redis.time()
    return (before + time.time()) / 2 - (seconds + microseconds / 1e6)


def _unreachable(redis_url: str, error: BaseException) -> Finding:
    found = f"Redis at {masked(redis_url)} cannot be reached ({str(error) or type(error).__name__})"
    if isinstance(error, AuthenticationError):
        return fail("redis", found, "user or password in OPTIMIZER_REDIS_URL are wrong")
    return fail("redis", found, "start it (optimizer up), or correct OPTIMIZER_REDIS_URL")


def _server(info: Mapping[str, Any], where: str) -> Finding:
    version = str(info.get("redis_version", "unknown"))
    found = f"Redis {version} at {where}"
    major = re.match(r"\d+", version)
    if major is None or int(major.group()) < OLDEST:
        return fail("redis", found, "upgrade to 7 or later")
    if info.get("redis_mode") == "cluster":
        return fail("redis", f"{found} is a cluster", "use one primary: flights and limits are one step")
    if info.get("role") == "slave":
        return fail("redis", f"{found} is a replica", "point OPTIMIZER_REDIS_URL at the primary")
    return ok("redis", found)


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy")
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if policy != "noeviction":
        remedy = "run: redis-cli CONFIG SET maxmemory-policy noeviction, and put it into redis.conf"
        return warn("redis memory", f"maxmemory-policy is {policy}: limits and claims can vanish", remedy)
    if most and used > _NEARLY_FULL * most:
        remedy = "raise it: redis-cli CONFIG SET maxmemory <bytes>"
        return warn("redis memory", f"{used / most:.0%} of maxmemory is used", remedy)
    return ok("redis memory", f"nothing is evicted; {used / 1e6:.0f} MB used")


def _persistence(info: Mapping[str, Any]) -> Finding:
    check = "redis persistence"
    if info.get("loading"):
        return fail(check, "Redis is loading its data", "wait until it has")
    for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if info.get(name, "ok") != "ok":
            remedy = "look at the disk and at Redis's log; until then it may refuse to write"
            return fail(check, f"{name} is {info[name]}", remedy)
    if not info.get("aof_enabled"):
        remedy = "run: redis-cli CONFIG SET appendonly yes, and put it into redis.conf"
        return warn(check, "appendonly is no: a restart forgets quotas, claims and answers", remedy)
    return ok(check, "appendonly is yes, and the last writes went well")


def clock_finding(apart_s: float) -> Finding:
    """What this machine's clock less Redis's, in seconds, means."""
    if abs(apart_s) <= MOST_APART_S:
        return ok("clock", f"{abs(apart_s):.3f} s from Redis's")
    direction = "ahead of" if apart_s > 0 else "behind"
    remedy = "synchronise both with NTP; deadlines are instants of the agents' clocks"
    return warn("clock", f"{abs(apart_s):.1f} s {direction} Redis's", remedy)
