"""A short name for a configuration, so that people and programs can see who runs the same one."""

import hashlib
import json
from typing import Any, Final

from topology.fleet import Fleet

_HEX_DIGITS: Final = 8


def digest(fleet: Fleet) -> str:
    """Eight hex digits that differ where anything but a secret differs.

    Secrets are left out: whoever may see this name must learn nothing of a key, and who has none to read
    (a front, a command) comes to the same name.
    """
    text = json.dumps(_without_secrets(fleet.model_dump(mode="json")), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS]


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items() if key != "secret"}
    if isinstance(value, list):
        return [_without_secrets(inner) for inner in value]
    return value
