"""`etegrec export`: writes a recommender as two networks and tables, which run without torch."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..data.folders import check_output_dir
from ..hub.model_folder import load_recommender
from ..runtime.export import export
from ..runtime.folder import SUFFIXES
from .model_arguments import ModelArguments
from .parsing import parse

EXAMPLES = """examples:
  etegrec export runs/model --output-dir runs/exported
  etegrec export user/published --format torch --output-dir runs/programs
"""


@dataclass(kw_only=True)
class ExportArguments(ModelArguments):
    """The recommender, the folder that is written, and its format."""

    help_group: ClassVar[str] = "options"

    output_dir: str = field(metadata={"help": "A new folder."})
    format: str = field(
        default="onnx",
        metadata={
            "choices": list(SUFFIXES),
            "help": "onnx for ONNX Runtime, or torch for the programs of torch.export.",
        },
    )


def run(argv: list[str]) -> None:
    (arguments,) = parse("export", argv, ExportArguments, examples=EXAMPLES, works_on="model")
    check_output_dir(arguments.output_dir)
    model, tokenizer = load_recommender(arguments.model)
    folder = export(model, tokenizer, arguments.output_dir, arguments.format)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{model.config.n_items} items, {size:.1f} MB: {folder}")
