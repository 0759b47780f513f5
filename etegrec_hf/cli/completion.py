"""`etegrec completion`: prints a shell script that completes commands and options without starting Python."""

from dataclasses import dataclass, field
from typing import Literal

from .commands import COMMANDS
from .options import offered, read_options
from .parsing import parse

EXAMPLES = """examples:
  etegrec completion bash > ~/.local/share/bash-completion/completions/etegrec
  etegrec completion zsh > ~/.etegrec_completion; echo 'source ~/.etegrec_completion' >> ~/.zshrc

The script holds the options of this version; write it anew after an update.
"""
ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
SCRIPT = """_etegrec() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version"
    elif [ "${{word#-}}" != "$word" ]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=( $(compgen -W "$words" -- "$word") )
}}
complete -o default -F _etegrec etegrec
"""


@dataclass
class CompletionArguments:
    """The shell that the script is for."""

    shell: Literal["bash", "zsh"] = field(metadata={"help": "bash or zsh."})


def run(argv: list[str]) -> None:
    (arguments,) = parse("completion", argv, CompletionArguments, examples=EXAMPLES, works_on="shell")
    print((ZSH if arguments.shell == "zsh" else "") + script(), end="")


def script() -> str:
    """Returns the script, with the current options of every command."""
    cases = (f'            {command}) words="{" ".join(options(command))}" ;;' for command in COMMANDS)
    return SCRIPT.format(commands=" ".join(COMMANDS), cases="\n".join(cases))


def options(command: str) -> list[str]:
    """Returns the options of a command."""
    return offered(read_options(command))
