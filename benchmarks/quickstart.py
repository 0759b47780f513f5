"""Measures time and peak memory of the quickstart.

python benchmarks/quickstart.py
"""

import resource
import subprocess
import sys
import tempfile
import time


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        command = [sys.executable, "-m", "etegrec_hf.cli.main", "quickstart", "--output-dir", f"{scratch}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # Linux counts in kilobytes
    print(f"quickstart: {seconds:.0f} s, {gigabytes:.2f} GB at most")


if __name__ == "__main__":
    main()
