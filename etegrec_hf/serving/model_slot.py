"""The model that answers now, and the check whether its folder holds a newer one."""

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

SETTLING_SECONDS = 0.5  # time without changes after which a changed folder is read

logger = logging.getLogger("etegrec.serving")


class ModelSlot:
    """Holds the model that answers, and loads the next one while it answers.

    Requests keep the [`LoadedModel`] that they began with. If a folder can't be read, the older model goes on
    answering, and the folder is read again after its next change. A name that was a folder isn't looked for on the
    Hub while the folder is missing.

    Args:
        name (`str`): a folder, or an id on the Hub. The model of an id isn't replaced.
        options ([`ServeOptions`]): options of the server, among them how often the folder is checked.
        metrics ([`Metrics`]): counters of loaded models.
    """

    def __init__(self, name: str, options: ServeOptions, metrics: Metrics):
        self.name, self.options, self.metrics = name, options, metrics
        self.model: LoadedModel | None = None
        self.error: str | None = None
        self._is_folder = Path(name).is_dir()
        self._state: FolderState | None = None  # state of the folder when it was last read
        self._error_of_state: str | None = None  # error of reading that state
        self._thread = ThreadPoolExecutor(1, "loading", partial(torch.set_num_threads, 1))

    @property
    def current(self) -> LoadedModel:
        """The model that answers now.

        Raises:
            RequestError: status 503 while no model is loaded.
        """
        if self.model is None:
            reason = "failed to load, see /ready" if self.error else "is being loaded; try again"
            raise RequestError(503, f"the model {reason}.", headers={"Retry-After": "5"})
        return self.model

    async def watch(self) -> None:
        """Loads the model, and each newer model of a folder, until it is cancelled.

        It ends by itself once there is nothing more to look for.
        """
        await self.look()
        while self.model is None and self.error is None:  # the folder changed while it was read
            await asyncio.sleep(SETTLING_SECONDS)
            await self.look()
        while self.options.reload_seconds and (self._is_folder or self.model is None):
            await asyncio.sleep(self.options.reload_seconds)
            await self.look()

    async def look(self) -> None:
        """Loads the folder's model if the folder has changed since the last check and no longer changes."""
        loop = asyncio.get_running_loop()
        try:
            folder = await loop.run_in_executor(self._thread, self._folder)
            state = await loop.run_in_executor(self._thread, folder_state, folder)
            if state == self._state:
                self.error = self._error_of_state  # the folder may have been missing at the last check
                return
            if self._state is not None:
                await asyncio.sleep(SETTLING_SECONDS)
                if folder_state(folder) != state:
                    return
        except Exception as error:  # such as a missing folder, while it is replaced
            self._fail(error, None)
            return
        try:
            loaded = await loop.run_in_executor(self._thread, self._load, folder, state)
        except Exception as error:
            self._fail(error, state)
            return
        if loaded is not None:
            self.model, self.error = loaded, None
            self._state, self._error_of_state = state, None
            self.metrics.loads.labels("ok").inc()
            logger.info("%s: revision %s now answers", self.name, loaded.revision)

    def close(self) -> None:
        """Ends the thread that loads."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _folder(self) -> Path:
        """Returns the model's folder.

        Raises:
            FileNotFoundError: the name was a folder, and the folder is missing now.
            FileNotFoundError, ConnectionError: the errors of [`local_folder`].
        """
        folder = Path(self.name)
        if folder.is_dir():
            self._is_folder = True
        elif self._is_folder:
            raise FileNotFoundError(f"{self.name!r} isn't a folder any more; put a model's folder there again.")
        return folder if self._is_folder else local_folder(self.name)

    def _load(self, folder: Path, state: FolderState) -> LoadedModel | None:
        """Loads the folder's model, or returns None if the folder changed while it was read."""
        revision = revision_of(self.name, folder)
        loaded = LoadedModel.load(folder, revision, self.options)
        return loaded if folder_state(folder) == state else None

    def _fail(self, error: Exception, state: FolderState | None) -> None:
        """Keeps and logs an error, once per failure; `state` is `None` if the folder couldn't be looked at."""
        message = " ".join(str(error).split())
        if self.error != message or state not in (None, self._state):
            logger.error("%s can't be loaded: %s", self.name, message)
            self.metrics.loads.labels("failed").inc()
        self.error = message
        if state is not None:
            self._state, self._error_of_state = state, message
