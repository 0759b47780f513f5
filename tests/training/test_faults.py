"""Real training that is killed, is asked to end, or finds a damaged checkpoint."""

import multiprocessing
import os
import random
import signal
import time

import pytest
from recommender_runs import SAVED_OFTEN, Stop, make_trainer, sides, unchanged
from transformers import TrainerCallback

from etegrec_hf.training.base.checkpoints import STAGING, last_checkpoint


class Tell(TrainerCallback):
    """Sends the number of each step that has ended."""

    def __init__(self, pipe):
        self.pipe = pipe

    def on_step_end(self, args, state, control, **kwargs):
        self.pipe.send(state.global_step)


def live(prepared, folder, pipe) -> None:
    """Trains from the newest checkpoint, if there is one, to the end."""
    trainer = make_trainer(prepared, folder, callbacks=[lambda _: Tell(pipe)], **SAVED_OFTEN)
    trainer.train(resume_from_checkpoint=True if list(folder.glob("checkpoint-*")) else None)
    trainer.save_model()


def start(prepared, folder):
    """Starts a process that trains, and returns it with the file of its steps."""
    fork = multiprocessing.get_context("fork")
    heard, told = fork.Pipe(duplex=False)
    process = fork.Process(target=live, args=(prepared, folder, told))
    process.start()
    told.close()
    return process, heard


def wait_for(heard, steps: int) -> int:
    """The step that ends after so many more."""
    return [heard.recv() for _ in range(steps)][-1]


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(prepared, tmp_path):
    undisturbed = make_trainer(prepared, tmp_path / "undisturbed", **SAVED_OFTEN)
    undisturbed.train()
    moments = random.Random(0)
    reached = []
    for _ in range(10):
        process, heard = start(prepared, tmp_path / "killed")
        reached.append(wait_for(heard, moments.randint(5, 9)))
        time.sleep(moments.uniform(0, 0.05))  # in the middle of a step, or of saving
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was still training"
    assert reached[-1] > reached[0] + 10, "it got on meanwhile"
    again = make_trainer(prepared, tmp_path / "killed", **SAVED_OFTEN)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == undisturbed.state.global_step > reached[-1]
    for side, weights in sides(undisturbed.model).items():
        assert unchanged(weights, sides(again.model)[side]), side
    assert (again.model.catalogue.item_tokens == undisturbed.model.catalogue.item_tokens).all()
    assert not (tmp_path / "killed" / STAGING).exists()


def test_sigterm_saves_where_it_is_and_ends(prepared, tmp_path):
    process, heard = start(prepared, tmp_path)
    reached = wait_for(heard, 4)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 128 + signal.SIGTERM
    ended = int(last_checkpoint(tmp_path).rsplit("-", 1)[1])
    assert reached <= ended <= reached + 3
    assert not (tmp_path / "config.json").exists(), "what isn't finished isn't saved as a model"
    trainer = make_trainer(prepared, tmp_path, callbacks=[lambda _: Stop()], **SAVED_OFTEN)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == ended + 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_damaged_newest_checkpoint_is_left_for_the_one_before(prepared, tmp_path, caplog, name):
    options = SAVED_OFTEN | {"num_train_epochs": 2, "save_steps": 7}
    whole = make_trainer(prepared, tmp_path, **options)
    whole.train()
    before, newest = sorted(tmp_path.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    (newest / name).write_bytes((newest / name).read_bytes()[:-20])
    again = make_trainer(prepared, tmp_path, **options)
    again.train(resume_from_checkpoint=True)
    assert f"{name} in '{newest}' is truncated or damaged" in caplog.text
    assert "Resuming from the checkpoint before" in caplog.text
    for side, weights in sides(whole.model).items():
        assert unchanged(weights, sides(again.model)[side]), side
    (before / name).unlink()
    (newest / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"'{before}' isn't complete: it holds no {name}"):
        last_checkpoint(tmp_path)
