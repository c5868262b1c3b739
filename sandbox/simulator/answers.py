"""Deterministic answers: the same prompt under the same seed gets the same answer."""

import base64
import json
import struct
from dataclasses import dataclass
from math import sqrt
from random import Random
from typing import Any, Literal

from sandbox.simulator.prompts import ChatPrompt, EmbeddingsPrompt
from sandbox.simulator.settings import Settings

_FILLER = (
    *("so", "the", "quiet", "river", "carries", "small", "boats", "past", "green", "hills"),
    *("while", "morning", "light", "turns", "every", "window", "gold", "and", "people", "set"),
    *("out", "tables", "for", "bread", "and", "tea", "after", "a", "long", "walk", "home"),
)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A generated chat completion."""

    pieces: tuple[str, ...]
    """The content, or a tool call's arguments, in the pieces a stream sends."""
    finish_reason: Literal["stop", "length", "tool_calls"]
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class EmbeddingsAnswer:
    """Generated embeddings: for each input a vector of length 1."""

    vectors: tuple[tuple[float, ...], ...]
    completion_tokens: int = 0


def answer_chat(prompt: ChatPrompt, settings: Settings) -> ChatAnswer:
    """Generate: `echo:` and the prompt's echo, then filler; one word counts as one token."""
    random = Random(f"{settings.seed}:{prompt.sha256}")
    wanted = random.randint(settings.low_answer_tokens, settings.high_answer_tokens)
    tokens = wanted if prompt.max_tokens is None else min(wanted, prompt.max_tokens)
    echo = f"echo:{prompt.echo}"
    words = [random.choice(_FILLER) for _ in range(tokens - 1)]
    if prompt.tool is not None:
        return ChatAnswer((json.dumps({"echo": echo}),), "tool_calls", tokens)
    reason: Literal["stop", "length"] = "stop" if tokens == wanted else "length"
    if prompt.as_json:
        return ChatAnswer((json.dumps({"echo": echo, "text": " ".join(words)}),), reason, tokens)
    return ChatAnswer((echo, *(f" {word}" for word in words)), reason, tokens)


def answer_embeddings(prompt: EmbeddingsPrompt, settings: Settings) -> EmbeddingsAnswer:
    """Generate a vector for each input, by its text, the model and the seed alone."""
    return EmbeddingsAnswer(
        tuple(_vector(f"{settings.seed}:{prompt.model}:{text}", prompt.dimensions) for text in prompt.inputs)
    )


def chat_body(
    prompt: ChatPrompt, answer: ChatAnswer, answer_id: str, created: int, *, finished: bool = True
) -> dict[str, Any]:
    """The body of an unstreamed chat completion; unless `finished`, without a finish reason."""
    text = "".join(answer.pieces)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if prompt.tool is not None:
        message |= {"content": None, "tool_calls": [_tool_call(prompt.tool, text, answer_id)]}
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": created,
        "model": prompt.model,
        "system_fingerprint": "fp_simulator",
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": answer.finish_reason if finished else None,
            }
        ],
        "usage": _usage(prompt.prompt_tokens, answer.completion_tokens),
    }


def chat_chunks(
    prompt: ChatPrompt, answer: ChatAnswer, answer_id: str, created: int, *, finished: bool = True
) -> list[dict[str, Any]]:
    """The chunks of a streamed chat completion, without the final `[DONE]`."""
    first: dict[str, Any] = {"role": "assistant", "content": None if prompt.tool else ""}
    deltas = [(first, None)]
    for piece in answer.pieces:
        if prompt.tool is None:
            deltas.append(({"content": piece}, None))
        else:
            call = {"index": 0, **_tool_call(prompt.tool, piece, answer_id)}
            deltas.append(({"tool_calls": [call]}, None))
    ends: list[tuple[dict[str, Any], str | None]] = [({}, answer.finish_reason)] if finished else []
    head = {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": prompt.model,
        "system_fingerprint": "fp_simulator",
    }
    unused = {"usage": None} if prompt.include_usage else {}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **unused}
        for delta, reason in [*deltas, *ends]
    ]
    if prompt.include_usage:
        usage = _usage(prompt.prompt_tokens, answer.completion_tokens)
        chunks.append({**head, "choices": [], "usage": usage})
    return chunks


def embeddings_body(prompt: EmbeddingsPrompt, answer: EmbeddingsAnswer) -> dict[str, Any]:
    """The body of an embeddings answer."""
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if prompt.as_base64 else list(vector),
            }
            for index, vector in enumerate(answer.vectors)
        ],
        "model": prompt.model,
        "usage": {"prompt_tokens": prompt.prompt_tokens, "total_tokens": prompt.prompt_tokens},
    }


def _vector(seed: str, dimensions: int) -> tuple[float, ...]:
    random = Random(seed)
    raw = [random.gauss(0.0, 1.0) for _ in range(dimensions)]
    length = sqrt(sum(x * x for x in raw)) or 1.0
    return tuple(round(x / length, 6) for x in raw)


def _packed(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _tool_call(name: str, arguments: str, answer_id: str) -> dict[str, Any]:
    call_id = f"call_{answer_id.removeprefix('chatcmpl-')}"
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
