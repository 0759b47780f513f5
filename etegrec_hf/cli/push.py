"""`etegrec push`: a trained model goes to the Hub, checked first, in one commit."""

from dataclasses import dataclass, field

from ..hub.publish import publish
from .parsing import parse

EXAMPLES = """examples:
  etegrec push --model runs/model --repo-id me/my-recommender --private true
  etegrec push --model runs/model --repo-id me/my-recommender --without-embeddings true --license mit
"""


@dataclass
class PushArguments:
    """What is published where. Log in first, with `hf auth login`."""

    model: str = field(metadata={"help": "Folder of a trained recommender or item tokenizer."})
    repo_id: str = field(metadata={"help": "user/name, or a name in your own namespace."})
    private: bool | None = field(default=None, metadata={"help": "Whether a new repository is private."})
    revision: str | None = field(default=None, metadata={"help": "A branch, made if needed."})
    without_embeddings: bool = field(
        default=False, metadata={"help": "Leave out the items' embeddings, which only alternating training needs."}
    )
    license: str | None = field(default=None, metadata={"help": "Of the model, as the Hub abbreviates it."})
    dataset_id: str | None = field(default=None, metadata={"help": "The training data's id on the Hub."})


def run(argv: list[str]) -> None:
    (arguments,) = parse("push", argv, PushArguments, examples=EXAMPLES)
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
