"""The boundary of every call: who calls, which status an error becomes, what is counted. No service is beyond it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status as wire

from cadenza.kvfs.errors import CadenzaError
from cadenza.server.auth import Keys
from cadenza.server.errors import internal, rpc_status
from cadenza.server.metrics import CallMetrics

log = logging.getLogger(__name__)

OURS = "/cadenza.v1."                       # health and reflection are open to all who reach the port

# The user of the call that is being answered. Unset outside one: a service that is not behind the boundary fails.
caller: ContextVar[str] = ContextVar("caller")

Context = grpc.aio.ServicerContext[Any, Any]
Work = Callable[[], Awaitable[None]]
Wrapped = Callable[..., Awaitable[Any]]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic for the type checker only


class Boundary(grpc.aio.ServerInterceptor):
    """Wraps each method of ours. Services are written as if every caller were known and every error were caught:
    unary methods as coroutines, streaming ones as async generators, which are closed when the client leaves."""

    def __init__(self, keys: Keys, metrics: CallMetrics) -> None:
        self._keys = keys
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OURS):
            return handler
        wrap = self._streaming if handler.response_streaming else self._unary
        return _rebuilt(handler, lambda behaviour: wrap(method, behaviour))

    def _unary(self, method: str, behaviour: Callable[..., Awaitable[Message]]) -> Wrapped:
        async def answer(request: Any, context: Context) -> Message | None:
            answers: list[Message] = []

            async def work() -> None:
                answers.append(await behaviour(request, context))

            await self._guarded(method, context, work)
            return answers[0]

        return answer

    def _streaming(self, method: str, behaviour: Callable[..., AsyncGenerator[Message, None]]) -> Wrapped:
        async def answer(request: Any, context: Context) -> None:
            async def work() -> None:
                # aclosing: its `finally` runs now, not when the garbage collector comes by
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        await context.write(response)

            await self._guarded(method, context, work)

        return answer

    async def _guarded(self, method: str, context: Context, work: Work) -> None:
        """Does `work` as the caller; returns, or aborts the call with the error's status."""
        started = time.monotonic()
        status = "CANCELLED"
        try:
            caller.set(self._keys.user(_authorization(context)))
            error = await _attempt(method, work)
            status = error.status if error else "OK"
        except CadenzaError as refused:
            error, status = refused, refused.status
        finally:
            self._metrics.count(method, status, time.monotonic() - started)
        if error is not None:
            await context.abort_with_status(wire.to_status(rpc_status(error)))


async def _attempt(method: str, work: Work) -> CadenzaError | None:
    """The error that `work` ended with. The one place where any exception whatever is caught."""
    try:
        await work()
    except CadenzaError as error:
        return error
    except Exception:
        incident = secrets.token_hex(6)
        log.exception("incident %s in %s", incident, method)
        return internal(incident)
    return None


def _authorization(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, str) else None
    return None


def _rebuilt(handler: Handler, wrap: Callable[[Any], Wrapped]) -> Handler:
    """The same handler around a wrapped behaviour."""
    shapes: dict[tuple[bool, bool], tuple[Any, Any]] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
    }
    make, behaviour = shapes[(bool(handler.request_streaming), bool(handler.response_streaming))]
    rebuilt: Handler = make(
        wrap(behaviour),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
    return rebuilt
