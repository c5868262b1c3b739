"""Brokers for one machine: found where they are, started as private child processes where not."""

from sandbox.nodes.errors import FolderInUse, NoBroker, NodeError, NodeFailed
from sandbox.nodes.finding import Brokers, find_brokers
from sandbox.nodes.node import Node
from sandbox.nodes.rabbitmq import RabbitNode
from sandbox.nodes.redis import RedisNode

__all__ = [
    "Brokers",
    "FolderInUse",
    "NoBroker",
    "Node",
    "NodeError",
    "NodeFailed",
    "RabbitNode",
    "RedisNode",
    "find_brokers",
]
