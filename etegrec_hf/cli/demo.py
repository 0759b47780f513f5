"""`etegrec demo`: a page in the browser on which a trained recommender can be tried."""

import errno
import socket
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import ClassVar

from .model_arguments import ModelArguments
from .parsing import parse

EXAMPLES = """examples:
  etegrec demo runs/model
  etegrec demo me/my-recommender --data data/mine --port 8000
"""


@dataclass
class DemoArguments(ModelArguments):
    """What is shown, and where."""

    help_group: ClassVar[str] = "options"

    data: str | None = field(
        default=None, metadata={"help": "A prepared dataset, for users of its test split and for popular items."}
    )
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0 for other machines too."})
    port: int = field(default=7860, metadata={"help": "Port to listen on."})


def run(argv: list[str]) -> None:
    (arguments,) = parse("demo", argv, DemoArguments, examples=EXAMPLES, works_on="model", first=("data",))
    if find_spec("gradio") is None:
        raise ValueError("the demo needs gradio, which is not installed: pip install 'etegrec_hf[demo]'")
    check_address(arguments.host, arguments.port)
    from ..demo.page import serve  # which imports gradio
    from ..demo.recommender import DemoRecommender

    serve(DemoRecommender.load(arguments.model, arguments.data), arguments.host, arguments.port)


def check_address(host: str, port: int) -> None:
    """Whether the page can be served there, before a model is loaded.

    Raises:
        ValueError: a port that doesn't exist or is in use, or a host that isn't this machine's.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"`port` is {port}; choose one from 1 to 65535.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"`port` {port} of {host} is in use; choose another with --port.") from error
        raise ValueError(
            f"`host` {host!r}, `port` {port}: can't be listened on ({error.strerror}); give an address of this "
            "machine and a port that you may use."
        ) from error
