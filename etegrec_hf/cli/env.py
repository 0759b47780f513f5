"""`etegrec env`: prints versions and hardware, for a bug report."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from ..hub.training_record import versions
from .parsing import parse
from .printing import PrintArguments

EXAMPLES = """examples:
  etegrec env
  etegrec env --json > env.json
"""
MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")  # as Linux calls them
GIB = 2**30


@dataclass
class EnvArguments:
    """The command has no options of its own."""


def run(argv: list[str]) -> None:
    _, printed = parse("env", argv, EnvArguments, PrintArguments, examples=EXAMPLES)
    with printed.apart():
        values = environment()
    printed.show(values, lambda: print("\n".join(f"- {name}: {value}" for name, value in values.items())))


def environment() -> dict[str, str]:
    """Returns versions and hardware by name."""
    cpu, flags = describe_cpu()
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {
        **versions(),
        "safetensors": version("safetensors"),
        "Python": platform.python_version(),
        "OS": platform.platform(),
        "CPU": cpu,
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "CPU flags": ", ".join(flags) or "unknown",
        "CPU cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "memory": f"{psutil.virtual_memory().total / GIB:.1f} GiB",
        "GPUs": ", ".join(f"{gpu.name} ({gpu.total_memory / GIB:.0f} GiB)" for gpu in gpus) or "none",
        "CUDA": str(torch.version.cuda or "none"),
    }


def describe_cpu() -> tuple[str, list[str]]:
    """Returns the processor's name, and those of its instructions that the speed of training depends on."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = (entries.get("flags") or entries.get("Features") or "").split()
    name = entries.get("model name") or platform.processor() or platform.machine()
    return name, [flag for flag in MATRIX_FLAGS if flag in flags]
