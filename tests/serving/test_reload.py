"""Newer models take over without a lost request, broken ones don't, and SIGTERM ends the server."""

import asyncio
import gc
import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loopback_server import Client, serving, wait_until
from starlette.testclient import TestClient
from tiny_models import make_model

from etegrec_hf.cli import serve
from etegrec_hf.cli.main import main
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.serving import batching, model_slot
from etegrec_hf.serving.app import create_app
from etegrec_hf.serving.loaded_model import LoadedModel, folder_state, revision_of
from etegrec_hf.serving.metrics import Metrics
from etegrec_hf.serving.model_slot import ModelSlot
from etegrec_hf.serving.options import ServeOptions


@pytest.fixture(autouse=True)
def settle_at_once(monkeypatch):
    monkeypatch.setattr(model_slot, "SETTLING_SECONDS", 0.02)


@pytest.fixture
def newer(codes, tokenizer, tmp_path) -> Path:
    """Another model of the same items."""
    save_model_folder(tmp_path / "newer", make_model(codes, 8, seed=1), tokenizer, TrainingRecord())
    return tmp_path / "newer"


def replace(folder: str, newer: Path) -> None:
    Path(folder).rename(folder + "-older")
    newer.rename(folder)


def test_requests_end_on_the_model_that_they_began_with(folder, newer, monkeypatch):
    """A request is held in the middle of its batch until a newer model is loaded."""
    held, go_on = threading.Event(), threading.Event()
    decode = batching.decode

    def slowly(batch):
        held.set()
        assert go_on.wait(20)
        return decode(batch)

    loaded = [LoadedModel.load(Path(path), "", ServeOptions()) for path in (folder, newer)]
    wanted = [one.pipeline({"history": ["i4"]}) for one in loaded]
    revisions = [revision_of(str(path), Path(path)) for path in (folder, newer)]
    monkeypatch.setattr(batching, "decode", slowly)
    with serving(folder, reload_seconds=0.05, max_wait=0) as client, ThreadPoolExecutor(2) as threads:
        older = weakref.ref(client.service.slot.model.pipeline.model)
        first = threads.submit(client.recommend, history=["i4"])
        assert held.wait(20)
        waiting = threads.submit(client.recommend, history=["i4"])
        wait_until(lambda: client.metric("etegrec_queue_rows") == 1)
        replace(folder, newer)
        wait_until(lambda: client.get("/ready")[1]["revision"] == revisions[1])
        go_on.set()
        for before in (first.result(), waiting.result()):
            assert before[1]["revision"] == revisions[0]
            assert [item["item_id"] for item in before[1]["items"]] == [item["item_id"] for item in wanted[0]]
        after = client.recommend(history=["i4"])[1]
        assert after["revision"] == revisions[1]
        assert [item["item_id"] for item in after["items"]] == [item["item_id"] for item in wanted[1]]
        assert wanted[0] != wanted[1]
        gc.collect()
        assert older() is None, "the model before is freed"
        assert client.metric('etegrec_model_loads_total{result="ok"}') == 2


def test_a_broken_folder_leaves_the_model_before(folder, newer):
    with serving(folder, reload_seconds=0.05) as client:
        _, ready = client.get("/ready")
        before = client.recommend(history=["i4"])
        weights = Path(folder, "model.safetensors")
        weights.write_bytes(weights.read_bytes()[:1000])  # in place: the file that the model was read from
        wait_until(lambda: client.get("/ready")[1]["error"] is not None)
        status, broken = client.get("/ready")
        assert (status, broken["revision"]) == (200, ready["revision"])
        assert "model.safetensors" in broken["error"]
        assert client.recommend(history=["i4"]) == before
        assert client.metric('etegrec_model_loads_total{result="failed"}') == 1
        shutil.rmtree(folder)
        wait_until(lambda: "isn't a folder" in client.get("/ready")[1]["error"])
        assert client.recommend(history=["i4"]) == before
        time.sleep(0.3)  # six more checks find the same
        assert client.metric('etegrec_model_loads_total{result="failed"}') == 2
        newer.rename(folder)
        wait_until(lambda: client.get("/ready")[1]["error"] is None)
        assert client.recommend(history=["i4"])[1]["revision"] != ready["revision"]


def test_a_card_that_changes_makes_no_other_model(folder):
    before, revision = folder_state(Path(folder)), revision_of(folder, Path(folder))
    Path(folder, "README.md").write_text("# another card")
    Path(folder, "training_record.json").write_text("{}")
    assert (folder_state(Path(folder)), revision_of(folder, Path(folder))) == (before, revision)
    Path(folder, "item_titles.json").write_text('{"i3": "Another"}')
    assert folder_state(Path(folder)) != before
    assert revision_of(folder, Path(folder)) != revision


def test_a_model_of_the_hub_answers_with_its_commit(tmp_path):
    snapshot = tmp_path / "snapshots" / ("0123456789" * 4)
    assert revision_of("user/name", snapshot) == "0123456789" * 4


@pytest.fixture
def slot(folder):
    """Makes slots of a folder or a name, and closes them."""
    slots = []

    def make(name: str = folder, reload_seconds: float = 0.01) -> ModelSlot:
        slots.append(ModelSlot(name, ServeOptions(reload_seconds=reload_seconds), Metrics()))
        return slots[-1]

    yield make
    for one in slots:
        one.close()


def look(slot: ModelSlot) -> None:
    asyncio.run(slot.look())


def watch(slot: ModelSlot) -> None:
    """Watches until the slot has nothing more to look for, which fails after some seconds."""
    asyncio.run(asyncio.wait_for(slot.watch(), 10))


