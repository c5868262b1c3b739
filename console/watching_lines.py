"""An event as a line: for people, with what matters of its type; for programs, as JSON."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TextIO

from rich.console import Console
from rich.text import Text

from console.watching import one_line, short_type
from topology.messages import Event

Facts = Mapping[str, Any]
Fact = Callable[[Facts], str | None]
Show = Callable[[Event], None]

_LONGEST_VALUE: Final = 200
_LONGEST_SENTENCE: Final = 1000
_ALERT: Final = "alert."
_FIRING: Final = "firing"
_ALERT_STYLES: Final = {"critical": "bold white on red", "warning": "bold black on yellow"}
_TYPE_WIDTH: Final = 17
_AGENT_WIDTH: Final = 12
_ENVELOPE: Final = frozenset({"v", "id", "type", "at", "agent", "request_id", "flight"})


def json_lines(out: TextIO) -> Show:
    """Writes each event as one JSON object on a line of its own, flushed at once."""

    def show(event: Event) -> None:
        out.write(json.dumps(event.model_dump(), default=str) + "\n")
        out.flush()

    return show


def text_lines(out: TextIO) -> Show:
    """Writes each event as one line, in colour where `out` is a terminal."""
    console = _Console(file=out, highlight=False, markup=False, emoji=False)
    return lambda event: console.print(line(event), soft_wrap=True)


def line(event: Event) -> Text:
    """Time, type, agent, and the facts that its type makes interesting."""
    facts = event.model_dump()
    type_ = short_type(event.type)
    if type_.startswith(_ALERT) and "text" in facts:
        return _alert(event, facts)
    chosen = _FACTS.get(type_)
    shown = [fact(facts) for fact in chosen] if chosen else _all_of(facts)
    return Text.assemble(
        (_clock(event.at), "dim"),
        "  ",
        (_printable(type_).ljust(_TYPE_WIDTH), style_of(type_)),
        "  ",
        (_printable(event.agent or "-").ljust(_AGENT_WIDTH), "bold" if event.agent else "dim"),
        "  ",
        " ".join(text for text in shown if text),
    )


def _alert(event: Event, facts: Facts) -> Text:
    """Time, state, name, and the sentence; loud as long as it fires."""
    state = str(facts.get("state"))
    loud = _ALERT_STYLES.get(str(facts.get("severity")), "bold red") if state == _FIRING else "bold green"
    again = " (still)" if facts.get("repeated") else ""
    said = one_line(str(facts["text"]))[:_LONGEST_SENTENCE]
    return Text.assemble(
        (_clock(event.at), "dim"),
        "  ",
        (f" {one_line(state).upper()} {_printable(short_type(event.type))}{again} ", loud),
        "  ",
        (said, "bold" if state == _FIRING else ""),
    )


def style_of(type_: str) -> str:
    """The colour of a type's family."""
    return next((style for family, style in _STYLES if type_.startswith(family)), "white")


