"""Refusals of requests as JSON, which names the field, the value and the remedy."""

import difflib
import math
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from .schemas import QUERIES

LONGEST_SHOWN = 100  # characters of a value that errors show
PLACES = ("body", "query")  # names for the place of a field in errors of FastAPI
REMEDIES = {"list_type": "give a list, in brackets", "string_type": "give text, in quotes"}  # by pydantic's kinds


class RequestError(Exception):
    """The refusal of a request.

    Args:
        status (`int`): status of the answer.
        message (`str`): one sentence for the sender of the request.
        field (`str`, *optional*): the field that is wrong.
        value (*optional*): value of the field.
        headers (`dict[str, str]`, *optional*): headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        field: str | None = None,
        value: object = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.field, self.value, self.headers = status, field, value, headers

    @property
    def response(self) -> JSONResponse:
        """The answer to the request."""
        content: dict[str, object] = {"error": str(self)}
        if self.field is not None:
            content |= {"field": self.field, "value": as_json(self.value)}
        return JSONResponse(content, self.status, self.headers)


def as_json(value: object) -> bool | int | float | str | None:
    """Returns a value for JSON: finite numbers and short text as they are, all else as errors show it."""
    if isinstance(value, (bool, int, NoneType)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "..."
    return shown(value)


def shown(value: object) -> str:
    """Returns a value as errors show it; long values are cut."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        return repr(value[:LONGEST_SHOWN]) + "..."
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def validation_error(errors: Sequence[Any], fields: Sequence[str]) -> RequestError:
    """Returns a refusal with the first of pydantic's errors about a request with these fields."""
    error = errors[0]
    if error["type"] == "json_invalid":
        return RequestError(400, f"the body isn't JSON ({error['ctx']['error']}); send an object with `history`.")
    places = list(error["loc"])
    if len(places) > 1 and places[0] in PLACES:
        places = places[1:]
    places = [part for part in places if isinstance(part, int) or "[" not in part]  # "[": a type of `exclude`
    field = "".join(f"[{part}]" if isinstance(part, int) else part[:LONGEST_SHOWN] for part in places) or "body"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, fields, n=1)
        remedy = f"did you mean `{near[0]}`?" if near else f"choose among {', '.join(fields)}."
        return RequestError(422, f"there is no field `{field}`; {remedy}", field, error["input"])
    if error["type"] == "missing":
        return RequestError(422, f"`{field}` is missing; give it.", field)
    reason = REMEDIES.get(error["type"]) or error["msg"][:1].lower() + error["msg"][1:]
    return RequestError(422, f"`{field}` is {shown(error['input'])}; {reason}.", field, error["input"])


async def on_request_error(request: Request, error: Exception) -> JSONResponse:
    """Answers a refused request."""
    assert isinstance(error, RequestError)
    return error.response


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Answers a request with a wrong query."""
    assert isinstance(error, RequestValidationError)
    fields = tuple(QUERIES[request.scope["route"].path].model_fields)
    return validation_error(error.errors(), fields).response


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Answers a request with an unknown path or method."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    remedy = f"use {allowed}" if allowed else "see /openapi.json for the paths that exist"
    message = f"{request.method} {shown(request.url.path)}: {error.detail}; {remedy}."
    return RequestError(error.status_code, message, headers=error.headers).response
