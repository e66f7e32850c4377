"""Who makes a request over HTTP."""

from starlette.requests import Request

from gateway.dispatch import Dispatcher
from gateway.principals import Caller


async def identify(request: Request, dispatcher: Dispatcher) -> Caller:
    """Return who makes a request. Raises `Unauthorized`."""
    peer = request.client.host if request.client else ""
    return await dispatcher.guard.identify(request.headers, request.query_params, peer=peer)
