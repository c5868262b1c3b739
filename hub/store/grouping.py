"""What statistics can be broken down by; apart from them, since the command line asks before it loads SQL."""

from enum import StrEnum


class By(StrEnum):
    """What each line of sums is about."""

    PROVIDER = "provider"
    MODEL = "model"
    AGENT = "agent"
    ACCOUNT = "account"
