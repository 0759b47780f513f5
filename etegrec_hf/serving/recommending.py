"""Checks requests, turns them into rows for the model, and turns the rows' answers into lists."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..data.wording import counted
from ..models.search_options import SearchOptions
from .batching import Batcher, Row
from .errors import RequestError, shown
from .kept_histories import can_keep
from .loaded_model import LoadedModel
from .metrics import Metrics
from .model_slot import ModelSlot
from .options import ServeOptions
from .schemas import RecommendRequest

OF_THE_SEARCH = ("top_k", "num_beams", "exclude_history", "rerank_weight", "transition_weight")
ROWS_AT_A_TIME = 16  # rows that are prepared before other requests get a turn


@dataclass(frozen=True)
class Service:
    """The parts that answer requests.

    Args:
        slot ([`ModelSlot`]): the model.
        batcher ([`Batcher`]): the queue, and the threads that decode.
        metrics ([`Metrics`]): the figures.
        options ([`ServeOptions`]): the limits.
    """

    slot: ModelSlot
    batcher: Batcher
    metrics: Metrics
    options: ServeOptions

    async def recommend(self, request: RecommendRequest) -> dict:
        """Returns the answer to a request, as a dictionary for JSON.

        Raises:
            RequestError: the request is refused.
        """
        check_limits(request, self.options)
        loaded = self.slot.current
        many = request.histories is not None
        histories = request.histories if request.histories is not None else [request.history or []]
        prepared = Preparation(loaded, request, self.metrics)
        keeps = self.options.max_users > 0 and request.user_id is not None and request.allowed is None
        keeps = keeps and can_keep(loaded.pipeline.model)
        rows = []
        for number, history in enumerate(histories):
            rows.append(prepared.row(history, number if many else None))
            if keeps and rows[-1].inputs["attention_mask"].any():
                rows[-1].user_id = request.user_id
            if number % ROWS_AT_A_TIME == ROWS_AT_A_TIME - 1:
                await asyncio.sleep(0)
        self.batcher.submit(rows)
        outputs = await asyncio.gather(*(row.answer for row in rows))
        lists = [loaded.pipeline.postprocess(output) for output in outputs]
        for output in outputs:
            kinds = [loaded.kinds[index] for index in output["items"][0].tolist() if index]
            self.metrics.count_list(kinds, bool(output["is_popular"].item()))
        answer = {"lists": lists} if many else {"items": lists[0]}
        return {**answer, "revision": loaded.revision}


class Preparation:
    """Makes rows of a request's histories.

    Args:
        loaded ([`LoadedModel`]): the model that will answer.
        request ([`RecommendRequest`]): a request within the limits.
        metrics ([`Metrics`]): counters, among them that of unknown ids.

    Raises:
        RequestError: options that the model refuses.
    """

    def __init__(self, loaded: LoadedModel, request: RecommendRequest, metrics: Metrics):
        self.loaded, self.request, self.metrics = loaded, request, metrics
        self._check_known("allowed", request.allowed or [])
        excluded = request.exclude or []
        self._excluded_of_all = not (excluded and isinstance(excluded[0], list))
        if self._excluded_of_all:
            self._check_known("exclude", excluded)
        given = {name: getattr(request, name) for name in OF_THE_SEARCH if getattr(request, name) is not None}
        choices = {"unknown": request.unknown, "on_empty": request.on_empty, "allowed": request.allowed}
        pipeline = loaded.pipeline
        try:
            settings = SearchOptions(**given).for_model(pipeline.model)
            self._of_preprocess, of_forward, _ = pipeline._sanitize_parameters(**given, **choices)
        except ValueError as error:
            raise RequestError(422, str(error)) from error
        if of_forward["allowed"] is not None:
            of_forward["allowed"] = tuple(of_forward["allowed"])
        self._of_forward = tuple(sorted(of_forward.items()))
        self._num_beams = settings.num_beams

    def row(self, history: list[str], number: int | None = None) -> Row:
        """Returns the row of a history; `number` is its number among several histories.

        Raises:
            RequestError: an unknown id.
            RequestError: a history without items.
        """
        place = "" if number is None else f"[{number}]"
        field = "history" if number is None else f"histories{place}"
        excluded = self.request.exclude or []
        ids = excluded if self._excluded_of_all else excluded[number or 0]
        n_known = self._check_known(field, history)
        if not self._excluded_of_all:
            self._check_known(f"exclude{place}", ids)
        if not n_known and self.request.on_empty == "error":
            raise RequestError(
                422,
                f"`{field}` holds no item of the catalogue; give one, or set `on_empty` to 'empty' or 'popular'.",
                field,
                history,
            )
        request = {"number": None, "history": history, "exclude": ids}
        inputs = self.loaded.pipeline.preprocess(request, **self._of_preprocess)
        n_tokens = int(inputs["attention_mask"].sum()) + self._num_beams
        return Row(self.loaded, inputs, self._of_forward, n_tokens)

    def _check_known(self, field: str, ids: Sequence) -> int:
        """Returns the number of known ids, and counts unknown ids.

        Raises:
            RequestError: an unknown id, unless such ids are skipped.
        """
        index_of = self.loaded.pipeline.tokenizer.index_of
        n_known = len(index_of(ids, "skip"))
        if n_known < len(ids):
            self.metrics.unknown_ids.inc(len(ids) - n_known)
            if self.request.unknown == "error":
                first = next(item_id for item_id in ids if not index_of([item_id], "skip"))
                n_items = len(self.loaded.pipeline.tokenizer.item_ids)
                raise RequestError(
                    422,
                    f"`{field}` holds {shown(first)}, which isn't in the catalogue of {n_items} items; leave it out, "
                    "or set `unknown` to 'skip' to leave out all such ids.",
                    field,
                    first,
                )
        return n_known


def check_limits(request: RecommendRequest, options: ServeOptions) -> None:
    """Checks that a request is within the limits of the server.

    Raises:
        RequestError: the first field that is beyond a limit.
    """
    if (request.history is None) == (request.histories is None):
        given = "both" if request.history is not None else "neither"
        raise RequestError(422, f"{given} of `history` and `histories` is given; give one of them.", "history", None)
    if request.user_id is not None and request.history is None:
        raise RequestError(
            422, "`user_id` is given with `histories`; give it with `history`.", "user_id", request.user_id
        )
    histories = request.histories if request.histories is not None else [request.history or []]
    if len(histories) > options.max_histories:
        raise RequestError(
            422,
            f"`histories` holds {len(histories)}; send at most {options.max_histories} per request.",
            "histories",
            len(histories),
        )
    for number, history in enumerate(histories):
        field = "history" if request.histories is None else f"histories[{number}]"
        check_length(field, history, options.max_history, "its last")
    excluded = request.exclude or []
    if excluded and isinstance(excluded[0], list):
        if request.histories is None or len(excluded) != len(histories):
            raise RequestError(
                422,
                f"`exclude` holds {counted(len(excluded), 'list')}; give ids, or one list per history of `histories`.",
                "exclude",
                len(excluded),
            )
        for number, ids in enumerate(excluded):
            check_length(f"exclude[{number}]", ids, options.max_ids, "at most")
    else:
        check_length("exclude", excluded, options.max_ids, "at most")
    check_length("allowed", request.allowed or [], options.max_ids, "at most")
    for name, most in (("top_k", options.max_top_k), ("num_beams", options.max_num_beams)):
        value = getattr(request, name)
        if value is not None and not 1 <= value <= most:
            raise RequestError(422, f"`{name}` is {value}; give 1 to {most}.", name, value)


def check_length(field: str, ids: Sequence, most: int, which: str) -> None:
    """Refuses a list that has too many ids.

    Raises:
        RequestError: more than `most` ids.
    """
    if len(ids) > most:
        message = f"`{field}` holds {counted(len(ids), 'id')}; send {which} {most}."
        raise RequestError(422, message, field, len(ids))
