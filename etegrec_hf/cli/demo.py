"""`etegrec demo`: shows a trained recommender on a page in the browser."""

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
    """The recommender that is shown, and the address of the page."""

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
    """Checks that a page can be served at an address, before a model is loaded.

    Raises:
        ValueError: the port doesn't exist, or is in use.
        ValueError: the host isn't an address of this machine.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"`port` is {port}; choose one from 1 to 65535.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"`port` {port} of {host} is in use; choose another port with --port.") from error
        raise ValueError(
            f"`host` {host!r} and `port` {port} can't be listened on ({error.strerror}); give an address of this "
            "machine and a port that you may use."
        ) from error
