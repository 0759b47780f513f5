"""Runs the application with uvicorn, in one process or several."""

import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial

import torch
import uvicorn

from ..hub.model_folder import local_folder, model_config
from .app import SETTINGS, create_app, key_of_environment, log_with_times
from .metrics import SHARED_FILES
from .options import ServeOptions

SECONDS_TO_END = 30  # that a stopped server has to answer the requests it took


def serve(model: str, options: ServeOptions, host: str, port: int, workers: int = 1) -> None:
    """Serves a model until SIGTERM or Ctrl-C; then it answers the requests that it took, and ends.

    Args:
        model (`str`): a folder or a Hub id.
        options ([`ServeOptions`]): options of the server.
        host (`str`): the address to listen on.
        port (`int`): the port.
        workers (`int`, *optional*, defaults to 1): processes, each of which holds the model.

    Raises:
        FileNotFoundError: no such folder, or no such model on the Hub.
        ConnectionError: the Hub can't be reached.
        ValueError: a damaged model.
        ValueError: `ETEGREC_API_KEY` is set, but is empty or blank.
    """
    key_of_environment()  # here, as a process that fails would be started again
    model_config(local_folder(model))
    if options.threads is None and workers > 1:
        options = replace(options, threads=max(1, torch.get_num_threads() // workers))
    log_with_times()
    run = partial(uvicorn.run, host=host, port=port, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_END)
    print(f"serving {model} at http://{f'[{host}]' if ':' in host else host}:{port}, see /docs", flush=True)
    # uvicorn raises the signal that ended it again, for the handler that was set before
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if workers == 1:
        run(create_app(model, options))
        return
    with tempfile.TemporaryDirectory(prefix="etegrec_metrics_") as folder:
        os.environ[SHARED_FILES] = folder
        os.environ[SETTINGS] = json.dumps({"model": model, "options": asdict(options)})
        run("etegrec_hf.serving.app:app_of_environment", factory=True, workers=workers)
