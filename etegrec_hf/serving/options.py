"""Options of the server: its limits, and how it batches."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from ..data.checks import check_choice
from ..models.search_options import check_count, check_number

RUNTIMES = ("torch", "onnx")


@dataclass(frozen=True)
class ServeOptions:
    """Options of the server: how it decodes and batches, and which requests it refuses.

    Args:
        runtime (`str`, *optional*, defaults to `"torch"`): runtime that decodes. `"onnx"` exports the model when it is
            loaded, and is faster for histories that come one by one.
        max_wait (`float`, *optional*, defaults to 5.0): milliseconds that a history waits for others to be decoded
            with it, if a thread is idle.
        max_batch_tokens (`int`, *optional*): largest number of tokens and beams that are decoded together; by default
            as many as suit the device.
        max_queue (`int`, *optional*, defaults to 1024): largest number of waiting histories. Requests beyond it get
            status 429.
        max_body (`int`, *optional*, defaults to 1,000,000): largest number of bytes in the body of a request. Longer
            bodies get status 413.
        max_histories (`int`, *optional*, defaults to 256): largest number of histories per request.
        max_history (`int`, *optional*, defaults to 1000): largest number of item ids per history.
        max_ids (`int`, *optional*, defaults to 10,000): largest number of item ids in `allowed`, and in `exclude` per
            history.
        max_top_k (`int`, *optional*, defaults to 100): largest `top_k` of a request.
        max_num_beams (`int`, *optional*, defaults to 200): largest `num_beams` of a request.
        max_users (`int`, *optional*, defaults to 0): largest number of users whose encoder states are kept, for
            requests with `user_id` and models with a causal encoder; 0 keeps none.
        reload_seconds (`float`, *optional*, defaults to 5.0): seconds between checks whether the model's folder was
            replaced; 0 for no checks.
        threads (`int`, *optional*): number of threads per process that decode, each a batch of its own on one core; by
            default the cores that torch uses, divided among the processes. A GPU always has one thread.

    Raises:
        ValueError: an unknown runtime.
        ValueError: `max_users` with `"onnx"`.
        ValueError: a number that is too small, or anything that isn't a number.
        ValueError: a queue shorter than the histories of one request, or a beam narrower than the longest list.
    """

    help_group: ClassVar[str] = "options"
    help_all: ClassVar[tuple[str, ...]] = ("max_body", "max_histories", "max_history", "max_ids")

    runtime: str = field(default="torch", metadata={"help": "Runtime that decodes: torch, or onnx (extra `export`)."})
    max_wait: float = field(
        default=5.0, metadata={"help": "Milliseconds that a history waits for others to share a batch."}
    )
    max_batch_tokens: int | None = field(
        default=None,
        metadata={"help": "Largest number of tokens that are decoded together; by default as suits the device."},
    )
    max_queue: int = field(
        default=1024, metadata={"help": "Largest number of waiting histories; requests beyond it get status 429."}
    )
    max_body: int = field(
        default=1_000_000, metadata={"help": "Largest number of bytes in a request; longer ones get status 413."}
    )
    max_histories: int = field(default=256, metadata={"help": "Largest number of histories per request."})
    max_history: int = field(default=1000, metadata={"help": "Largest number of item ids per history."})
    max_ids: int = field(
        default=10_000, metadata={"help": "Largest number of item ids in `allowed`, and in `exclude` per history."}
    )
    max_top_k: int = field(default=100, metadata={"help": "Largest `top_k` of a request."})
    max_num_beams: int = field(default=200, metadata={"help": "Largest `num_beams` of a request."})
    max_users: int = field(
        default=0,
        metadata={"help": "Largest number of users whose encoder states are kept, for requests with `user_id`."},
    )
    reload_seconds: float = field(
        default=5.0, metadata={"help": "Seconds between checks whether the folder was replaced; 0 for no checks."}
    )
    threads: int | None = field(
        default=None,
        metadata={"help": "Decoding threads per process; by default the cores, divided among the processes."},
    )

    def __post_init__(self):
        check_choice("runtime", self.runtime, RUNTIMES)
        if self.runtime == "onnx" and self.max_users:
            raise ValueError(
                f"`runtime` is 'onnx' and `max_users` is {self.max_users}, but only torch keeps encoder states; leave "
                "one of them out."
            )
        for name in ("max_queue", "max_body", "max_histories", "max_history", "max_ids", "max_top_k", "max_num_beams"):
            check_count(name, getattr(self, name))
        check_count("max_users", self.max_users, 0)
        for name in ("max_batch_tokens", "threads"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for name in ("max_wait", "reload_seconds"):
            check_number(name, getattr(self, name))
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` is {getattr(self, name)}; give 0 or more.")
        for name, least in (("max_queue", "max_histories"), ("max_num_beams", "max_top_k")):
            if getattr(self, name) < getattr(self, least):
                raise ValueError(
                    f"`{name}` is {getattr(self, name)} and `{least}` is {getattr(self, least)}; raise the first or "
                    "lower the second."
                )
