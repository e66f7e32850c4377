"""Who makes a request over HTTP."""

from starlette.requests import Request

from gateway.dispatch import Dispatcher
from gateway.principals import Caller


async def identify(request: Request, dispatcher: Dispatcher) -> Caller:
    """Return who makes a request. Raises `Unauthorized`."""
    return await dispatcher.guard.identify(
        request.headers, request.query_params, peer=request.client
    )


def locate(request: Request, dispatcher: Dispatcher) -> Caller:
    """Return from where a request comes, whoever makes it."""
    return dispatcher.guard.locate(request.headers, request.client)
