"""What the operations listener answers where a handler raises: one JSON object, in the shape of its half.

What a handler answers itself passes as it is, whatever its status. Of a crash in the gateway the log has the
kind and the place, and no message: that may quote a header or a body, and callers send secrets there.
"""

from collections.abc import Mapping
from typing import Final

import structlog
from aiohttp import web

from proxy.buffer import BufferFault
from proxy.gateway import is_of_the_gateway, own_answer
from proxy.ledger import OwnCode
from proxy.log import whereabouts
from proxy.ops.access import Handler
from proxy.ops.answers import BadParameter, as_json

_UNANSWERED: Final = "a request could not be answered"

_BY_STATUS: Final[Mapping[int, OwnCode]] = {404: OwnCode.NOT_FOUND, 405: OwnCode.METHOD_NOT_ALLOWED}
"""What aiohttp's router raises."""


@web.middleware
async def errors_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have `handler` answer; where it raises, say why in JSON."""
    in_gateway = is_of_the_gateway(request.rel_url.raw_path)
    try:
        return await handler(request)
    except BadParameter as error:
        return as_json({"error": str(error), "parameter": error.name}, status=400)
    except BufferFault as error:
        return as_json({"error": str(error)}, status=503)
    except web.HTTPException as error:
        answer = as_json({"error": error.reason.lower()}, status=error.status)
        if in_gateway and (code := _BY_STATUS.get(error.status)) is not None:
            answer = own_answer(code)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception as error:
        is_under_way = request.writer.output_size > 0  # then aiohttp logs what is raised, and cuts it off
        if in_gateway:
            if is_under_way:
                raise RuntimeError(f"the gateway cut an answer off: {whereabouts(error)}") from None
            structlog.get_logger("ops").error(_UNANSWERED, **_asked(request), crash=whereabouts(error))
            return own_answer(OwnCode.INTERNAL)
        if is_under_way:
            raise
        structlog.get_logger("ops").exception(_UNANSWERED, **_asked(request))
        return as_json({"error": "internal error; see the log"}, status=500)


def _asked(request: web.Request) -> dict[str, str | None]:
    """What was asked, without what the client made up."""
    resource = request.match_info.route.resource
    return {"method": request.method, "path": resource.canonical if resource is not None else None}