def test_a_model_of_the_hub_is_not_replaced(folder, newer, slot, monkeypatch):
    asked = []

    def cached(name: str) -> Path:
        """Doesn't reach the Hub at first, and later finds another commit at each call."""
        asked.append(name)
        if len(asked) == 1:
            raise ConnectionError("there is no connection")
        return (Path(folder), newer)[len(asked) % 2]

    monkeypatch.setattr(model_slot, "local_folder", cached)
    of_the_hub = slot("me/model")
    watch(of_the_hub)
    assert asked == ["me/model"] * 2
    assert (of_the_hub.model.revision, of_the_hub.error) == (Path(folder).name, None)


def test_a_folder_is_looked_for_on_this_disk_alone(folder, newer, slot, tmp_path, monkeypatch):
    """A folder's relative name may be that of somebody's model on the Hub."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path(folder).rename("runs/model")
    of_a_folder = slot("runs/model")
    look(of_a_folder)
    before = of_a_folder.model.revision
    monkeypatch.setattr(model_slot, "local_folder", lambda name: newer)
    Path("runs/model").rename("runs/older")
    look(of_a_folder)
    assert of_a_folder.error.startswith("'runs/model' isn't a folder any more; put")
    assert of_a_folder.model.revision == before
    newer.rename("runs/model")
    look(of_a_folder)
    assert of_a_folder.error is None
    assert of_a_folder.model.revision != before


def test_an_error_ends_when_the_same_folder_is_there_again(folder, slot):
    whole = slot()
    look(whole)
    model = whole.model
    for _ in range(2):
        Path(folder).rename(folder + "-away")
        look(whole)
        assert "isn't a folder" in whole.error
        Path(folder + "-away").rename(folder)
        look(whole)
        assert (whole.model, whole.error) == (model, None)


def test_a_broken_folder_that_is_there_again_is_still_broken(folder, slot):
    Path(folder, "model.safetensors").write_bytes(b"broken")
    broken = slot()
    look(broken)
    error = broken.error
    assert "model.safetensors" in error
    Path(folder).rename(folder + "-away")
    look(broken)
    assert "isn't a folder" in broken.error
    Path(folder + "-away").rename(folder)
    look(broken)
    assert broken.error == error


def test_a_folder_that_vanishes_while_it_settles_is_looked_at_again(folder, newer, slot, monkeypatch):
    def vanishing(path: Path):
        raise FileNotFoundError("a file is missing")

    replaced = slot()
    look(replaced)
    before = replaced.model
    replace(folder, newer)
    states = iter([folder_state, vanishing])
    with monkeypatch.context() as patched:
        patched.setattr(model_slot, "folder_state", lambda path: next(states)(path))
        look(replaced)
    assert (replaced.model, replaced.error) == (before, "a file is missing")
    look(replaced)
    assert replaced.error is None
    assert replaced.model is not before


def test_a_folder_that_changes_while_it_is_first_read_is_read_again(folder, slot, monkeypatch):
    """Without later checks, the first ones must end in a model or an error."""
    load, titles = LoadedModel.load, Path(folder, "item_titles.json")
    read = []

    def changing(*arguments):
        read.append(arguments)
        if len(read) < 3:
            titles.write_text(f'{{"i3": "{len(read) * "long"}"}}')
        return load(*arguments)

    monkeypatch.setattr(LoadedModel, "load", changing)
    once = slot(reload_seconds=0)
    watch(once)
    assert len(read) == 3
    assert once.error is None
    assert once.model.pipeline.tokenizer.item_titles == {"i3": "longlong"}


def test_before_a_model_is_loaded(folder, monkeypatch):
    go_on = threading.Event()
    load = LoadedModel.load

    def slowly(folder, revision, options):
        assert go_on.wait(20)
        return load(folder, revision, options)

    monkeypatch.setattr(LoadedModel, "load", slowly)
    with TestClient(create_app(folder)) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        answer = client.post("/recommend", json={"history": ["i4"]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json() == {"error": "the model is being loaded; try again."}
        go_on.set()
        wait_until(lambda: client.get("/ready").status_code == 200)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_sigterm_answers_what_was_taken_and_ends_with_0(folder, monkeypatch):
    """A fork of this process serves, so that nothing is imported again."""
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    decode, port = batching.decode, free_port()

    def slowly(batch):
        begun.set()
        time.sleep(0.5)
        return decode(batch)

    monkeypatch.setattr(batching, "decode", slowly)
    process = context.Process(target=lambda: os._exit(main(["serve", folder, "--port", str(port)])))
    process.start()
    try:
        client = Client(port, None)

        def is_ready() -> bool:
            try:
                return client.get("/ready")[0] == 200
            except OSError:
                return False

        wait_until(is_ready, 60)
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(client.recommend, history=["i4"])
            assert begun.wait(20)
            os.kill(process.pid, signal.SIGTERM)
            assert answer.result()[0] == 200
        process.join(30)
        assert process.exitcode == 0
    finally:
        process.kill()


def failure(capsys, *argv) -> str:
    assert main([str(argument) for argument in argv]) == 1
    return " ".join(capsys.readouterr().err.split())


def test_the_command_says_what_is_wrong(folder, tmp_path, monkeypatch, capsys):
    port = free_port()
    assert failure(capsys, "serve", folder, "--port", 0) == "etegrec serve: `port` is 0; choose one from 1 to 65535."
    assert "`workers` is 0; give 1 or more." in failure(capsys, "serve", folder, "--workers", 0)
    assert "`max_top_k` is 0" in failure(capsys, "serve", folder, "--max-top-k", 0)
    assert "holds no model (no config.json)" in failure(capsys, "serve", tmp_path, "--port", port)
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else True)
    told = failure(capsys, "serve", folder, "--port", port)
    assert told == "etegrec serve: serving needs uvicorn, which is not installed: pip install 'etegrec_hf[serve]'"
