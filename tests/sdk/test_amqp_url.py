import ssl
from itertools import islice
from urllib.parse import quote

import aiormq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer_sdk.amqp_url import node_urls, read_amqp_url, rotation
from producer_sdk.errors import InvalidRequest

URLS = [
    "amqp://localhost",
    "amqp://localhost/",
    "amqp://localhost/%2F",
    "amqp://localhost/%2f",
    "amqp://localhost//",
    "amqp://localhost/fleet",
    "amqp://localhost/a/b",
    "amqp://localhost/a%2Fb",
    "amqp://localhost/a%20b",
    "amqp://localhost/a+b",
    "amqp://localhost/fl%C3%B6te",
    "amqp://quality:secret@rabbit.example:5673/fleet",
    "amqp://quality@rabbit.example/fleet",
    "amqp://quality:@rabbit.example/fleet",
    "amqp://:secret@rabbit.example/fleet",
    "amqp://us%40er:p%3Ass%2Fw%25rd@rabbit.example/fleet",
    "amqp://[::1]:5673/fleet",
    "amqps://rabbit.example",
    "amqps://rabbit.example:5673/fleet?no_verify_ssl=1",
    "amqps://rabbit.example/?cafile=/ca.pem&certfile=/me.pem&keyfile=/me.key&capath=/cas&cadata=AAAA",
    "amqp://rabbit.example/fleet?heartbeat=5&name=mine",
]


async def as_aio_pika_reads(url: str) -> aiormq.Connection:
    return aiormq.Connection(url)


@pytest.mark.parametrize("url", URLS)
async def test_both_clients_read_a_url_alike(url: str) -> None:
    theirs = await as_aio_pika_reads(url)

    ours = read_amqp_url(url)

    assert (ours.nodes, ours.vhost) == (((theirs.url.host, theirs.url.port),), theirs.vhost)
    assert ours.user == (theirs.url.user or "guest")
    assert ours.password == (theirs.url.password or "guest")
    assert (ours.tls is not None) == (theirs.url.scheme == "amqps")
    if ours.tls is not None:
        certs = theirs.ssl_certs
        assert (ours.tls.cafile, ours.tls.capath, ours.tls.cadata) == (
            certs.cafile,
            certs.capath,
            certs.cadata,
        )
        assert (ours.tls.certfile, ours.tls.keyfile) == (certs.cert, certs.key)
        assert ours.tls.verify == certs.verify


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_password_and_any_virtual_host_can_be_written(password: str, vhost: str) -> None:
    url = f"amqp://me:{quote(password, safe='')}@localhost/{quote(vhost, safe='')}"

    read = read_amqp_url(url)

    assert (read.password, read.vhost) == (password, vhost)


def test_passwords_are_not_shown() -> None:
    read = read_amqp_url("amqp://me:secret@localhost")

    assert "secret" not in repr(read)
    assert read.shown == "amqp://me:***@localhost"


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "http://me:secret@h",
        "amqp://me:secret@h:port",
        "amqp://me:secret@[::1",
        "amqps://h?cadata=A",
    ],
)
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"url: .*amqp://user:password@host") as caught:
        read_amqp_url(url)
    assert "secret" not in caught.value.message


def test_certificates_are_checked_unless_the_url_says_otherwise() -> None:
    strict, lax = read_amqp_url("amqps://h").tls, read_amqp_url("amqps://h?no_verify_ssl=1").tls

    assert strict is not None
    assert lax is not None
    assert strict.context().verify_mode is ssl.CERT_REQUIRED
    assert lax.context().verify_mode is ssl.CERT_NONE


def test_a_certificate_that_cannot_be_read_is_told_by_its_option() -> None:
    missing = read_amqp_url("amqps://h?cafile=/nowhere").tls

    assert missing is not None
    with pytest.raises(OSError, match="cafile"):
        missing.context()


def test_a_url_names_several_nodes_with_commas() -> None:
    read = read_amqp_url("amqp://me:a,b%40c@rabbit1:5673,rabbit2, rabbit3:5674,[::1]:5675/fleet?heartbeat=5")

    assert read.nodes == (("rabbit1", 5673), ("rabbit2", 5672), ("rabbit3", 5674), ("::1", 5675))
    assert (read.user, read.password, read.vhost) == ("me", "a,b@c", "fleet")
    assert read.shown == "amqp://me:***@rabbit1:5673,rabbit2, rabbit3:5674,[::1]:5675/fleet?heartbeat=5"


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("amqp://localhost", ["amqp://localhost"]),
        ("amqp://me:secret@one,two:5673/a,b?x=1", ["amqp://me:secret@one/a,b?x=1", "amqp://me:secret@two:5673/a,b?x=1"]),
        ("amqps://one,two?cafile=/a,b", ["amqps://one?cafile=/a,b", "amqps://two?cafile=/a,b"]),
        ("http://guest:guest@one:15672,two:15672", ["http://guest:guest@one:15672", "http://guest:guest@two:15672"]),
    ],
)  # fmt: skip
def test_each_node_has_a_url_of_its_own(url: str, nodes: list[str]) -> None:
    assert list(node_urls(url)) == nodes


def test_clients_begin_at_different_nodes_and_try_all() -> None:
    nodes = tuple(range(5))

    turns = [list(islice(rotation(nodes), 10)) for _ in range(100)]

    assert {turn[0] for turn in turns} == set(nodes)
    assert all(set(turn[:5]) == set(nodes) and turn[:5] == turn[5:] for turn in turns)
