"""The outermost layer of the application: it checks keys, measures times and answers unexpected errors."""

import hmac
import logging
import time
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import RequestError
from .metrics import Metrics

OPEN = ("/health", "/ready")  # need no key
PATHS = (*OPEN, "/recommend", "/similar", "/items", "/metrics")  # counted under their own names

logger = logging.getLogger("etegrec.serving")


class Guard:
    """Wraps an ASGI application: checks keys, measures times and answers unexpected errors.

    Args:
        app (`ASGIApp`): the application that answers.
        api_key (`str`, *optional*): the key that requests must bring.
        metrics ([`Metrics`]): counters of answers and their times.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, metrics: Metrics):
        self.app, self.metrics = app, metrics
        self._key = api_key.encode() if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"
        start, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._key is None or scope["path"] in OPEN or self._has_key(scope):
                await self.app(scope, receive, sending)
            else:
                refusal = RequestError(
                    401,
                    "the key is missing or wrong; send the header `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await refusal.response(scope, receive, sending)
        except Exception:
            number = uuid4().hex[:12]
            logger.exception("error %s in %s %s", number, scope["method"], scope["path"])
            if not status:
                refusal = RequestError(
                    500, f"internal error {number}; report this number: the log of the server has the trace."
                )
                await refusal.response(scope, receive, sending)
        finally:
            self.metrics.seconds.labels(path).observe(time.perf_counter() - start)
            self.metrics.requests.labels(path, status or "none").inc()

    def _has_key(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        return self._key is not None and hmac.compare_digest(given, self._key)
