"""What can go wrong with brokers on this machine.

NodeError
├── NoBroker      nothing to connect to: give URLs, start Docker, or install the servers
├── FolderInUse   another process holds the folder: stop that one first
└── NodeFailed    a server did not start; the message ends with the tail of its log
"""


class NodeError(RuntimeError):
    """Base of every error of this package; its text says what to do."""


class NoBroker(NodeError):
    """No RabbitMQ or no Redis could be found or started."""


class FolderInUse(NodeError):
    """The folder of the private nodes belongs to another live process."""


class NodeFailed(NodeError):
    """A server died while it started, did not answer in time, or could not get its port."""
