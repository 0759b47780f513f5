"""The recommender that a command works with."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..data.hub_ids import at_revision

REVISION_HELP = "Branch, tag or commit of the {} on the Hub; or write user/name@REVISION."


@dataclass(kw_only=True)
class ModelArguments:
    """A folder or a Hub id, whose revision `model` names afterwards.

    Raises:
        ValueError: the revision of a folder, or a second one.
    """

    help_group: ClassVar[str] = "model"

    model: str = field(metadata={"help": "A trained recommender: a folder or a Hub id."})
    revision: str | None = field(default=None, metadata={"help": REVISION_HELP.format("model")})

    def __post_init__(self):
        self.model, self.revision = at_revision(self.model, self.revision), None
