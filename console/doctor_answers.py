"""Reading what a provider answers about a key: which models there are, and what is left of its quota."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx

AWAY: Final = "away"
SILENT: Final = "silent"

_QUOTA: Final = re.compile(r"(?:x-|anthropic-)?(?:ratelimit(?:bysize)?|tokenlimit)-(?P<words>[a-z-]+)")


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: The HTTP status; None: nothing came, and `failed` says how.
        failed: `away`: nobody is there; `silent`: no answer in time.
        body: The JSON; None where it is none.
    """

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    failed: str | None = None
    speaks_of_the_key: bool = False

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        """An HTTP answer."""
        try:
            body = json.loads(response.content)
        except (ValueError, RecursionError):
            body = None
        about_key = re.search(r"api[ _-]?key", response.text, re.IGNORECASE) is not None
        return cls(response.status_code, response.headers, body, speaks_of_the_key=about_key)

    @classmethod
    def none(cls, error: BaseException) -> Self:
        """No answer."""
        is_silent = isinstance(error, TimeoutError | httpx.TimeoutException)
        return cls(None, failed=SILENT if is_silent else AWAY)


def offered_models(body: Any) -> set[str]:
    """The ids in a list of models, with the shorter forms that a provider takes too.

    OpenAI's form is an object with `data`, Together's a bare list. Gemini puts `models/` before each id,
    Ollama `:latest` behind, and Mistral lists `aliases`.
    """
    entries = body.get("data") or body.get("models") if isinstance(body, dict) else body
    ids: set[str] = set()
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            aliases = entry.get("aliases")
            said = [entry.get("id"), *(aliases if isinstance(aliases, list) else ())]
            ids |= {name.removeprefix("models/") for name in said if isinstance(name, str)}
    return ids | {name.removesuffix(":latest") for name in ids}


def quota_left(headers: Mapping[str, str]) -> tuple[list[str], bool]:
    """What the limit headers say is left, for people, and whether something is used up.

    The names are the provider's: Groq's `requests` are a day's, its `tokens` a minute's.
    """
    limits: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, value in headers.items():
        match = _QUOTA.fullmatch(name.lower())
        if match is None or not re.fullmatch(r"\d{1,15}(\.\d+)?", value):
            continue
        words = match["words"].split("-")
        for kind, found in (("limit", limits), ("remaining", left)):
            if kind in words:
                found["-".join(word for word in words if word != kind)] = value
    texts = []
    for what, value in left.items():
        whole = f" of {_number(limits[what])}" if what in limits else ""
        texts.append(f"{_number(value)}{whole} {what or 'calls'} left")
    return texts, any(float(value) == 0 for value in left.values())


def credit_left(body: Any) -> tuple[list[str], bool]:
    """What OpenRouter's `GET /key` says: the tier, free requests left today, credit left.

    Its form: https://openrouter.ai/docs/api-reference/limits
    """
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        return [], False
    texts = [{True: "free tier", False: "paid tier"}[data["is_free_tier"]]] if _is_flag(data) else []
    daily = data.get("free_model_daily_requests")
    requests = (daily.get("remaining"), daily.get("limit")) if isinstance(daily, dict) else (None, None)
    credit = (data.get("limit_remaining"), data.get("limit"))
    is_spent = False
    for (left, whole), what in ((requests, "free requests left today"), (credit, "USD left")):
        if isinstance(left, int | float):
            of = f" of {_number(whole)}" if isinstance(whole, int | float) else ""
            texts.append(f"{_number(left)}{of} {what}")
            is_spent = is_spent or left <= 0
    return texts, is_spent


def _is_flag(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("is_free_tier"), bool)


def _number(value: str | float) -> str:
    number = float(value)
    return f"{number:,.0f}" if number.is_integer() else f"{number:,.2f}"
