"""The server as an ASGI application."""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from .batching import Batcher
from .errors import RequestError, on_http_error, on_request_error, on_validation_error
from .guard import Guard
from .metrics import Metrics
from .model_slot import ModelSlot
from .options import ServeOptions
from .recommending import Service
from .routes import router

API_KEY = "ETEGREC_API_KEY"
SETTINGS = "ETEGREC_SERVE"  # the variable that passes model and options to each process


def create_app(model: str, options: ServeOptions | None = None) -> FastAPI:
    """Makes the application that `etegrec serve` runs, for any ASGI server.

    If the environment variable `ETEGREC_API_KEY` is set, requests must bring its value as a key.

    Args:
        model (`str`): a trained recommender: a folder or a Hub id, optionally with `@revision`.
        options ([`ServeOptions`], *optional*): limits of the server, and how it batches.

    Returns:
        the application, which loads the model when it starts.

    Raises:
        ValueError: `ETEGREC_API_KEY` is set, but is empty or blank.
    """
    options = options or ServeOptions()
    api_key = key_of_environment()
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = Service(ModelSlot(model, options, metrics), Batcher(options, metrics), metrics, options)
        app.state.service = service
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="finding"))
        tasks = [asyncio.create_task(service.slot.watch()), asyncio.create_task(service.batcher.run())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        service.batcher.close()
        service.slot.close()
        metrics.close()

    app = FastAPI(title="etegrec_hf", version=version("etegrec_hf"), lifespan=lifespan)
    app.include_router(router)
    app.add_middleware(Guard, api_key=api_key, metrics=metrics)
    app.add_exception_handler(RequestError, on_request_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_error)
    return app


def key_of_environment() -> str | None:
    """Returns the key that requests must bring, or `None` if the environment variable `ETEGREC_API_KEY` isn't set.

    Raises:
        ValueError: the variable is set, but is empty or blank.
    """
    key = os.environ.get(API_KEY)
    if key is not None and not key.strip():
        raise ValueError(
            f"the environment variable `{API_KEY}` is {key!r}, which is no key; set it to the key that requests must "
            "bring, or unset it to serve without a key."
        )
    return key


def app_of_environment() -> FastAPI:
    """Makes the application in a process that uvicorn started, from the settings in its environment."""
    log_with_times()
    settings = json.loads(os.environ[SETTINGS])
    return create_app(settings["model"], ServeOptions(**settings["options"]))


def log_with_times() -> None:
    """Sends the log of the process to stderr, with times."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("etegrec.serving").setLevel(logging.INFO)  # which revision answers
