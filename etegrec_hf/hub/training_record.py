"""Training records: how a model was trained and evaluated, saved with its weights and shown in its model card."""

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from ..data.folders import replace_text

FILE = "training_record.json"
EARLIER_NAMES = {"rerank": "rerank_weight", "transitions": "transition_weight"}  # of weights of evaluated searches
PACKAGES = ("etegrec_hf", "torch", "transformers", "trl", "accelerate", "datasets", "huggingface_hub")


@dataclass
class TrainingRecord:
    """Data, stages and results of a model's training, in the folder's `training_record.json`.

    Args:
        data (`dict`): the prepared dataset's statistics.
        stages (`list[dict]`): one dict per stage of training: its name, length, time, device, arguments, losses and
            validation metrics.
        codes (`dict`): figures of the item codes, see [`code_diagnostics`].
        evaluations (`list[dict]`): results of `etegrec evaluate`, one dict per split.
        fingerprint (`dict[str, str]`): hashes of the data, see [`fingerprint`].
    """

    data: dict = field(default_factory=dict)
    stages: list[dict] = field(default_factory=list)
    codes: dict = field(default_factory=dict)
    evaluations: list[dict] = field(default_factory=list)
    fingerprint: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path) -> "TrainingRecord":
        """Reads the record in a folder. Without a file, the record is empty.

        Raises:
            ValueError: the file is damaged.
        """
        path = Path(folder, FILE)
        if not path.exists():
            return cls()
        try:
            record = cls(**json.loads(path.read_text(encoding="utf-8")))
            record._check()
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); remove the file: only the model's card needs it."
            ) from error
        for evaluation in record.evaluations:
            for earlier, name in EARLIER_NAMES.items():
                if earlier in evaluation:
                    evaluation[name] = evaluation.pop(earlier)
        return record

    def _check(self) -> None:
        """Raises a `ValueError` if an entry is of another type than it should be; the file may be anybody's."""
        for name, needed in (("stages", {"stage": str}), ("evaluations", {"split": str, "metrics": dict})):
            entries = getattr(self, name)
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise ValueError(f"`{name}` isn't a list of mappings")
            for entry in entries:
                for key, kind in needed.items():
                    if not isinstance(entry.get(key), kind):
                        raise ValueError(f"an entry of `{name}` has no {key!r}")
        for name in ("data", "codes", "fingerprint"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"`{name}` isn't a mapping")

    def write(self, folder: str | Path) -> None:
        """Writes `training_record.json` into a folder, whole or not at all."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        replace_text(Path(folder, FILE), text)

    def seeds(self) -> dict[str, int]:
        """Returns the random seed of each stage that has one, by the stage's name."""
        return {stage["stage"]: stage["seed"] for stage in self.stages if "seed" in stage}

    def add_evaluation(self, results: dict) -> None:
        """Adds the results of a split; earlier results of that split are replaced."""
        self.evaluations = [known for known in self.evaluations if known["split"] != results["split"]] + [results]


def versions() -> dict[str, str]:
    """Returns the versions of the packages that matter to a model."""
    return {name: version(name) for name in PACKAGES}
