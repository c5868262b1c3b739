"""Whether the hub's libraries are there: they are an extra of the distribution."""

import importlib.util
from typing import Final

REMEDY: Final = "pip install 'api-resource-optimizer[hub]'"


def is_installed() -> bool:
    """Whether what the store needs can be imported."""
    return all(importlib.util.find_spec(name) for name in ("sqlalchemy", "alembic"))
