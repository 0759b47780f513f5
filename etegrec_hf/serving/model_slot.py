"""The model that answers now, and the look whether its folder holds a newer one."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from ..hub.model_folder import local_folder
from .errors import RequestError
from .loaded_model import FolderState, LoadedModel, folder_state, revision_of
from .metrics import Metrics
from .options import ServeOptions

SETTLING_SECONDS = 0.5  # for which a folder must stay as it is before it is read

logger = logging.getLogger("etegrec.serving")


class ModelSlot:
    """Holds the model that answers, and loads the next one beside it.

    Requests keep the [`LoadedModel`] that they began with. A folder that can't be read leaves the model before in its
    place, and is read again when it has changed.

    Args:
        name (`str`): a folder, or an id on the Hub, whose model stays as it is.
        options ([`ServeOptions`]): how often to look.
        metrics ([`Metrics`]): which count what was loaded.
    """

    def __init__(self, name: str, options: ServeOptions, metrics: Metrics):
        self.name, self.options, self.metrics = name, options, metrics
        self.model: LoadedModel | None = None
        self.error: str | None = None
        self._state: FolderState | None = None  # of the folder when it was last read
        self._thread = ThreadPoolExecutor(1, "loading", partial(torch.set_num_threads, 1))

    @property
    def current(self) -> LoadedModel:
        """The model that answers now.

        Raises:
            RequestError: status 503, while none is loaded.
        """
        if self.model is None:
            reason = "failed to load, see /ready" if self.error else "is being loaded; try again"
            raise RequestError(503, f"the model {reason}.", headers={"Retry-After": "5"})
        return self.model

    async def watch(self) -> None:
        """Loads the model, and each newer one, until it is cancelled."""
        await self.look()
        while self.options.reload_seconds:
            await asyncio.sleep(self.options.reload_seconds)
            await self.look()

    async def look(self) -> None:
        """Loads what the folder holds, if that changed since the last look and changes no more."""
        loop = asyncio.get_running_loop()
        try:
            folder = await loop.run_in_executor(self._thread, local_folder, self.name)
            state = await loop.run_in_executor(self._thread, folder_state, folder)
        except Exception as error:  # no such folder: it may be between two models
            self._fail(error, None)
            return
        if state == self._state:
            return
        if self._state is not None:
            await asyncio.sleep(SETTLING_SECONDS)
            if folder_state(folder) != state:
                return
        try:
            loaded = await loop.run_in_executor(self._thread, self._load, folder, state)
        except Exception as error:
            self._fail(error, state)
            return
        if loaded is not None:
            self.model, self.error, self._state = loaded, None, state
            self.metrics.loads.labels("ok").inc()
            logger.warning("%s: revision %s answers now", self.name, loaded.revision)

    def close(self) -> None:
        """Ends the thread that loads."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self, folder: Path, state: FolderState) -> LoadedModel | None:
        """The folder's model; none if the folder changed meanwhile."""
        revision = revision_of(self.name, folder)
        loaded = LoadedModel.load(folder, revision, self.options)
        return loaded if folder_state(folder) == state else None

    def _fail(self, error: Exception, state: FolderState | None) -> None:
        message = " ".join(str(error).split())
        state = state or self._state  # a missing folder has no state of its own
        if self.error != message or state != self._state:  # once per failure, not at every check
            logger.error("%s can't be loaded: %s", self.name, message)
            self.metrics.loads.labels("failed").inc()
        self.error, self._state = message, state
