"""Micro-batching: histories of requests that arrive together are decoded together."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..data.wording import counted
from ..models.search import MAX_BATCH_TOKENS
from .errors import RequestError
from .kept_histories import KeptHistories, Tensors
from .loaded_model import LoadedModel
from .metrics import Metrics
from .options import ServeOptions

Settings = tuple[tuple[str, Any], ...]  # names and values, which can be compared

# Largest share of padding in a batch: with more, two batches of similar lengths are faster than one mixed batch
MOST_PADDING = 0.125

logger = logging.getLogger("etegrec.serving")


@dataclass(eq=False)
class Row:
    """One history of a request, on its way through the model.

    Args:
        loaded ([`LoadedModel`]): the model that answers.
        inputs (`dict[str, torch.Tensor]`): the inputs that the pipeline's `preprocess` returns.
        settings (`Settings`): arguments of the pipeline's `forward`. Rows with the same model and settings share a
            batch.
        n_tokens (`int`): number of tokens that the search holds for the row, including beams.
        user_id (`str`, *optional*): id of a user whose encoder states are kept.
    """

    loaded: LoadedModel
    inputs: Tensors
    settings: Settings
    n_tokens: int
    user_id: str | None = None
    answer: asyncio.Future[Tensors] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    arrived: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[int, Settings, bool]:
        """The key that all rows of a batch have in common."""
        return id(self.loaded), self.settings, self.user_id is None


class Batcher:
    """Decodes rows in batches on threads, while the event loop goes on reading requests.

    A batch begins with the row that has waited longest. Rows of the same model and settings join it, those of the most
    similar length first. It ends before it has too many tokens, or more than an eighth of padding. While all threads
    decode, the next batch gathers. When a thread is idle, a row waits `max_wait` milliseconds for others.

    Each thread decodes a batch of its own on one core. Threads that share a batch wait for one another after each
    operation, so that other work on one core, such as HTTP, would stall them all. A GPU has one thread.

    Args:
        options ([`ServeOptions`]): limits of batch and queue.
        metrics ([`Metrics`]): counters of batches and rows.
    """

    def __init__(self, options: ServeOptions, metrics: Metrics):
        self.options, self.metrics = options, metrics
        self.kept = KeptHistories(options.max_users)
        self._waiting: list[Row] = []
        self._arrival = asyncio.Event()
        n_threads = 1 if torch.cuda.is_available() else options.threads or torch.get_num_threads()
        self._free = asyncio.Semaphore(n_threads)
        self._threads = ThreadPoolExecutor(n_threads, "decoding", partial(torch.set_num_threads, 1))

    def submit(self, rows: Sequence[Row]) -> None:
        """Puts all rows into the queue, or none; await the `answer` of each row afterwards.

        Raises:
            RequestError: status 429 if the queue has no room for them.
        """
        if len(self._waiting) + len(rows) > self.options.max_queue:
            raise RequestError(
                429,
                f"{counted(len(self._waiting), 'history is', 'histories are')} waiting already; try again, with fewer "
                "requests at a time.",
                headers={"Retry-After": "1"},
            )
        self._waiting += rows
        self.metrics.waiting.set(len(self._waiting))
        self._arrival.set()

    async def run(self) -> None:
        """Decodes submitted rows, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            await self._gather()
            batch = self._next_batch()
            decoding = loop.run_in_executor(self._threads, self._decode, batch)
            decoding.add_done_callback(partial(self._answer, batch))

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, batch: list[Row], decoding: asyncio.Future[list[Tensors | Exception]]) -> None:
        """Passes on the answers of a batch, and frees its thread for the next batch."""
        self._free.release()
        if decoding.cancelled():  # the server is ending
            return
        for row, answer in zip(batch, decoding.result()):
            if row.answer.cancelled():
                continue
            if isinstance(answer, Exception):
                row.answer.set_exception(answer)
            else:
                row.answer.set_result(answer)

    async def _gather(self) -> None:
        """Waits for a row, and then until it has waited long enough for others or the batch is full."""
        while not self._waiting:
            self._arrival.clear()
            await self._arrival.wait()
        first = self._waiting[0]
        most = self._max_tokens(first)
        while sum(row.n_tokens for row in self._waiting) < most:
            left = first.arrived + self.options.max_wait / 1000 - time.monotonic()
            if left <= 0:
                break
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), left)
            except TimeoutError:
                break

    def _max_tokens(self, row: Row) -> int:
        device = row.loaded.pipeline.model.device.type
        return self.options.max_batch_tokens or MAX_BATCH_TOKENS.get(device, MAX_BATCH_TOKENS["cuda"])

    def _next_batch(self) -> list[Row]:
        """Takes the next batch out of the queue."""
        first = self._waiting[0]
        most = self._max_tokens(first)
        alike = [row for row in self._waiting if row.key == first.key]
        alike.sort(key=lambda row: (row is not first, abs(row.n_tokens - first.n_tokens)))
        longest, n_tokens, batch = 0, 0, list[Row]()
        for row in alike:
            longest, n_tokens = max(longest, row.n_tokens), n_tokens + row.n_tokens
            size = longest * (len(batch) + 1)
            if batch and (size > most or size - n_tokens > MOST_PADDING * most):
                break
            batch.append(row)
        taken = set(batch)
        self._waiting = [row for row in self._waiting if row not in taken]
        self.metrics.waiting.set(len(self._waiting))
        return batch

    def _decode(self, batch: list[Row]) -> list[Tensors | Exception]:
        start = time.monotonic()
        if batch[0].user_id is None:
            answers = decode(batch)
        else:
            answers = decode(batch, partial(forward_kept, self.kept))
            self.metrics.kept_users.set(len(self.kept))
        self.metrics.batch_rows.observe(len(batch))
        self.metrics.batch_seconds.observe(time.monotonic() - start)
        return answers


