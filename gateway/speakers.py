"""Who speaks: the owner of the bearer token, or, without tokens, whoever the client says it is."""

import hashlib
import os
import secrets
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from starlette.requests import Request

from gateway.rejecting import Rejected
from topology.loading import ConfigurationError, with_secret
from topology.names import is_agent_name
from topology.sections import GatewaySection

AGENT_HEADER: Final = "x-agent"


class Speakers:
    """Tells the agent of an HTTP request.

    Args:
        section: The configuration.
        environ: Where tokens kept as `env:NAME` are read.

    Raises:
        ConfigurationError: A token is missing or held by two agents, or anybody on the network could speak.
    """

    def __init__(self, section: GatewaySection, environ: Mapping[str, str] = os.environ) -> None:
        self._default_agent = section.default_agent
        self._local_only = not section.open
        self._owners: dict[bytes, str] = {}
        for agent, keys in section.tokens.items():
            for key in keys:
                secret = with_secret(key, f"gateway.tokens.{agent}", environ).secret
                digest = _digest(secret.get_secret_value() if secret else "")
                if self._owners.setdefault(digest, agent) != agent:
                    raise ConfigurationError(
                        f"gateway.tokens: {agent} and {self._owners[digest]} hold the same token"
                    )
        if not (section.tokens or section.open or is_loopback(section.host)):
            raise ConfigurationError(
                f"at {section.host} anybody on the network could spend your quotas: give the agents tokens "
                "under [gateway] in fleet.toml, listen at 127.0.0.1, or say --open where something else "
                "keeps strangers out"
            )

    def agent_of(self, http: Request) -> str:
        """The agent that asks.

        Raises:
            Rejected: An unknown token, another agent's name, or a name that cannot be one.
        """
        named = http.headers.get(AGENT_HEADER)
        if not self._owners:
            if self._local_only and not is_loopback(http.url.hostname or ""):
                raise Rejected(
                    403,  # a page that a browser was lured to may have its own name point at this machine
                    f"without tokens this gateway answers to 127.0.0.1 and localhost, not to "
                    f"{http.url.hostname!r}; set [gateway] tokens, or start it with --open",
                )
            agent = named or self._default_agent
            if not is_agent_name(agent):
                raise Rejected(400, f"X-Agent: {agent!r} is not 1 to 64 of a-z, 0-9, '_' and '-'")
            return agent
        owner = self._owner_of(http.headers.get("authorization", ""))
        if named not in {None, owner}:
            raise Rejected(403, f"X-Agent: this token is {owner}'s; leave the header out")
        return owner

    def _owner_of(self, authorization: str) -> str:
        scheme, _, token = authorization.partition(" ")
        digest = _digest(token.strip())
        owner = None
        for known, agent in self._owners.items():  # all of them: the time tells nothing of where it matched
            if secrets.compare_digest(known, digest):
                owner = agent
        if scheme.lower() != "bearer" or owner is None:
            raise Rejected(
                401,
                "the bearer token is none of this gateway's; they stand under [gateway] tokens in fleet.toml",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return owner


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`, or means it by that name."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
