"""`etegrec push`: a trained model or a prepared dataset goes to the Hub, checked first, in one commit."""

from dataclasses import dataclass, field

from ..hub.dataset_folder import publish_dataset
from ..hub.publish import publish
from .parsing import parse

EXAMPLES = """examples:
  etegrec push --model runs/model --repo-id me/my-recommender --private true
  etegrec push --model runs/model --repo-id me/my-recommender --without-embeddings true --license mit
  etegrec push --data data/mine --repo-id me/my-log --license cc-by-4.0
"""


@dataclass
class PushArguments:
    """What is published where. Log in first, with `hf auth login`."""

    repo_id: str = field(metadata={"help": "user/name, or a name in your own namespace."})
    model: str | None = field(default=None, metadata={"help": "Folder of a trained recommender or item tokenizer."})
    data: str | None = field(default=None, metadata={"help": "Folder of a prepared dataset, instead of a model."})
    private: bool | None = field(default=None, metadata={"help": "Whether a new repository is private."})
    revision: str | None = field(default=None, metadata={"help": "A branch, made if needed."})
    without_embeddings: bool = field(
        default=False,
        metadata={"help": "Leave out the items' embeddings, which training and re-ranking need."},
    )
    license: str | None = field(default=None, metadata={"help": "Of the model or data, as the Hub abbreviates it."})
    dataset_id: str | None = field(default=None, metadata={"help": "The training data's id on the Hub."})


def run(argv: list[str]) -> None:
    (arguments,) = parse("push", argv, PushArguments, examples=EXAMPLES)
    if (arguments.model is None) == (arguments.data is None):
        raise ValueError("give either --model or --data: what is to be published.")
    if arguments.data is not None:
        for name in ("without_embeddings", "dataset_id"):
            if getattr(arguments, name):
                raise ValueError(f"`{name}` means nothing to a dataset; leave it out.")
        url = publish_dataset(
            arguments.data, arguments.repo_id, arguments.private, arguments.revision, arguments.license
        )
        print(url)
        return
    url = publish(
        arguments.model,
        arguments.repo_id,
        private=arguments.private,
        revision=arguments.revision,
        without_embeddings=arguments.without_embeddings,
        license=arguments.license,
        dataset_id=arguments.dataset_id,
    )
    print(url)
