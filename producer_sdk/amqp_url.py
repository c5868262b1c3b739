"""What an AMQP URL says, read alike by both clients.

aio-pika and pika differ in the virtual host's slashes, in the names of the TLS options and in what they
do with options they do not know. aio-pika's reading holds for both. Neither knows of several nodes: a URL
names them with commas, `amqp://user:password@rabbit1:5672,rabbit2:5672/vhost`.
"""

import base64
import binascii
import random
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from producer_sdk.errors import InvalidRequest
from producer_sdk.settings import masked

_PORTS: Final = {"amqp": 5672, "amqps": 5671}

T = TypeVar("T")


@dataclass(frozen=True)
class Tls:
    """How the broker is known, and how we are known to it; files are read when connecting."""

    cafile: str | None = None
    capath: str | None = None
    cadata: bytes | None = field(default=None, repr=False)
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """What a connection is encrypted with.

        Raises:
            OSError: A file cannot be read, or holds no certificate.
        """
        try:
            context = ssl.create_default_context(
                ssl.Purpose.SERVER_AUTH, cafile=self.cafile, capath=self.capath, cadata=self.cadata
            )
            if self.certfile:
                context.load_cert_chain(self.certfile, self.keyfile)
        except OSError as error:
            raise OSError(f"the URL's cafile, capath, cadata, certfile or keyfile: {error}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True)
class AmqpUrl:
    """Where a broker is and who logs in.

    Attributes:
        shown: The URL without its password, fit to be printed.
        nodes: Host and port of each node; any of them will do.
    """

    shown: str
    nodes: tuple[tuple[str, int], ...]
    user: str
    password: str = field(repr=False)
    vhost: str
    external: bool = False
    tls: Tls | None = None


def read_amqp_url(url: str) -> AmqpUrl:
    """What the URL says. Options that concern neither TLS nor the login are passed over.

    Raises:
        InvalidRequest: It is none; the text does not quote it, as it may hold a password.
    """
    try:
        nodes = [urlsplit(node) for node in node_urls(url)]
        parts, hosts = nodes[0], [(node.hostname or "localhost", node.port) for node in nodes]
        scheme = parts.scheme.lower()
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        tls = _tls(options) if scheme == "amqps" else None
    except ValueError as error:
        raise InvalidRequest(f"url: {error}; write amqp://user:password@host:5672/vhost") from None
    if scheme not in _PORTS:
        raise InvalidRequest(
            f"url: {scheme!r} is neither amqp nor amqps; write amqp://user:password@host/vhost"
        )
    return AmqpUrl(
        shown=masked(url),
        nodes=tuple((host, port or _PORTS[scheme]) for host, port in hosts),
        user=unquote(parts.username or "") or "guest",
        password=unquote(parts.password or "") or "guest",
        vhost=unquote(parts.path[1:]) or "/",
        external=options.get("auth", "").lower() == "external",
        tls=tls,
    )


def node_urls(url: str) -> tuple[str, ...]:
    """The URL of each node that a URL names, of whatever scheme: one for each host between its commas."""
    scheme, sign, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    tail = rest[len(authority) :]
    return tuple(f"{scheme}{sign}{user}{at}{host.strip()}{tail}" for host in hosts.split(","))


def rotation(nodes: tuple[T, ...]) -> Iterator[T]:
    """The nodes one after the other, for ever, in an order by chance: so clients spread over them."""
    return cycle(random.sample(nodes, len(nodes)))


def _tls(options: dict[str, str]) -> Tls:
    cadata = options.get("cadata")
    try:
        decoded = base64.b64decode(cadata) if cadata else None
    except binascii.Error as error:
        raise ValueError(f"cadata: {error}") from None
    return Tls(
        cafile=options.get("cafile"),
        capath=options.get("capath"),
        cadata=decoded,
        certfile=options.get("certfile"),
        keyfile=options.get("keyfile"),
        verify=options.get("no_verify_ssl", "0") == "0",
    )
