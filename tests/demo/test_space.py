"""`examples/space`: a Space of a model that was pushed."""

import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

SPACE = Path(__file__).parents[2] / "examples/space"


@pytest.mark.slow
def test_it_shows_a_pushed_model(folder, hub, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | hub.environment(tmp_path / "home") | {"PYTHONPATH": os.pathsep.join(sys.path)}
    push = [sys.executable, "-m", "etegrec_hf", "push", "--model", folder, "--repo-id", "tester/mine"]
    subprocess.run(push, env=environment, check=True, capture_output=True, timeout=120)
    shutil.copytree(SPACE, tmp_path / "space")
    settings = {"MODEL_ID": "tester/mine", "GRADIO_SERVER_PORT": str(port)}
    app = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=tmp_path / "space",
        env=environment | settings,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert app.stdout.readline().startswith(f"The demo is at http://127.0.0.1:{port}/")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            page = answer.read().decode()
        assert "A recommender of 40 items." in page
        addresses = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"'](\w+:)?//", page)
        assert addresses == []  # nothing of another host is named to be loaded
    finally:
        app.terminate()
        app.communicate(timeout=30)


def test_its_header_and_requirements_fit_the_package():
    header = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert header["sdk"] == "gradio"
    assert (SPACE / header["app_file"]).exists()
    constraints = (SPACE.parents[1] / "constraints.txt").read_text().splitlines()
    assert f"gradio=={header['sdk_version']}" in constraints
    (wanted,) = map(Requirement, (SPACE / "requirements.txt").read_text().splitlines())
    assert (wanted.name, wanted.extras) == ("etegrec_hf", {"demo"})