def forward(batch: list[Row]) -> Tensors:
    """Returns the outputs of the pipeline's `forward` for rows."""
    return batch[0].loaded.pipeline.forward(collated([row.inputs for row in batch]), **dict(batch[0].settings))


@torch.no_grad()
def forward_kept(kept: KeptHistories, batch: list[Row]) -> Tensors:
    """Returns the same outputs for rows of users with kept histories, which have items and no `allowed`."""
    loaded, model = batch[0].loaded, batch[0].loaded.pipeline.model
    encoded = kept.encode(loaded, [str(row.user_id) for row in batch], [row.inputs["input_ids"] for row in batch])
    exclude = collated([{"exclude": row.inputs["exclude"]} for row in batch])["exclude"]
    options = {name: value for name, value in batch[0].settings if name not in ("allowed", "on_empty")}
    options |= {"exclude": exclude.to(model.device) if exclude.any() else None, "exclude_history": False}
    items, scores = model.recommend(encoded=encoded, **options)
    is_popular = torch.zeros(len(batch), 1, dtype=torch.bool)
    return {"items": items.cpu(), "scores": scores.float().cpu(), "is_popular": is_popular}


def decode(batch: list[Row], forward: Callable[[list[Row]], Tensors] = forward) -> list[Tensors | Exception]:
    """Returns per row the input of the pipeline's `postprocess`, or the error that the row causes by itself."""
    try:
        output = forward(batch)
        return [{name: values[[row]] for name, values in output.items()} for row in range(len(batch))]
    except Exception as error:
        if len(batch) == 1:
            return [error]
        logger.warning("a batch of %d rows failed and is decoded row by row: %s", len(batch), error)
        return [answer for row in batch for answer in decode([row], forward)]


def collated(rows: list[Tensors]) -> Tensors:
    """Returns rows `(1, n)` as one batch, padded right with 0."""
    batch: Tensors = {}
    for name, first in rows[0].items():
        tensors = [row[name][0] for row in rows]
        batch[name] = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(first.dtype)
    return batch
