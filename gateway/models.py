"""The models that can be asked for, in OpenAI's shape."""

from typing import Any, Final

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from gateway.answering import json_response
from gateway.following import Configured
from gateway.rejecting import Rejected
from gateway.speakers import Speakers
from topology.errors import Refused
from topology.messages import Request
from topology.route import AUTO, static_route

_OURS: Final = "optimizer"


class Models:
    """`auto`, and each model of the fleet as `provider/model`; bare names can be asked for, too."""

    def __init__(self, configured: Configured, speakers: Speakers) -> None:
        self._configured = configured
        self._speakers = speakers

    async def all(self, http: HttpRequest) -> Response:
        """GET /v1/models."""
        self._speakers.agent_of(http)
        models = [_described(id_, owner) for id_, owner in self._listed().items()]
        return json_response({"object": "list", "data": models})

    async def one(self, http: HttpRequest) -> Response:
        """GET /v1/models/{model}: whatever name a call may give."""
        self._speakers.agent_of(http)
        id_ = http.path_params["model"]
        return json_response(_described(id_, self._listed().get(id_) or self._owner_of(id_)))

    def _listed(self) -> dict[str, str]:
        return {AUTO: _OURS} | {
            f"{provider.name}/{model.id}": provider.name
            for provider in self._configured.fleet.providers.values()
            for model in provider.models
        }

    def _owner_of(self, id_: str) -> str:
        try:
            request = Request.from_value({"id": "-", "agent": "-", "model": id_, "params": {}})
            return static_route(self._configured.fleet, request)[0].provider
        except Refused as refused:
            raise Rejected(404, refused.message, code="model_not_found", param="model") from None


def _described(id_: str, owner: str) -> dict[str, Any]:
    # When a model was made is not known to us; clients want a number.
    return {"id": id_, "object": "model", "created": 0, "owned_by": owner}
