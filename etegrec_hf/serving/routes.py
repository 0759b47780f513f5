"""The paths of the server."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from .errors import RequestError, validation_error
from .recommending import Service
from .schemas import (
    ItemsAnswer,
    ItemsQuery,
    ReadyAnswer,
    RecommendAnswer,
    RecommendRequest,
    SimilarAnswer,
    SimilarQuery,
)

MOST_DISCARDED = 16  # times `max_body`: most that is read of a long body, so that its client reads the answer
GONE = 499  # status of a client that left, for the metrics alone
FIELDS = tuple(RecommendRequest.model_fields)

router = APIRouter()


def service_of(request: Request) -> Service:
    """Returns the service of the application that received a request."""
    return request.app.state.service


async def read_body(request: Request, most: int) -> bytes:
    """Reads the body of a request.

    Raises:
        RequestError: status 413 for more than `most` bytes.
        ClientDisconnect: the client left before the end of the body.
    """
    declared = request.headers.get("content-length", "0")
    size, parts = 0, []
    if not declared.isdecimal() or int(declared) <= MOST_DISCARDED * most:
        async for part in request.stream():
            size += len(part)
            if size <= most:
                parts.append(part)
            elif size > MOST_DISCARDED * most:
                break
    else:
        size = int(declared)
    if size > most:
        message = f"the body has more than {most} bytes; send fewer or shorter histories."
        raise RequestError(413, message, "body", size, {"Connection": "close"})
    return b"".join(parts)


@router.post(
    "/recommend",
    responses={200: {"model": RecommendAnswer}},
    response_class=Response,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": RecommendRequest.model_json_schema()}},
        }
    },
)
async def recommend(request: Request) -> Response:
    """Recommends the next items of one history or of several."""
    service = service_of(request)
    try:
        body = await read_body(request, service.options.max_body)
    except ClientDisconnect:
        return Response(status_code=GONE)
    try:
        wanted = RecommendRequest.model_validate_json(body)
    except ValidationError as error:
        raise validation_error(error.errors(include_url=False), FIELDS) from error
    answer = await service.recommend(wanted)
    return Response(to_json(answer), media_type="application/json")


@router.get("/items", response_model_exclude_none=True)
async def items(request: Request, wanted: Annotated[ItemsQuery, Query()]) -> ItemsAnswer:
    """Finds items whose title or id contains all words of a query."""
    loaded = service_of(request).slot.current
    found, total = await asyncio.to_thread(loaded.finder.find, wanted.query, wanted.limit)
    return ItemsAnswer(items=loaded.described(found), total=total, revision=loaded.revision)


@router.get("/similar", response_model_exclude_none=True)
async def similar(request: Request, wanted: Annotated[SimilarQuery, Query()]) -> SimilarAnswer:
    """Finds items that share the longest prefix of codes with an item."""
    loaded = service_of(request).slot.current
    if not loaded.pipeline.tokenizer.index_of([wanted.item_id], "skip"):
        service_of(request).metrics.unknown_ids.inc()
        message = "`item_id` isn't in the catalogue; search for the item with /items."
        raise RequestError(404, message, "item_id", wanted.item_id)
    found = await asyncio.to_thread(loaded.finder.similar, wanted.item_id, wanted.limit)
    return SimilarAnswer(
        items=loaded.described(found.item_ids),
        total=found.total,
        revision=loaded.revision,
        shared_codes=found.shared_codes,
    )


@router.get("/health")
async def health() -> dict[str, bool]:
    """Returns that the process is alive."""
    return {"alive": True}


@router.get("/ready", responses={503: {"model": ReadyAnswer}})
async def ready(request: Request) -> ReadyAnswer:
    """Returns whether a model answers, its revision, and the error of the last attempt to load its folder."""
    slot = service_of(request).slot
    revision = None if slot.model is None else slot.model.revision
    answer = ReadyAnswer(ready=slot.model is not None, revision=revision, error=slot.error)
    if not answer.ready:
        return JSONResponse(answer.model_dump(), 503)  # type: ignore[return-value]
    return answer


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Returns figures in the format of Prometheus."""
    return Response(service_of(request).metrics.page(), media_type=CONTENT_TYPE_LATEST)
