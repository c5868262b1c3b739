"""A stream of one piece: the whole answer as server-sent events, for clients that cannot do without a stream.

Nothing of it arrives earlier than without. The form is that of OpenAI's chat completion chunks:
https://platform.openai.com/docs/api-reference/chat-streaming
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def chunked(body: Mapping[str, Any], *, include_usage: bool) -> str:
    """The events of a chat completion: its content, how it ended, what it used where that is wanted, the end.

    Args:
        body: The completion, as a provider sends it without a stream.
        include_usage: Whether the client asked for it (`stream_options`).
    """
    chunks = [*_chunks(body), *([_chunk(body, [], body.get("usage"))] if include_usage else [])]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def _chunks(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    choices = [choice for choice in body.get("choices") or () if isinstance(choice, dict)]
    yield _chunk(
        body,
        [
            {
                "index": choice.get("index", position),
                "delta": _delta(choice.get("message") or {}),
                "logprobs": choice.get("logprobs"),
                "finish_reason": None,
            }
            for position, choice in enumerate(choices)
        ],
    )
    yield _chunk(
        body,
        [
            {
                "index": choice.get("index", position),
                "delta": {},
                "logprobs": None,
                "finish_reason": choice.get("finish_reason") or "stop",
            }
            for position, choice in enumerate(choices)
        ],
    )


def _delta(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as what is new since nothing; tool calls are numbered in a stream."""
    delta = dict(message)
    if calls := message.get("tool_calls"):
        delta["tool_calls"] = [{"index": position, **call} for position, call in enumerate(calls)]
    return delta


def _chunk(body: Mapping[str, Any], choices: list[dict[str, Any]], usage: object = None) -> dict[str, Any]:
    kept = {name: body[name] for name in ("id", "created", "model", "system_fingerprint") if name in body}
    return {**kept, "object": "chat.completion.chunk", "choices": choices, "usage": usage}
