"""The one thing we say to Erlang's port mapper: stop.

A RabbitMQ node starts ``epmd``, the daemon that tells Erlang nodes each other's ports, and leaves it
running when it stops. The request is KILL_REQ of the EPMD protocol, a length of two bytes and ``k``:
https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html
"""

import socket

from sandbox.nodes.processes import wait_until

_KILL = b"\x00\x01k"
_LIMIT = 5.0


def stop_epmd(port: int) -> None:
    """Stop the ``epmd`` on this port of 127.0.0.1, if there is one.

    It refuses while it knows a living node, so this waits up to 5 seconds until the node that just
    ended is forgotten.
    """
    wait_until(lambda: _gone(port), _LIMIT)


def _gone(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as line:
            line.sendall(_KILL)
            return line.recv(2) not in (b"OK", b"NO")  # what answers otherwise is no epmd
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
