"""`etegrec` and `accelerate` for the tests of the pages: quick to start, and with little to do.

As a program it is a server: it imports the package once, and forks for each command that it is sent. `install` makes
the commands that send it theirs.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

# What is added to a command of a page, whatever it says itself, so that it trains on little and not for long
LIMITS = {
    "fit": ["--time-limit", "2s"],
    "quickstart": ["--n-users", "60", "--epochs", "2", "--finetune-epochs", "1"],
    "embed": ["--num-train-epochs", "1"],
    "train-tokenizer": ["--num-train-epochs", "2"],
    "train": ["--num-train-epochs", "2", "--eval_samples", "20", "--num-layers", "1", "--num-decoder-layers", "1"],
    "finetune": ["--num-train-epochs", "1", "--eval_samples", "20"],
    "grpo": ["--max-steps", "2", "--per-device-train-batch-size", "64", "--eval_samples", "20"],
}
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [json.dumps([os.getcwd(), sys.argv[1:]]).encode()], [0, 1, 2])
    code = server.recv(1)
sys.exit(code[0] if code else "the command was killed")
"""
LAUNCHER = """#!{python} -IS
import os, sys
command = sys.argv[sys.argv.index("etegrec_hf") + 1]
os.execv({accelerate!r}, [*sys.argv, *{limits!r}.get(command, [])])
"""


@contextmanager
def install(folder: Path, environment: dict[str, str]):
    """Puts both commands into `folder`, with the server in this environment behind them."""
    address = str(folder / "socket")
    accelerate = str(Path(sysconfig.get_path("scripts"), "accelerate"))
    scripts = {
        "etegrec": CLIENT.format(python=sys.executable, address=address),
        "accelerate": LAUNCHER.format(python=sys.executable, accelerate=accelerate, limits=LIMITS),
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, address], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline() == "ready\n"
        yield
    finally:
        server.kill()
        server.wait()


def serve(address: str) -> None:
    """Runs each command that comes in a process of its own, in the folder and with the outputs of who sent it."""
    main = import_module("etegrec_hf.cli.main")
    for command in import_module("etegrec_hf.cli.commands").COMMANDS:
        import_module(f"etegrec_hf.cli.{command.replace('-', '_')}")
    import_module("etegrec_hf.hub.report").svg_of = lambda figure: (
        b"<svg></svg>"
    )  # drawing would take most of the time
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            request, files, _, _ = socket.recv_fds(connection, 100_000, 3)
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number, file in enumerate(files):
                    os.dup2(file, number)
                folder, argv = json.loads(request)
                os.chdir(folder)
                code = called(main.main, argv)
                connection.send(bytes([code]))
                os._exit(code)
            for file in files:
                os.close(file)
            connection.close()


def called(main, argv: list[str]) -> int:
    """Calls the command line with its limits, and returns the exit code."""
    trains = argv[:1] != ["embed"] or "--collaborative" in argv  # elsewhere `embed` has no epochs
    try:
        return main([*argv, *(LIMITS.get(argv[0], []) if argv and trains else [])])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
