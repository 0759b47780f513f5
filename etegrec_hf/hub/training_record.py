"""What is known of how a model came about: kept beside its weights, and told by its model card."""

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from ..data.folders import replace_file

FILE = "training_record.json"
EARLIER_NAMES = {"rerank": "rerank_weight", "transitions": "transition_weight"}  # of weights in evaluations
PACKAGES = ("etegrec_hf", "torch", "transformers", "trl", "accelerate", "datasets", "huggingface_hub")


@dataclass
class TrainingRecord:
    """Data, stages and results of a model's training, in the folder's `training_record.json`.

    Args:
        data (`dict`): the prepared dataset's statistics.
        stages (`list[dict]`): of each stage of training its name, length, time, device, arguments, losses and
            validation metrics.
        codes (`dict`): figures of the item codes, see [`code_diagnostics`].
        evaluations (`list[dict]`): results of `etegrec evaluate`, one a split.
        fingerprint (`dict[str, str]`): of the data, see [`fingerprint`].
    """

    data: dict = field(default_factory=dict)
    stages: list[dict] = field(default_factory=list)
    codes: dict = field(default_factory=dict)
    evaluations: list[dict] = field(default_factory=list)
    fingerprint: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path) -> "TrainingRecord":
        """The record of a folder; an empty one where there is none.

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
                f"{path} is damaged ({error}); remove it: the model needs it for its card only."
            ) from error
        for evaluation in record.evaluations:
            for earlier, name in EARLIER_NAMES.items():
                if earlier in evaluation:
                    evaluation[name] = evaluation.pop(earlier)
        return record

    def _check(self) -> None:
        """Raises a `ValueError` if something isn't of the kind that it should be; the file may be a stranger's."""
        for name, needed in (("stages", {"stage": str}), ("evaluations", {"split": str, "metrics": dict})):
            entries = getattr(self, name)
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise ValueError(f"`{name}` is no list of mappings")
            for entry in entries:
                for key, kind in needed.items():
                    if not isinstance(entry.get(key), kind):
                        raise ValueError(f"an entry of `{name}` has no {key!r}")
        for name in ("data", "codes", "fingerprint"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"`{name}` is no mapping")

    def write(self, folder: str | Path) -> None:
        """Writes `training_record.json` into a folder, whole or not at all."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        replace_file(Path(folder, FILE), lambda beside: beside.write_text(text, encoding="utf-8"))

    def seeds(self) -> dict[str, int]:
        """The seed of each stage that names one, by the stage's name."""
        return {stage["stage"]: stage["seed"] for stage in self.stages if "seed" in stage}

    def add_evaluation(self, results: dict) -> None:
        """Adds the results of a split, in the place of earlier ones of that split."""
        self.evaluations = [known for known in self.evaluations if known["split"] != results["split"]] + [results]


def versions() -> dict[str, str]:
    """Versions of the packages that matter to a model."""
    return {name: version(name) for name in PACKAGES}
