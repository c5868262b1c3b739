"""The workload `trace`: arrival times, lengths and repetition of a recorded or published trace.

Two forms are read. JSON lines as Mooncake publishes them
(https://github.com/kvcache-ai/Mooncake, `FAST25-release`): `timestamp` in ms, `input_length` and
`output_length` in tokens, `hash_ids`, one for each block of 512 prompt tokens; equal lists are equal
prompts. And CSV as in Azure's public dataset
(https://github.com/Azure/AzurePublicDataset): `TIMESTAMP,ContextTokens,GeneratedTokens`, which does not
say what repeats, so every prompt is distinct.

Neither holds a text. The prompts made here are equal exactly where the trace's are, and scaled down: a
short phrase for each block.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

from sandbox.demo.errors import Unusable
from sandbox.demo.workload import Agent, Ask, Workload, in_order

SAMPLE: Final = Path(__file__).with_name("sample_trace.jsonl")
"""The project's own sample; `sampling.py` writes it."""

AGENTS: Final = tuple(Agent(f"agent-{number}", "any") for number in range(1, 29))
"""Who asks: 28 agents, as in the fleet; a trace names none."""

_BLOCK_TOKENS: Final = 512
_MOST_BLOCKS: Final = 4096
_OUTPUT_SCALE: Final = 8
_MOST_OUTPUT_TOKENS: Final = 60
_WORDS: Final = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "juniper")


@dataclass(frozen=True)
class Row:
    """One request of a trace.

    Attributes:
        at_s: Seconds from some instant.
        blocks: What its prompt consists of; equal for equal prompts and for no others.
        output_tokens: How long its answer was.
    """

    at_s: float
    blocks: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True)
class Trace:
    """The requests of a file, in order of time.

    Attributes:
        knows_repeats: Whether the file says which prompts are equal.
        more: Whether the file holds further requests, which were left out.
    """

    name: str
    rows: tuple[Row, ...]
    knows_repeats: bool
    more: bool


def read_trace(path: Path, most: int) -> Trace:
    """The first `most` requests of a file in either form.

    Raises:
        Unusable: It cannot be read; the text names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            hashed = path.suffix != ".csv"
            rows = list(islice(_hashed(file) if hashed else _plain(file), most + 1))
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unusable(f"{path} is no text in UTF-8") from None
    if not rows:
        raise Unusable(f"{path} holds no request")
    kept = sorted(rows[:most], key=lambda row: row.at_s)
    return Trace(path.name, tuple(kept), knows_repeats=hashed, more=len(rows) > most)


def trace_workload(trace: Trace, seed: int, seconds: float, run: str) -> Workload:
    """The trace's requests within `seconds`, dealt to the fleet's agents by `seed`.

    Args:
        trace: What was read.
        seed: Who asks; a trace does not know.
        seconds: How long it lasts at most; a shorter trace keeps its own time.
        run: A name that ends every prompt, so that no answer of an earlier run is met.
    """
    first_s, random = trace.rows[0].at_s, Random(f"{seed}:trace")
    span_s = trace.rows[-1].at_s - first_s
    factor = max(1.0, span_s / seconds)
    answers: dict[tuple[int, ...], int] = {}
    asks = []
    for row in trace.rows:
        # An equal prompt asks for an equally long answer, or it would be another request.
        tokens = answers.setdefault(row.blocks, _scaled_output(row.output_tokens))
        prompt = f"{phrases(row.blocks)}\n[run {run}]"
        at_s = (row.at_s - first_s) / factor
        asks.append(Ask(at_s, random.choice(AGENTS), prompt, params=(("max_tokens", tokens),)))
    return Workload(
        title=f"trace: {'the first ' if trace.more else ''}{len(asks)} requests of {trace.name}",
        agents=AGENTS,
        asks=in_order(asks),
        notes=tuple(_notes(trace, span_s, factor)),
    )


def phrases(blocks: tuple[int, ...]) -> str:
    """A prompt: a short phrase for each block, another for every other hash."""
    return " ".join(f"{_WORDS[block % len(_WORDS)]} {block:x}." for block in blocks)


def _notes(trace: Trace, span_s: float, factor: float) -> Iterator[str]:
    yield f"{span_s:.0f} s of the trace in {span_s / factor:.0f} s, {factor:.1f} times as fast"
    yield "a phrase for each block of 512 prompt tokens, an eighth of each answer; agents dealt by the seed"
    if trace.name == SAMPLE.name:
        yield "the project's own sample, made from a seed; give a real one with --trace FILE"
    if not trace.knows_repeats:
        yield "this form does not say what repeats: every prompt is distinct, and nothing can be saved"


def _scaled_output(tokens: int) -> int:
    return max(1, min(_MOST_OUTPUT_TOKENS, tokens // _OUTPUT_SCALE))


def _hashed(lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value: dict[str, Any] = json.loads(line)
            blocks = tuple(int(block) for block in value["hash_ids"])
            row = Row(float(value["timestamp"]) / 1000.0, blocks, int(value["output_length"]))
        except (ValueError, KeyError, TypeError) as error:
            raise Unusable(f"the trace's line {number} is not of Mooncake's form: {error!r}") from None
        yield row


def _plain(lines: Iterator[str]) -> Iterator[Row]:
    for number, value in enumerate(csv.DictReader(lines), 2):
        try:
            at = datetime.fromisoformat(value["TIMESTAMP"]).replace(tzinfo=UTC)
            tokens, output = int(value["ContextTokens"]), int(value["GeneratedTokens"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unusable(f"the trace's line {number} is not of Azure's form: {error!r}") from None
        count = min(_MOST_BLOCKS, -(-max(1, tokens) // _BLOCK_TOKENS))
        blocks = tuple(number * _MOST_BLOCKS + place for place in range(count))
        yield Row(at.timestamp(), blocks, output)
