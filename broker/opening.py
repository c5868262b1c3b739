"""Opening Redis from a URL: one server, or whichever Sentinel says is the primary."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from producer_sdk.amqp_url import node_urls

_SENTINEL_PORT: Final = 26379
_SENTINEL_TIMEOUT_S: Final = 3.0
"""Shorter than any `down-after-milliseconds` should be: whoever hung on a primary that stopped answering
has let go of it by the time another one takes over, and cannot write to it when it wakes up."""
_FORM: Final = "write redis+sentinel://user:password@host1:26379,host2:26379/<primary's name>/<database>"


@asynccontextmanager
async def open_redis(
    url: str, timeout: float, *, tries: int = 1, name: str | None = None
) -> AsyncIterator[Redis]:
    """A client; nothing is connected before its first command.

    Args:
        url: `redis://`, `rediss://`, `unix://` as redis-py takes them. `redis+sentinel://` names Sentinels,
            the name under which they watch the primary, and the database; user and password are Redis's,
            those of the Sentinels are the options `sentinel_username` and `sentinel_password`;
            `rediss+sentinel://` speaks TLS to all. A fail-over shows itself as lost connections and
            refused writes for as long as it takes.
        timeout: Seconds that connecting and each answer may take; with Sentinels at most 3.
        tries: How often a command is tried on lost connections.
        name: What the connections are called in Redis.

    Raises:
        ValueError: The URL is none; the text does not quote it, as it may hold a password.
    """
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), tries - 1), "client_name": name}
    async with AsyncExitStack() as stack:
        if not is_sentinel(url):
            yield await stack.enter_async_context(
                Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, **options)
            )
            return
        timeout = min(timeout, _SENTINEL_TIMEOUT_S)
        times = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        watched = _watched(url)
        sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py's
            watched.sentinels,
            sentinel_kwargs={**times, **watched.sentinel_options, "retry": Retry(NoBackoff(), 0)},
            **times,
            **options,
            **watched.options,
        )
        for one in sentinel.sentinels:
            stack.push_async_callback(one.aclose)
        yield await stack.enter_async_context(sentinel.master_for(watched.name))


def is_sentinel(url: str) -> bool:
    """Whether the URL leads to Sentinels, and by way of them to Redis."""
    return url.partition("://")[0].lower() in {"redis+sentinel", "rediss+sentinel"}


@dataclass(frozen=True)
class _Watched:
    """What a URL says: the Sentinels, the primary's name with them, how to log in at both."""

    sentinels: list[tuple[str, int]]
    name: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def _watched(url: str) -> _Watched:
    nodes = [urlsplit(node) for node in node_urls(url)]
    try:
        sentinels = [(node.hostname or "localhost", node.port or _SENTINEL_PORT) for node in nodes]
    except ValueError as error:
        raise ValueError(f"{error}; {_FORM}") from None
    path = re.fullmatch(r"/([^/]+)(?:/(\d*))?", nodes[0].path)
    if path is None:
        raise ValueError(f"the primary's name is missing, or the database is no number; {_FORM}")
    # redis-py reads the user and the options, as it would for one server.
    options: dict[str, Any] = dict(parse_url(nodes[0]._replace(scheme="redis", path="").geturl()))
    options = {name: value for name, value in options.items() if name not in {"host", "port"}}
    options["db"] = int(path[2] or 0)
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    own |= {name: value for name, value in options.items() if name.startswith("ssl_")}
    tls = {"ssl": True} if nodes[0].scheme == "rediss+sentinel" else {}
    return _Watched(sentinels, unquote(path[1]), options | tls, own | tls)