class _Console(Console):
    """A console whose reader may leave, which is for the command to decide about."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def _field(name: str, key: str | None = None) -> Fact:
    def fact(facts: Facts) -> str | None:
        value = facts.get(name)
        return None if value is None else f"{key or name}={_value(value)}"

    return fact


def _seconds(name: str, key: str) -> Fact:
    def fact(facts: Facts) -> str | None:
        value = facts.get(name)
        return f"{key}={value:.3f}s" if isinstance(value, int | float) else None

    return fact


def _candidate(facts: Facts) -> str | None:
    """The provider and the model, as `provider/model`, as far as they are known."""
    named = [str(facts[name]) for name in ("provider", "model") if facts.get(name)]
    return f"model={_value('/'.join(named))}" if named else None


def _tokens(facts: Facts) -> str | None:
    """Prompt and generated tokens; `?` for what the provider did not say."""
    counts = [facts.get(name) for name in ("prompt_tokens", "completion_tokens")]
    if counts == [None, None]:
        return None
    return "tokens=" + "+".join("?" if count is None else str(count) for count in counts)


def _cost(facts: Facts) -> str | None:
    """The cost; an unknown price is said, since it is not zero. A request that failed has none."""
    if "cost_usd" not in facts or facts.get("status") == "error":
        return None
    cost = facts["cost_usd"]
    return f"cost=${cost:.6f}" if isinstance(cost, int | float) else "cost=unknown"


def _wait(facts: Facts) -> str | None:
    """How long it waits, in seconds, given as a duration or as an instant."""
    wait_s = facts.get("wait_s")
    if wait_s is None and isinstance(facts.get("until"), int | float):
        wait_s = max(0.0, facts["until"] - facts["at"])
    return f"wait={wait_s:.1f}s" if isinstance(wait_s, int | float) else None


def _pools(facts: Facts) -> str | None:
    """Of each pool: running/slots, and how many wait in its hands."""
    pools = facts.get("providers")
    if not isinstance(pools, dict) or not pools:
        return None
    return " ".join(
        f"{_printable(name)}={p.get('running')}/{p.get('slots')}+{p.get('waiting')}"
        for name, p in pools.items()
        if isinstance(p, dict)
    )


_REQUEST: Final = _field("request_id", "request")
_MESSAGE: Final = _field("message")
_CODE: Final = _field("code")
_PROVIDER: Final = _field("provider")
_ACCOUNT: Final = _field("account")
_ASKED: Final = (_field("model"), _field("task"), _field("priority"))

_FACTS: Final[Mapping[str, tuple[Fact, ...]]] = {
    "cache.hit": (*_ASKED, _field("why")),
    "cache.miss": _ASKED,
    "dedupe.joined": _ASKED,
    "rate_limit": (_PROVIDER, _field("lane"), _field("limit"), _wait),
    "limit.tightened": (_PROVIDER, _ACCOUNT, _wait, _CODE),
    "error": (_field("error"), _PROVIDER, _field("provider_status", "status"), _MESSAGE, _REQUEST),
    "call.completed": (_candidate, _seconds("latency_s", "latency"), _tokens, _cost, _ACCOUNT),
    "call.failed": (
        _candidate, _field("error"), _field("status"), _seconds("latency_s", "latency"), _ACCOUNT, _CODE,
    ),
    "spend.doubtful": (_candidate, _ACCOUNT, _REQUEST),
    "spend.duplicate": (_candidate, _cost, _REQUEST),
    "retry": (_PROVIDER, _field("attempt"), _wait, _CODE),
    "failover": (_field("provider", "from"), _field("to"), _field("why")),
    "hedge": (_candidate, _REQUEST),
    "key.disabled": (_PROVIDER, _ACCOUNT, _field("key"), _field("status"), _CODE),
    "request.completed": (
        _field("status"), _field("source"), _candidate, _seconds("total_s", "total"), _cost,
    ),
    "worker.health": (
        _field("worker"), _field("roles"), _pools, _field("redis"), _field("leaving"),
    ),
}  # fmt: skip
"""What a line says of each type; any other type says all it has."""

_STYLES: Final = (
    ("cache.hit", "green"),
    ("cache.miss", "blue"),
    ("dedupe", "cyan"),
    ("call.completed", "bright_green"),
    ("request.completed", "white"),
    ("call.failed", "red"),
    ("error", "bold red"),
    ("dead", "bold red"),
    ("alert", "bold red"),
    ("rate_limit", "yellow"),
    ("limit", "yellow"),
    ("retry", "yellow"),
    ("failover", "yellow"),
    ("hedge", "magenta"),
    ("circuit", "bright_yellow"),
    ("key", "bright_yellow"),
    ("spend", "magenta"),
    ("worker", "dim"),
)


def _all_of(facts: Facts) -> list[str | None]:
    return [_field(name)(facts) for name in facts if name not in _ENVELOPE]


def _clock(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC).astimezone():%H:%M:%S.%f}"[:-3]
    except (ValueError, OverflowError, OSError):  # an instant beyond the calendar
        return "--:--:--.---"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return _printable(",".join(str(item) for item in value))
    if isinstance(value, dict):
        return _printable(json.dumps(value, default=str, separators=(",", ":")))
    return _printable(str(value))


def _printable(text: str) -> str:
    """One word on one line: quoted where it has spaces; what could steer a terminal is escaped."""
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 1] + "…"
    if not text.isprintable():
        return json.dumps(text)
    return text if text and " " not in text else json.dumps(text, ensure_ascii=False)
