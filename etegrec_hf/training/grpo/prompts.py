"""Datasets and batches of histories for reinforcement learning."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from datasets import Dataset
from torch.utils.data import Subset

from ...data.sequences import LengthGroupedSampler, SequenceDataset
from ...data.wording import counted

COLUMNS = ("prompt", "target")
# Columns that a dataset can't have: arguments that rewards get from TRL or this trainer, and names that TRL doesn't
# pass on, of pictures among them
RESERVED = (
    *("prompts", "completions", "completion_ids", "log_probability", "trainer_state"),
    *("completion", "log_extra", "log_metric", "image", "images"),
)
CHUNK = 2**20  # samples per step in which histories are written out


def prompt_dataset(samples: SequenceDataset) -> Dataset:
    """Returns the samples as a table for TRL: `prompt` (item indices, oldest first) and `target` (an item index).

    Each row holds a whole history, so the table can be filtered, mapped, joined, saved, and given further columns for
    rewards. It takes more memory than the [`SequenceDataset`], which trainers take too.
    """
    prompts = []
    for start in range(0, len(samples), CHUNK):
        position, lengths = samples.position[start : start + CHUNK], samples.lengths[start : start + CHUNK]
        offsets = np.concatenate([[0], lengths.cumsum()])
        source = np.repeat(position - offsets[1:], lengths) + np.arange(offsets[-1])  # [items of all histories]
        items = samples.sequences[source].astype(np.int64)
        prompts.append(pa.ListArray.from_arrays(offsets.astype(np.int32), items))
    targets = samples.sequences[samples.position].astype(np.int64)
    return Dataset(pa.table({"prompt": pa.chunked_array(prompts), "target": targets}))


def prompts_on_demand(samples: SequenceDataset) -> Dataset:
    """Returns a dataset with the rows of [`prompt_dataset`], which are made when they are read."""

    def read(rows: dict[str, list[int]]) -> dict[str, list]:
        batch = samples.__getitems__(rows["sample"])
        lengths = samples.lengths[rows["sample"]]
        prompts = [history[:length] for history, length in zip(batch["history"].tolist(), lengths)]
        return {"prompt": prompts, "target": batch["target"].tolist()}

    return Dataset.from_dict({"sample": np.arange(len(samples))}).with_transform(read)


def as_prompts(dataset: SequenceDataset | Dataset | Subset) -> Dataset:
    """Returns a dataset whose rows hold lists and numbers, whatever its format was; a transform is kept."""
    if isinstance(dataset, SequenceDataset):
        return prompts_on_demand(dataset)
    if isinstance(dataset, Subset):
        return as_prompts(dataset.dataset).select(dataset.indices)
    return dataset if dataset.format["type"] == "custom" else dataset.with_format(None)


def lengths_and_targets(name: str, dataset: Dataset, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Checks a caller's table of prompts, and returns lengths of histories and targets, `[rows]` each.

    Raises:
        ValueError: the table is empty.
        ValueError: a row isn't a history and a target, as [`prompt_dataset`] makes them.
        ValueError: a column has a name that rewards or TRL use.
    """
    if not len(dataset):
        raise ValueError(f"`{name}` is empty; check the prepared dataset.")
    row = dataset[0]
    for column in COLUMNS:
        if column not in row:
            raise ValueError(
                f"`{name}` has the columns {sorted(row)} and no {column!r}; make the table with `prompt_dataset`, or "
                "give each row a `prompt` (item indices, oldest first) and a `target` (an item index)."
            )
    taken = [column for column in RESERVED if column in row]
    if taken:
        raise ValueError(
            f"`{name}` has the column {taken[0]!r}, a name that rewards or TRL use already; rename the column."
        )
    if set(COLUMNS) <= set(dataset.column_names) and dataset.format["type"] is None:
        dataset = dataset.select_columns(list(COLUMNS))  # others may be large
    lengths: list[int] = []
    targets: list[int] = []
    for batch in dataset.iter(batch_size=1000):
        for prompt, target in zip(batch["prompt"], batch["target"]):
            is_history = isinstance(prompt, list | tuple) and len(prompt)
            if not is_history or not all(isinstance(item, int) and 1 <= item <= n_items for item in (*prompt, target)):
                raise ValueError(
                    f"row {len(lengths)} of `{name}` has the prompt {prompt!r} and the target {target!r}; give item "
                    f"indices, 1..{n_items} (`tokenizer.index_of(ids)`), and at least one per prompt."
                )
            lengths.append(len(prompt))
            targets.append(target)
    return np.array(lengths), np.array(targets)


class GroupSampler(LengthGroupedSampler):
    """Random batches of histories of similar length, in which each history is repeated once per completion.

    As in TRL's `RepeatSampler`, each batch is repeated for every step that trains on its completions. Here the order
    of an epoch depends only on random seed and epoch, so that runs can be resumed exactly.

    Args:
        lengths (`np.ndarray` of shape `(samples,)`): length of each history.
        histories (`int`): distinct histories per batch, over all devices.
        group (`int`): how often each history is repeated within a batch, one after another.
        repeats (`int`): how often the batch is repeated.
        seed (`int`): random seed of the order.

    Raises:
        ValueError: there are fewer samples than a batch needs.
    """

    def __init__(self, lengths: np.ndarray, histories: int, group: int, repeats: int, seed: int):
        if len(lengths) < histories:
            raise ValueError(
                f"`train_dataset` has {counted(len(lengths), 'history', 'histories')}, but a round of completions "
                f"needs {histories} (`generation_batch_size` / `num_generations`); give a smaller batch."
            )
        super().__init__(lengths, histories, seed, drop_last=True)
        self.each, self.repeats = group, repeats

    def __len__(self) -> int:
        return self.kept * self.each * self.repeats

    def __iter__(self) -> Iterator[int]:
        batches = np.fromiter(super().__iter__(), dtype=np.int64).reshape(-1, 1, self.batch_size, 1)
        shape = (len(batches), self.repeats, self.batch_size, self.each)
        return iter(np.broadcast_to(batches, shape).ravel().tolist())
