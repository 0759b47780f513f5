"""Permissions of saved files."""

import os


def set_usual_modes(folder: str | os.PathLike) -> None:
    """Gives the weights in a folder the permissions of the folder's `config.json`.

    safetensors writes through temporary files that only their owner may read.
    """
    config = os.path.join(folder, "config.json")
    if os.path.exists(config):
        for name in os.listdir(folder):
            if name.endswith(".safetensors"):
                os.chmod(os.path.join(folder, name), os.stat(config).st_mode & 0o777)
