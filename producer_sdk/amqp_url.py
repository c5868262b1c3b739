"""What an AMQP URL says, read alike by both clients.

aio-pika and pika differ in the virtual host's slashes, in the names of the TLS options and in what they
do with options they do not know. aio-pika's reading holds for both.
"""

import base64
import binascii
import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from producer_sdk.errors import InvalidRequest
from producer_sdk.settings import masked

_PORTS: Final = {"amqp": 5672, "amqps": 5671}


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
    """

    shown: str
    host: str
    port: int
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
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
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
        host=host or "localhost",
        port=port or _PORTS[scheme],
        user=unquote(parts.username or "") or "guest",
        password=unquote(parts.password or "") or "guest",
        vhost=unquote(parts.path[1:]) or "/",
        external=options.get("auth", "").lower() == "external",
        tls=tls,
    )


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
