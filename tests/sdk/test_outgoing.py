"""What we write as AMQP is what pamqp, which wrote it before us, reads."""

from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from producer_sdk.outgoing import Outgoing, ack_frame

CHANNEL = 7
LARGEST_BYTES = 100

short = st.text(max_size=60).filter(lambda text: "\x00" not in text)
perhaps = st.none() | short
header = st.text(min_size=1, max_size=30).filter(lambda text: "\x00" not in text)
"""The name of a field holds at most 128 bytes, a character at most four."""


def read(raw: bytes) -> list[Any]:
    frames = []
    while raw:
        size, channel, frame = pamqp.frame.unmarshal(raw)
        assert channel == CHANNEL
        frames.append(frame)
        raw = raw[size:]
    return frames


@given(
    st.builds(
        Outgoing,
        exchange=short,
        routing_key=short,
        body=st.binary(max_size=350),
        correlation_id=perhaps,
        reply_to=perhaps,
        app_id=perhaps,
        persistent=st.booleans(),
        mandatory=st.booleans(),
        headers=st.none() | st.dictionaries(header, short | st.integers(0, 1000), max_size=3),
        type=perhaps,
    ),
    short,
)
def test_every_message_is_read_back_as_it_was_meant(message: Outgoing, message_id: str) -> None:
    method, header, *bodies = read(message.frames(CHANNEL, message_id, LARGEST_BYTES))

    assert isinstance(method, Basic.Publish)
    assert (method.exchange, method.routing_key) == (message.exchange, message.routing_key)
    assert method.mandatory is message.mandatory
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(message.body)
    properties = header.properties
    assert properties.content_type == "application/msgpack"
    assert properties.delivery_mode == (2 if message.persistent else 1)
    assert properties.message_id == message_id
    assert properties.correlation_id == message.correlation_id
    assert properties.reply_to == message.reply_to
    assert properties.message_type == message.type
    assert properties.app_id == message.app_id
    assert (properties.headers or None) == (message.headers or None)
    assert all(isinstance(body, ContentBody) and len(body.value) <= LARGEST_BYTES for body in bodies)
    assert b"".join(body.value for body in bodies) == message.body


@pytest.mark.parametrize("field", ["routing_key", "correlation_id", "reply_to", "app_id"])
def test_what_amqp_cannot_hold_is_refused_before_a_byte_is_written(field: str) -> None:
    message = Outgoing(**{"exchange": "", "routing_key": "", "body": b"x", field: "é" * 128})  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="at most 255 bytes"):
        message.frames(CHANNEL, "m1", LARGEST_BYTES)


def test_an_acknowledgement_is_one_delivery_s() -> None:
    [frame] = read(ack_frame(CHANNEL, 2**40))

    assert isinstance(frame, Basic.Ack)
    assert (frame.delivery_tag, frame.multiple) == (2**40, False)
