"""Recommends from an export in a process that can't import torch and other packages; `test_export.py` runs it."""

import importlib.abc
import json
import sys

ABSENT = ("torch", "transformers", "trl", "datasets", "accelerate", "safetensors", "huggingface_hub", "onnx", "scipy")


class Absent(importlib.abc.MetaPathFinder):
    """Hides packages that an environment for serving doesn't have."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def main(folder: str, request: str) -> list:
    sys.meta_path.insert(0, Absent())
    from etegrec_hf.runtime import OnnxRecommender

    histories, options = json.loads(request)
    return OnnxRecommender(folder, threads=1).recommend(histories, **options)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
