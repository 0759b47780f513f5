"""`make options`: writes `options.json`, from the dataclasses that commands parse."""

import io
import json
from contextlib import redirect_stdout, suppress
from importlib import import_module

from .commands import COMMANDS
from .options import FILE, installed_versions
from .parsing import DESCRIBE


def described_commands() -> str:
    """Returns the content of `options.json`, one option per line."""
    entries = []
    for command in COMMANDS:
        described = described_command(command)
        options = ",\n".join(f"      {json.dumps(option)}" for option in described.pop("options"))
        head = "".join(f"{json.dumps(name)}: {json.dumps(value)},\n    " for name, value in described.items())
        entries.append(f'  {json.dumps(command)}: {{\n    {head}"options": [\n{options}\n    ]\n  }}')
    made_with = json.dumps(installed_versions())
    return f'{{"made_with": {made_with}, "commands": {{\n' + ",\n".join(entries) + "\n}}\n"


def described_command(command: str) -> dict:
    """Returns a command's own description of its options."""
    told = io.StringIO()
    with redirect_stdout(told), suppress(SystemExit):
        import_module(f"{__package__}.{command.replace('-', '_')}").run([DESCRIBE])
    return json.loads(told.getvalue())


if __name__ == "__main__":
    FILE.write_text(described_commands(), encoding="utf-8")
