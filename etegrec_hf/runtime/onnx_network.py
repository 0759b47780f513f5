"""The two networks of an export, run by ONNX Runtime."""

from importlib import import_module
from pathlib import Path

import numpy as np

from .folder import HISTORY, STEP, damaged
from .search import STATE
from .trie import Numbers


class OnnxNetwork:
    """Runs `encoder.onnx` and `decoder_step.onnx`; between steps, ONNX Runtime keeps the caches.

    Args:
        folder (`Path`): folder of both files.
        threads (`int`, *optional*): threads per product; by default as many as there are cores.

    Raises:
        ImportError: onnxruntime is missing.
        ValueError: a file is damaged.
    """

    def __init__(self, folder: Path, threads: int | None = None):
        onnxruntime = onnx_runtime()
        self.as_value = onnxruntime.OrtValue.ortvalue_from_numpy
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self.history, self.next = (_session(onnxruntime, folder / f"{name}.onnx", options) for name in (HISTORY, STEP))
        self.outputs = {session: [one.name for one in session.get_outputs()] for session in (self.history, self.next)}
        self.inputs = [one.name for one in self.next.get_inputs()]

    def read(self, items: Numbers) -> dict:
        """Returns the outputs of `HistoryGraph` for item indices `[users, items]`."""
        return self._run(self.history, {"items": items})

    def step(self, tokens: Numbers, back: Numbers, level: Numbers, known: dict) -> dict:
        """Returns the outputs of `StepGraph`, with its arguments."""
        feeds = known | {"tokens": tokens, "back": back, "level": level}
        return self._run(self.next, {name: feeds[name] for name in self.inputs})

    def _run(self, session, feeds: dict) -> dict:
        given = {name: self.as_value(part) if isinstance(part, np.ndarray) else part for name, part in feeds.items()}
        names = self.outputs[session]
        made = zip(names, session.run_with_ort_values(names, given))
        return {name: part if name.startswith(STATE) else part.numpy() for name, part in made}


def _session(onnxruntime, path: Path, options):
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime doesn't export the classes of its errors
        raise damaged(path) from error


def onnx_runtime():
    """Imports onnxruntime and returns it; only running an export needs it, not writing one.

    Raises:
        ImportError: onnxruntime is missing.
    """
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(
            "an exported model needs onnxruntime; install it with `pip install onnxruntime`, or with the packages for "
            "exporting, `pip install 'etegrec_hf[export]'`."
        ) from error
