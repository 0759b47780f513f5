"""`etegrec push`: publishes a trained model or a prepared dataset on the Hub, after checks, in one commit."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..hub.dataset_folder import publish_dataset
from ..hub.publish import publish
from ..hub.repository import RepositoryOptions
from .parsing import parse

EXAMPLES = """examples:
  etegrec push runs/model --repo-id me/my-recommender --private true
  etegrec push runs/model --repo-id me/my-recommender --license mit
  etegrec push runs/model --repo-id me/my-recommender --endpoint true
  etegrec push data/mine --repo-id me/my-log --license cc-by-4.0
"""


@dataclass
class PushArguments:
    """The folder that is published, and its repository. Log in first, with `hf auth login`."""

    help_all: ClassVar[tuple[str, ...]] = ("model", "data")

    repo_id: str = field(metadata={"help": "user/name, or a name in your own namespace."})
    folder: str | None = field(
        default=None, metadata={"help": "A trained recommender or item tokenizer, or a prepared dataset."}
    )
    model: str | None = field(default=None, metadata={"help": "The folder, if it holds a model."})
    data: str | None = field(default=None, metadata={"help": "The folder, if it holds a prepared dataset."})
    private: bool | None = field(default=None, metadata={"help": "Whether a new repository is private."})
    revision: str | None = field(default=None, metadata={"help": "Branch of the commit; a missing branch is made."})
    without_embeddings: bool = field(
        default=False,
        metadata={"help": "Leave out the items' embeddings, which training and re-ranking need."},
    )
    license: str | None = field(default=None, metadata={"help": "License, as the Hub abbreviates it."})
    dataset_id: str | None = field(default=None, metadata={"help": "The training data's id on the Hub."})
    endpoint: bool = field(
        default=False, metadata={"help": "Add handler.py and requirements.txt for Inference Endpoints."}
    )


def run(argv: list[str]) -> None:
    (arguments,) = parse("push", argv, PushArguments, examples=EXAMPLES, works_on="folder")
    if [arguments.folder, arguments.model, arguments.data].count(None) != 2:
        raise ValueError("give one FOLDER to publish, as the first argument or as --model or --data.")
    if arguments.folder is not None:
        is_dataset = Path(arguments.folder, "sequences").is_dir()
        setattr(arguments, "data" if is_dataset else "model", arguments.folder)
    repository = RepositoryOptions(arguments.private, arguments.revision, arguments.license)
    if arguments.data is not None:
        for name in ("without_embeddings", "dataset_id", "endpoint"):
            if getattr(arguments, name):
                raise ValueError(f"`{name}` has no meaning for a dataset; leave it out.")
        print(publish_dataset(arguments.data, arguments.repo_id, repository))
        return
    url = publish(
        arguments.model,
        arguments.repo_id,
        repository,
        without_embeddings=arguments.without_embeddings,
        dataset_id=arguments.dataset_id,
        endpoint=arguments.endpoint,
    )
    print(url)
