"""Histories as prompts of reinforcement learning, in groups."""

from collections.abc import Iterator

import numpy as np
from datasets import Dataset

from ...data.sequences import LengthGroupedSampler, SequenceDataset

COLUMNS = ("prompt", "target")


def prompt_dataset(samples: SequenceDataset) -> Dataset:
    """The samples as TRL reads them: `prompt` (item indices, oldest first) and `target` (an item index).

    Rows are made when they are asked for, so that each user's sequence is kept once.
    """

    def read(rows: dict[str, list[int]]) -> dict[str, list]:
        batch = samples.__getitems__(rows["sample"])
        lengths = samples.lengths[rows["sample"]]
        prompts = [history[:length] for history, length in zip(batch["history"].tolist(), lengths)]
        return {"prompt": prompts, "target": batch["target"].tolist()}

    return Dataset.from_dict({"sample": np.arange(len(samples))}).with_transform(read)


def check_prompts(name: str, dataset: Dataset, n_items: int) -> None:
    """Raises a `ValueError` for a row that is no history and target, as [`prompt_dataset`] makes them."""
    if not len(dataset):
        raise ValueError(f"`{name}` is empty; check the prepared dataset.")
    row = dataset[0]
    for column in COLUMNS:
        if column not in row:
            raise ValueError(
                f"`{name}` has the columns {sorted(row)} and no {column!r}; make it with `prompt_dataset`, or give "
                "each row a `prompt` (item indices, oldest first) and a `target` (an item index)."
            )
    for number, (prompt, target) in enumerate(zip(dataset["prompt"], dataset["target"])):
        if not prompt or not all(isinstance(item, int) and 1 <= item <= n_items for item in (*prompt, target)):
            raise ValueError(
                f"row {number} of `{name}` is {prompt!r} and {target!r}; both are item indices, 1..{n_items} "
                "(`tokenizer.index_of(ids)`), and a history has at least one."
            )


class GroupSampler(LengthGroupedSampler):
    """Random batches of groups: histories of like length, each as often as it has completions.

    Like TRL's `RepeatSampler`, each batch comes once for every step that is trained on its completions. Unlike it, the
    order of an epoch follows from seed and epoch alone, which is what an exact resume needs.

    Args:
        lengths (`np.ndarray` of shape `(samples,)`): length of each history.
        histories (`int`): distinct histories a batch, over all devices.
        group (`int`): how often each stands in it, side by side.
        repeats (`int`): how often the batch comes.
        seed (`int`): of the shuffling.

    Raises:
        ValueError: fewer samples than a batch needs.
    """

    def __init__(self, lengths: np.ndarray, histories: int, group: int, repeats: int, seed: int):
        if len(lengths) < histories:
            raise ValueError(
                f"`train_dataset` has {len(lengths)} histories, and a round of completions needs {histories} "
                "(`generation_batch_size` / `num_generations`); make the batch smaller."
            )
        super().__init__(lengths, histories, seed, drop_last=True)
        self.each, self.repeats = group, repeats

    def __len__(self) -> int:
        return self.kept * self.each * self.repeats

    def __iter__(self) -> Iterator[int]:
        batches = np.fromiter(super().__iter__(), dtype=np.int64).reshape(-1, 1, self.batch_size, 1)
        shape = (len(batches), self.repeats, self.batch_size, self.each)
        return iter(np.broadcast_to(batches, shape).ravel().tolist())
