"""Arguments of commands that work with a recommender."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..data.hub_ids import at_revision

REVISION_HELP = "Branch, tag or commit of the {} on the Hub; user/name@REVISION is the same."


@dataclass(kw_only=True)
class ModelArguments:
    """A recommender, as a folder or a Hub id. A given revision becomes a part of `model`.

    Raises:
        ValueError: a revision of a folder is given.
        ValueError: two revisions are given.
    """

    help_group: ClassVar[str] = "model"

    model: str = field(metadata={"help": "A trained recommender: a folder or a Hub id."})
    revision: str | None = field(default=None, metadata={"help": REVISION_HELP.format("model")})

    def __post_init__(self):
        self.model, self.revision = at_revision(self.model, self.revision), None
