"""Limits of the server, and how it batches."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from ..data.checks import check_choice
from ..models.search_options import check_count, check_number

RUNTIMES = ("torch", "onnx")


@dataclass(frozen=True)
class ServeOptions:
    """How the server decodes and batches, and which requests it refuses.

    Args:
        runtime (`str`, *optional*, defaults to `"torch"`): what decodes. `"onnx"` exports the model when it is loaded,
            and is faster for histories that come one by one.
        max_wait (`float`, *optional*, defaults to 5.0): milliseconds that a history waits for others to be decoded
            with, if the model has nothing else to do.
        max_batch_tokens (`int`, *optional*): tokens and beams that are decoded together; by default as many as suit
            the device.
        max_queue (`int`, *optional*, defaults to 1024): histories that may wait. Requests beyond get status 429.
        max_body (`int`, *optional*, defaults to 1,000,000): bytes of a request's body. Longer ones get status 413.
        max_histories (`int`, *optional*, defaults to 256): histories per request.
        max_history (`int`, *optional*, defaults to 1000): item ids per history.
        max_ids (`int`, *optional*, defaults to 10,000): item ids of `allowed`, and of `exclude` per history.
        max_top_k (`int`, *optional*, defaults to 100): the longest list.
        max_num_beams (`int`, *optional*, defaults to 200): the widest beam.
        max_users (`int`, *optional*, defaults to 0): users whose encoder states are kept for requests with `user_id`,
            by models with a causal encoder; 0 for none.
        reload_seconds (`float`, *optional*, defaults to 5.0): seconds between two looks whether the model's folder
            was replaced; 0 for never.
        threads (`int`, *optional*): threads of each process that decode, each a batch of its own on one core; by
            default the cores that torch takes, divided among the processes. A GPU always has one.

    Raises:
        ValueError: a number that is too small, or isn't a number.
        ValueError: a request that is within the limits and can't fit into the queue or the beam.
        ValueError: another runtime, or `max_users` with `"onnx"`.
    """

    help_group: ClassVar[str] = "options"
    help_all: ClassVar[tuple[str, ...]] = ("max_body", "max_histories", "max_history", "max_ids")

    runtime: str = field(default="torch", metadata={"help": "What decodes: torch, or onnx (extra `export`)."})
    max_wait: float = field(default=5.0, metadata={"help": "Milliseconds that a history waits for others."})
    max_batch_tokens: int | None = field(
        default=None, metadata={"help": "Tokens that are decoded together at most; by default as suits the device."}
    )
    max_queue: int = field(default=1024, metadata={"help": "Histories that may wait; beyond, the answer is 429."})
    max_body: int = field(default=1_000_000, metadata={"help": "Bytes of a request's body; beyond, it is 413."})
    max_histories: int = field(default=256, metadata={"help": "Histories per request."})
    max_history: int = field(default=1000, metadata={"help": "Item ids per history."})
    max_ids: int = field(default=10_000, metadata={"help": "Item ids of `allowed`, and of `exclude` per history."})
    max_top_k: int = field(default=100, metadata={"help": "The longest list."})
    max_num_beams: int = field(default=200, metadata={"help": "The widest beam."})
    max_users: int = field(
        default=0, metadata={"help": "Users whose encoder states are kept, for requests with `user_id`."}
    )
    reload_seconds: float = field(
        default=5.0, metadata={"help": "Seconds between looks whether the folder was replaced; 0 for never."}
    )
    threads: int | None = field(
        default=None, metadata={"help": "Threads per process that decode; by default the cores, divided."}
    )

    def __post_init__(self):
        check_choice("runtime", self.runtime, RUNTIMES)
        if self.runtime == "onnx" and self.max_users:
            raise ValueError(
                f"`runtime` is 'onnx' and `max_users` {self.max_users}, but encoder states are kept by torch alone; "
                "leave one of them out."
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
                    f"`{name}` is {getattr(self, name)} and `{least}` {getattr(self, least)}; raise the one or lower "
                    "the other."
                )
