"""What the doctor asks RabbitMQ: its version, the topology, alarms and policies."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiormq
import httpx
from aio_pika.abc import AbstractConnection

from broker import declaring
from broker.managing import management
from console.doctor_findings import Finding, fail, ok, warn
from producer_sdk.connecting import AWAY, connected
from producer_sdk.settings import masked
from topology.declaration import Declaration, Policy

OLDEST: Final = (3, 10)
_ANSWER_S: Final = 10.0
_APPLY: Final = "run: optimizer topology apply"
_REFUSED: Final = (aiormq.exceptions.AuthenticationError, aiormq.exceptions.ProbableAuthenticationError)


async def check_rabbitmq(declared: Declaration, amqp_url: str) -> list[Finding]:
    """Whether it is young enough and holds exchanges and queues; one finding alone where it is away."""
    try:
        async with connected(amqp_url, _ANSWER_S) as connection:
            version = _version_of(connection)
        absent = await declaring.missing(declared, amqp_url)
    except (*AWAY, declaring.BrokerAway, ValueError) as error:
        return [_unreachable(amqp_url, error)]
    where = f"at {masked(amqp_url)}, virtual host {declaring.virtual_host(amqp_url)}"
    return [_version("rabbitmq", version, where), _topology(declared, absent)]


def _version_of(connection: AbstractConnection) -> str:
    transport = connection.transport
    properties: Mapping[str, Any] = transport.connection.server_properties if transport else {}
    version = properties.get("version", "")
    return version.decode() if isinstance(version, bytes) else str(version)


def _version(check: str, version: str, where: str) -> Finding:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        return fail(check, f"RabbitMQ {version or 'of unknown version'} {where}", "upgrade to 3.10 or later")
    return ok(check, f"RabbitMQ {version} {where}")


def _topology(declared: Declaration, absent: Sequence[str]) -> Finding:
    if not absent:
        counts = f"{len(declared.exchanges)} exchanges and {len(declared.queues)} queues stand"
        return ok("topology", counts)
    named = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
    return fail("topology", f"missing: {named}", _APPLY)


def _unreachable(amqp_url: str, error: BaseException) -> Finding:
    error = error.__cause__ or error if isinstance(error, declaring.BrokerAway) else error
    reason, vhost = str(error) or type(error).__name__, declaring.virtual_host(amqp_url)
    if "Connection.OpenOk" in reason:  # aiormq keeps the broker's own words from us
        found = f"the virtual host {vhost} is not there, or this user has no permissions in it"
        return fail("rabbitmq", found, f"run: rabbitmqctl add_vhost {vhost}, and rabbitmqctl set_permissions")
    if isinstance(error, _REFUSED):
        remedy = "user or password in OPTIMIZER_AMQP_URL are wrong, or guest is used from another machine"
    else:
        remedy = "start it (optimizer up), or correct OPTIMIZER_AMQP_URL"
    return fail("rabbitmq", f"RabbitMQ at {masked(amqp_url)} cannot be reached ({reason})", remedy)


async def check_management(declared: Declaration, vhost: str, management_url: str) -> list[Finding]:
    """Whether the management API answers, and what it says of alarms and policies."""
    shown = masked(management_url)
    try:
        async with management(management_url, _ANSWER_S) as http:
            answer = await http.get("/api/overview")
            if answer.status_code != httpx.codes.OK:
                return [_no_management(f"{shown} answers {answer.status_code}")]
            alarms = await http.get("/api/health/checks/alarms")
            policies = await http.get(f"/api/policies/{quote(vhost, safe='')}")
            standing = policies.json() if policies.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return [_no_management(f"{shown} cannot be reached ({type(error).__name__})")]
    return [ok("management", f"answers at {shown}"), _alarms(alarms), _policies(declared, standing)]


def _no_management(found: str) -> Finding:
    remedy = (
        "run: rabbitmq-plugins enable rabbitmq_management, or set OPTIMIZER_MANAGEMENT_URL; alarms "
        "and policies are not checked"
    )
    return warn("management", found, remedy)


def _alarms(answer: httpx.Response) -> Finding:
    if answer.status_code == httpx.codes.OK:
        return ok("alarms", "none")
    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        return warn(
            "alarms", f"cannot be asked for ({answer.status_code})", "give the user the tag monitoring"
        )
    raised = sorted(set(re.findall(r'"resource"\s*:\s*"(\w+)"', answer.text)))
    what = " and ".join(raised) or "memory or disk"
    return fail(
        "alarms", f"{what}: RabbitMQ takes no messages", "free some, or raise its limit in rabbitmq.conf"
    )


def _policies(declared: Declaration, standing: list[dict[str, Any]] | None) -> Finding:
    if standing is None:
        return warn("policies", "cannot be asked for", "give the user the tag policymaker or monitoring")
    found = {policy["name"]: policy for policy in standing}
    wrong = [policy.name for policy in declared.policies if not _stands(policy, found.get(policy.name))]
    if wrong:
        return fail("policies", f"missing or changed: {', '.join(wrong)}", _APPLY)
    rivals = sorted(_rivals(declared, standing))
    if rivals:
        remedy = "lower its priority: of all policies that match a queue, one alone applies"
        return fail("policies", f"{', '.join(rivals)}: takes the place of ours", remedy)
    return ok("policies", f"{len(declared.policies)} in place")


def _stands(policy: Policy, found: Mapping[str, Any] | None) -> bool:
    return found is not None and (
        found["pattern"], found["apply-to"], found["definition"], found["priority"]
    ) == (policy.pattern, policy.apply_to, dict(policy.definition), policy.priority)  # fmt: skip


def _rivals(declared: Declaration, standing: Sequence[Mapping[str, Any]]) -> set[str]:
    """Policies of others that win over one of ours on a queue or an exchange of ours."""
    ours = {policy.name for policy in declared.policies}
    places = [("queues", queue.name) for queue in declared.queues]
    places += [("exchanges", exchange.name) for exchange in declared.exchanges]
    return {
        rival["name"]
        for rival in standing
        for kind, name in places
        if rival["name"] not in ours and _covers(rival["apply-to"], kind) and _matches(rival["pattern"], name)
        if any(
            p.apply_to == kind and p.priority <= rival["priority"] and _matches(p.pattern, name)
            for p in declared.policies
        )
    }


def _covers(apply_to: str, kind: str) -> bool:
    return apply_to in {"all", kind} or (kind == "queues" and apply_to == "quorum_queues")


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:  # Erlang's expressions know a little more than Python's
        return False
