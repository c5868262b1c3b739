"""Which features an error answer is about, as data: only where it says so plainly.

A phrase is looked for where the message begins, since the rest may quote the request. What names two features
at once ("tools with reasoning_effort are not supported") is about neither of them alone. What somebody may
just have to pay for, allow or start is not about the model.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from topology.errors import ErrorType
from topology.features import MODEL
from topology.providers.bodies import ErrorBody

_NAME: Final = r"[A-Za-z][A-Za-z0-9_]{0,63}"
_QUOTE: Final = "[`'\"]"
_ENDS: Final = rf"{_QUOTE}?\s*(?:\.?$|\.\s|(?:with|for|by|on|in) (?:this|the|that) model\b|for models?[ /])"
_A_MODEL: Final = rf"(?:this model|(?:the )?(?:model )?{_QUOTE}?[\w./:@-]+{_QUOTE}?)"

_LACKING: Final = (
    (r"(?:function|tool)(?:/function)? ?(?:calling|calls?|use)|tools", "tools"),
    (r"images?(?: inputs?| content)?|vision", "images"),
    (r"(?:input )?audio(?: inputs?)?", "audio"),
    (r"video(?: inputs?)?", "video"),
    (r"json mode", "response_format=json_object"),
    (r"structured outputs?", "response_format=json_schema"),
    (r"developer instructions?|system (?:messages?|roles?|instructions?)", "role=system role=developer"),
    (r"logprobs", "logprobs"),
    (r"thinking", "reasoning_effort="),
    (r"(?:specifying )?dimensions", "dimensions"),
    (r"multiple candidates", "n>1"),
    (r"this tool_choice", "tool_choice="),
)
"""How providers call what a model lacks, and the features that are meant."""

_IS_LACKING: Final = (
    rf"{_A_MODEL} do(?:es)? not support {{0}}{_ENDS}",
    rf"(?:the )?{_QUOTE}?{{0}}{_QUOTE}? (?:is|are) not (?:supported|enabled|available){_ENDS}",
    rf"no endpoints found that support {{0}}{_ENDS}",
)
"""How they say that it is: `{0}` stands for the name."""

_SAID: Final[Mapping[str, tuple[str, ...]]] = {
    "{0}": (
        rf"un(?:supported|known) parameter: {_QUOTE}({_NAME}){_QUOTE}",
        rf"unrecognized request argument supplied: ({_NAME})$",
        rf"argument not supported(?: on this model)?: ({_NAME})$",
        rf"{_A_MODEL} does not support parameter ({_NAME})\b",
        rf"{_QUOTE}({_NAME}){_QUOTE} is (?:not supported with|deprecated for) this model",
        rf"property {_QUOTE}({_NAME}){_QUOTE} is unsupported",
        rf'invalid json payload received\. unknown name "({_NAME})": cannot find field',
    ),
    "{0}=": (rf"unsupported value: {_QUOTE}({_NAME}){_QUOTE} does not support",),
    "role={0}": (r"unsupported value: 'messages\[\d+\]\.role' does not support '(\w+)'",),
    "messages.{0}": (
        rf"messages\.\d+\.\w+\.({_NAME}): property '[\w.]+' is unsupported",
        rf"'messages\.\d+' : for 'role:\w+' .{{0,60}}'messages\.\d+' : property '({_NAME})' is unsupported",
    ),
    "response_format={0}": (
        r"invalid parameter: 'response_format' of type '(\w+)' is not supported with this model",
        r"this model does not support response format `(\w+)`",
    ),
    "response_format=": (r"this response_format type is unavailable",),
    "temperature=": (r"invalid temperature: only [\d.]+ is allowed for this model",),
    "reasoning_effort=": (r"`reasoning_effort` must be one of",),
    "images": (
        r"invalid content type\. image_url is only supported by certain models",
        r"failed to deserialize the json body .{0,80}unknown variant `image_url`, expected `text`",
        rf"{_A_MODEL} is not a multimodal model",
    ),
    "dimensions": (rf"{_A_MODEL} does not support matryoshka representation",),
    "max_tokens>{0}": (
        r"max_tokens is too large: \d+\. this model supports at most (\d+) completion tokens",
        r"`?max_(?:completion_)?tokens`?(?: for `[^`]*`)? must be less than or equal to `?(\d+)",
        r"invalid max_tokens value, the valid range of max_tokens is \[1, ?(\d+)\]",
        r"max_tokens: \d+ > (\d+), which is the maximum allowed number of output tokens",
    ),
    "prompt_tokens>{0}": (
        r"this (?:model|endpoint)'s maximum (?:context|prompt) length is (\d+)",
        r"prompt is too long: \d+ tokens > (\d+) maximum",
        r"the input token count(?: \(\d+\))? exceeds the maximum number of tokens allowed \(?(\d+)",
        r"requested input length \d+ exceeds maximum input length (\d+)",
    ),
}
"""The features, and what a message about them begins with: `{0}` stands for what the group holds."""

_MISSING: Final = (
    r"(?:the |requested )*models?\b.{0,160}"
    r"(?:not exist|not found|decommissioned|deprecated|no longer (?:supported|available|accessible))"
    r"|not found the model\b"
)


def _compiled() -> Iterator[tuple[re.Pattern[str], tuple[str, ...]]]:
    for name, features in _LACKING:
        for phrase in _IS_LACKING:
            yield re.compile(phrase.replace("{0}", f"(?:{name})"), re.IGNORECASE), tuple(features.split())
    for feature, phrases in _SAID.items():
        for phrase in phrases:
            yield re.compile(phrase, re.IGNORECASE | re.DOTALL), (feature,)


_PHRASES: Final = tuple(_compiled())
_MODEL_MISSING: Final = re.compile(_MISSING, re.IGNORECASE | re.DOTALL)
_PARAMETER_CODES: Final = frozenset({"unsupported_parameter", "unknown_parameter"})


def blamed(error_type: ErrorType, body: ErrorBody) -> frozenset[str]:
    """The features that an error is about; none where that is not plain.

    A value that it does not name is left open, as `temperature=`: `topology.features.Used.told` fills it in.

    Args:
        error_type: What the error means. It is the request's fault.
        body: The error as it was read.
    """
    if error_type is ErrorType.CONTENT_FILTERED:
        return frozenset()
    told = frozenset(_forbidden(body.error.get("message"))) or frozenset(_of_param(body))
    for phrase, features in () if told else _PHRASES:
        if found := phrase.match(body.message):
            told = frozenset(feature.format(*map(_snake, found.groups())) for feature in features)
            break
    if not told and error_type is ErrorType.NO_MODEL_AVAILABLE and _MODEL_MISSING.match(body.message):
        return frozenset({MODEL})
    return told


def _of_param(body: ErrorBody) -> Iterator[str]:
    """OpenAI's `param`, where its `code` says what is wrong with it."""
    param = body.error.get("param")
    if isinstance(param, str) and re.fullmatch(_NAME, param):
        if body.words & _PARAMETER_CODES:
            yield param
        elif "unsupported_value" in body.words:
            yield f"{param}="


def _forbidden(told: Any) -> Iterator[str]:
    """The parameters that a strict schema does not know, as pydantic tells them (Mistral)."""
    details = told.get("detail") if isinstance(told, dict) else told
    for detail in details if isinstance(details, list) else ():
        loc = detail.get("loc") if isinstance(detail, dict) else None
        if isinstance(loc, list) and len(loc) == 2 and detail.get("type") == "extra_forbidden":
            yield from (name for name in loc[1:] if isinstance(name, str) and re.fullmatch(_NAME, name))


def _snake(word: str) -> str:
    """As the body has it: xAI writes `presencePenalty` for `presence_penalty`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", word).lower()
