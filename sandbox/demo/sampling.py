"""Writes the project's own sample of a trace, in Mooncake's form.

::

    python -m sandbox.demo.sampling > sandbox/demo/sample_trace.jsonl

Three hundred requests within three minutes, made from a seed and copied from nobody: conversations,
each turn of which repeats the prompt so far and adds to it; jobs that send one of a few prompts again
and again, sometimes several at once; and single questions.
"""

import json
import sys
from itertools import count
from random import Random
from typing import Final, TypedDict

SEED: Final = 2026
REQUESTS: Final = 300
_SPAN_S: Final = 180.0
_BLOCK_TOKENS: Final = 512


class Line(TypedDict):
    """One line of the file."""

    timestamp: int
    input_length: int
    output_length: int
    hash_ids: list[int]


def sample() -> list[Line]:
    """The sample's lines, in order of time."""
    random, fresh = Random(SEED), count()
    recurring = [[next(fresh) for _ in range(random.randint(2, 8))] for _ in range(12)]
    conversations: list[list[int]] = [[next(fresh)] for _ in range(10)]
    lines: list[Line] = []
    for at_s in sorted(random.uniform(0.0, _SPAN_S) for _ in range(REQUESTS)):
        at_ms = round(at_s * 1000.0)
        match random.choices(("job", "turn", "question"), (3, 4, 3))[0]:
            case "job":
                blocks = random.choice(recurring)
                lines += [_line(random, at_ms, blocks) for _ in range(random.choice((1, 1, 2, 4)))]
            case "turn":
                blocks = random.choice(conversations)
                blocks.append(next(fresh))
                lines.append(_line(random, at_ms, blocks))
            case _:
                lines.append(_line(random, at_ms, [next(fresh) for _ in range(random.randint(1, 6))]))
    return lines[:REQUESTS]


def _line(random: Random, at_ms: int, blocks: list[int]) -> Line:
    last = Random(blocks[-1]).randint(1, _BLOCK_TOKENS)  # equal prompts are equally long
    length = (len(blocks) - 1) * _BLOCK_TOKENS + last
    output = random.randint(20, 600)
    return {"timestamp": at_ms, "input_length": length, "output_length": output, "hash_ids": list(blocks)}


def text() -> str:
    """The whole file."""
    return "".join(json.dumps(line) + "\n" for line in sample())


if __name__ == "__main__":
    sys.stdout.write(text())
