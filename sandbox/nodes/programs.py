"""Where the servers' programs lie on this machine, or that they do not."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

# An ordinary user's PATH lacks sbin on Debian, and Homebrew's sbin on macOS.
_MORE_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/opt/homebrew/bin", "/opt/homebrew/sbin")
_DEBIAN_RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def search_path(environ: Mapping[str, str]) -> str:
    """``PATH`` of this environment, then the folders where servers usually lie."""
    return os.pathsep.join((environ.get("PATH", os.defpath), *_MORE_FOLDERS))


def rabbitmq_server(environ: Mapping[str, str]) -> Path | None:
    """The script that starts RabbitMQ; ``None`` when it is not installed.

    The one on Debian's PATH is a wrapper that changes to the user ``rabbitmq``, who may not write
    to our folder, so the package's own script goes first.
    """
    if os.access(_DEBIAN_RABBITMQ, os.X_OK):
        return _DEBIAN_RABBITMQ
    found = shutil.which("rabbitmq-server", path=search_path(environ))
    return Path(found) if found else None


def redis_server(environ: Mapping[str, str]) -> Path | None:
    """The Redis server; ``None`` when it is not installed."""
    found = shutil.which("redis-server", path=search_path(environ))
    return Path(found) if found else None
