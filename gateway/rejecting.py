"""What the gateway itself says no to, before anything is published."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(eq=False)
class Rejected(Exception):
    """An HTTP request that is turned down.

    Attributes:
        status: The HTTP status.
        message: One sentence, with the remedy.
        code: OpenAI's word for it, where there is one.
        param: The field of the body that is at fault.
        headers: Further response headers.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
