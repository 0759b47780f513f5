"""Training on streamed sequences, compared with training on the same sequences in memory."""

from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from recommender_runs import SAVED_OFTEN, Stop, make_trainer, record_of

from etegrec_hf import ETEGRecTrainer
from etegrec_hf.data.sequences import SequenceDataset, WholeSequenceDataset
from etegrec_hf.data.streamed_sequences import StreamedSequences
from etegrec_hf.hub.dataset_folder import training_files
from etegrec_hf.training.recommender.batches import make_own_batches


def samples_in(batches: list[dict]) -> list[tuple]:
    """Histories and targets of batches, without padding."""
    rows = [row for batch in batches for row in zip(batch["history"].tolist(), batch["target"].tolist())]
    return [(*filter(None, history), target) for history, target in rows]


PREFIXES = partial(SequenceDataset.for_training, max_history=20)
WINDOWS = partial(WholeSequenceDataset, max_history=6, context=3)
CAUSAL = {"encoder_attention": "causal"}
NOTHING_SAVED = {"num_train_epochs": 4, "save_strategy": "no", "load_best_model_at_end": False}


@pytest.fixture
def files(prepared_folder) -> list[str]:
    return training_files(prepared_folder)


def streamed(prepared, folder, files, samples_of=PREFIXES, buffer_rows=50, **options) -> ETEGRecTrainer:
    """A trainer that reads the 120 training sequences in buffers of so many."""
    trainer = make_trainer(prepared, folder, **options)
    trainer.train_dataset = StreamedSequences(files, prepared.item_ids, samples_of, buffer_rows)
    return trainer


def assert_same(one: ETEGRecTrainer, other: ETEGRecTrainer) -> None:
    """Weights and codes are equal bit for bit."""
    theirs = other.model.state_dict()
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize(
    ("samples_of", "sizes", "options"),
    [
        (PREFIXES, {}, {}),
        (PREFIXES, {}, {"max_tokens_per_batch": 400, "gradient_accumulation_steps": 2}),
        (WINDOWS, CAUSAL, {}),
        (WINDOWS, CAUSAL, {"max_tokens_per_batch": 400}),
    ],
)
def test_one_buffer_trains_as_memory_does(prepared, files, tmp_path, samples_of, sizes, options):
    options = NOTHING_SAVED | options | {"sizes": sizes}
    memory = make_trainer(prepared, tmp_path / "memory", **options)
    memory.train_dataset = samples_of(prepared.train)
    memory.train()
    stream = streamed(prepared, tmp_path / "stream", files, samples_of, buffer_rows=120, **options)
    stream.train()
    assert_same(memory, stream)
    assert [entry.get("eval_ndcg@10") for entry in memory.state.log_history] == [
        entry.get("eval_ndcg@10") for entry in stream.state.log_history
    ]
    assert len(stream.train_dataset) == len(memory.train_dataset)
    assert stream.num_examples(stream.get_train_dataloader()) == len(memory.train_dataset)


BY_TOKENS = {"max_tokens_per_batch": 400, "dataloader_num_workers": 1}


@pytest.mark.parametrize(
    ("epoch", "options"),
    [
        (0, {}),
        (1, BY_TOKENS),
        pytest.param(0, BY_TOKENS, marks=pytest.mark.slow),
        pytest.param(1, {}, marks=pytest.mark.slow),
    ],
)
def test_resuming_within_an_epoch_equals_no_interruption(prepared, files, tmp_path, options, epoch):
    """In the second of three buffers of an epoch of either phase."""
    options = SAVED_OFTEN | {"num_train_epochs": 2, "save_total_limit": None} | options
    whole = streamed(prepared, tmp_path / "whole", files, **options)
    whole.train()
    steps = len(whole.own_batches)
    assert whole.state.global_step == 2 * steps
    at = epoch * steps + steps // 2
    parts = streamed(prepared, tmp_path / "parts", files, **options | {"save_steps": at})
    parts.train()
    assert_same(whole, parts)
    again = streamed(prepared, tmp_path / "parts", files, **options)
    again.train(resume_from_checkpoint=str(tmp_path / f"parts/checkpoint-{at}"))
    assert_same(whole, again)


def test_a_checkpoint_of_another_order_is_not_resumed(prepared, files, tmp_path):
    options = SAVED_OFTEN | {"save_steps": 1}
    stream = streamed(prepared, tmp_path, files, callbacks=[lambda _: Stop()], **options)
    stream.record = record_of(prepared)
    stream.record.fingerprint["train"] = stream.train_dataset.fingerprint
    stream.train()
    memory = make_trainer(prepared, tmp_path, **options)
    memory.record = record_of(prepared)
    with pytest.raises(
        ValueError, match=r"another dataset: the fingerprint of its `train` is .* with the same --stream"
    ):
        memory.train(resume_from_checkpoint=True)


def test_a_budget_below_the_longest_history_is_an_error(prepared, files, tmp_path):
    trainer = streamed(prepared, tmp_path, files, buffer_rows=1, max_tokens_per_batch=9)
    longest = 3 * PREFIXES(prepared.train).lengths.max()
    with pytest.raises(ValueError, match=f"`max_tokens_per_batch` is 9, but the longest history has {longest} tokens"):
        trainer.train()


@pytest.mark.parametrize("tokens", [None, 90])
def test_processes_take_other_batches_and_equally_many(prepared, files, tokens):
    sequences = StreamedSequences(files, prepared.item_ids, PREFIXES, 50)
    arguments = {
        "max_tokens_per_batch": tokens,
        "train_batch_size": 7,
        "dataloader_drop_last": False,
    }
    parts = [
        make_own_batches(sequences, SimpleNamespace(**arguments, world_size=3, process_index=process), 3, seed=1)
        for process in range(3)
    ]
    batches = [list(part) for part in parts]
    assert {len(part) for part in parts} == {len(found) for found in batches} == {len(parts[0])}
    whole = SequenceDataset.for_training(prepared.train, 20)
    samples = Counter(samples_in([whole.__getitems__(list(range(len(whole))))]))
    found = Counter(samples_in([batch for step in zip(*batches) for batch in step]))
    assert not samples - found, "all samples"
    repeated = max(len(batch["target"]) for part in batches for batch in part) * 3 * len(sequences.counts)
    assert (found - samples).total() < repeated, "nothing more than what fills the last step of a buffer"
