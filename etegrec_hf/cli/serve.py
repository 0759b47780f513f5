"""`etegrec serve`: serves a trained recommender over HTTP."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import ClassVar

from ..models.search_options import check_count
from ..serving.options import ServeOptions
from .address import check_address
from .model_arguments import ModelArguments
from .parsing import parse

EXAMPLES = """examples:
  etegrec serve runs/model
  ETEGREC_API_KEY=secret etegrec serve me/my-recommender --host 0.0.0.0 --port 80 --workers 4
"""
# packages that serving needs, by extra
NEEDED = {"serve": ("fastapi", "uvicorn", "prometheus_client"), "export": ("onnx", "onnxscript", "onnxruntime")}


@dataclass
class ServeArguments(ModelArguments):
    """The recommender that is served, and the address of the server.

    Raises:
        ValueError: a revision of a folder, or a second revision.
        ValueError: `workers` below 1.
    """

    help_group: ClassVar[str] = "options"

    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0 for other machines too."})
    port: int = field(default=8000, metadata={"help": "Port to listen on."})
    workers: int = field(default=1, metadata={"help": "Number of processes, each with the model in memory."})

    def __post_init__(self):
        super().__post_init__()
        check_count("workers", self.workers)


def run(argv: list[str]) -> None:
    classes = (ServeArguments, ServeOptions)
    first = ("host", "port", "workers", "runtime")
    arguments, options = parse("serve", argv, *classes, examples=EXAMPLES, works_on="model", first=first)
    for extra in ["serve"] + ["export"] * (options.runtime == "onnx"):
        missing = [name for name in NEEDED[extra] if find_spec(name) is None]
        if missing:
            raise ValueError(f"serving needs {missing[0]}, which is not installed: pip install 'etegrec_hf[{extra}]'")
    check_address(arguments.host, arguments.port)
    from ..serving.server import serve  # which imports uvicorn

    serve(arguments.model, options, arguments.host, arguments.port, arguments.workers)
