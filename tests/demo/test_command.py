"""Checks of `etegrec demo` before it loads a model."""

import socket

import pytest

from etegrec_hf.cli import demo
from etegrec_hf.cli.main import main


def failure(capsys, *argv) -> str:
    assert main([str(argument) for argument in argv]) == 1
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_does_not_exist(port, capsys):
    told = failure(capsys, "demo", "--model", "nowhere", "--port", port)
    assert told == f"etegrec demo: `port` is {port}; choose one from 1 to 65535."


def test_a_port_in_use(capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        told = failure(capsys, "demo", "--model", "nowhere", "--port", port)
    assert told == f"etegrec demo: `port` {port} of 127.0.0.1 is in use; choose another port with --port."


def test_a_host_of_another_machine(capsys):
    told = failure(capsys, "demo", "--model", "nowhere", "--host", "192.0.2.1", "--port", 7860)
    assert "`host` '192.0.2.1' and `port` 7860 can't be listened on" in told


def test_gradio_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    told = failure(capsys, "demo", "--model", "nowhere")
    assert told.endswith("needs gradio, which is not installed: pip install 'etegrec_hf[demo]'")


def test_a_model_that_is_not_there(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told = failure(capsys, "demo", "--model", tmp_path, "--port", port)
    assert "holds no model (no config.json)" in told
