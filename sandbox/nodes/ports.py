"""Free ports on 127.0.0.1, remembered in a file so that a restarted node keeps its addresses."""

import json
import random
import socket
from collections.abc import Collection, Mapping
from pathlib import Path

from sandbox.nodes.errors import NodeFailed

# Below the ports that Linux (32768) and macOS (49152) lend to outgoing connections, so that
# none of those takes a port between our choice and the server's bind.
_RANGE = range(20_000, 32_000)
_TRIES = 200


def settle_ports(file: Path, wanted: Mapping[str, int | None]) -> dict[str, int]:
    """Choose a port for each name and remember the choice in ``file``.

    Args:
        file: JSON object of name to port; read when it exists, then written.
        wanted: For each name the port it must have, or ``None`` for the remembered port, or any
            free one where nothing is remembered or a stranger took it meanwhile.

    Raises:
        NodeFailed: A port that was asked for is in use.
    """
    remembered = remembered_ports(file)
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        if port is not None and not is_free(port):
            raise NodeFailed(f"port {port} ({name}) is in use: stop what holds it, or choose another")
        chosen[name] = port or _keep_or_replace(remembered.get(name), chosen.values())
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(chosen), encoding="utf-8")
    draft.replace(file)
    return chosen


def remembered_ports(file: Path) -> dict[str, int]:
    """The ports chosen last time; empty when there was none, or the file is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): int(port) for name, port in found.items()} if isinstance(found, dict) else {}


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # Connections of a stopped server that linger in TIME_WAIT do not stop a new one.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _keep_or_replace(port: int | None, taken: Collection[int]) -> int:
    if port is not None and port not in taken and is_free(port):
        return port
    for _ in range(_TRIES):
        candidate = random.choice(_RANGE)
        if candidate not in taken and is_free(candidate):
            return candidate
    raise NodeFailed(f"no free port between {_RANGE.start} and {_RANGE.stop} on 127.0.0.1")
