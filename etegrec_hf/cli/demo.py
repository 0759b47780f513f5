"""`etegrec demo`: shows a trained recommender on a page in the browser."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import ClassVar

from .address import check_address
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
