"""`etegrec COMMAND ...`: finds the command and turns errors into one line."""

import difflib
import sys
from importlib import import_module

from rich.console import Console

COMMANDS = {
    "quickstart": "train, evaluate and try a recommender on made-up data",
    "prepare": "turn an interaction log into a prepared dataset",
    "embed": "make collaborative and text embeddings of items",
    "train-tokenizer": "train the item tokenizer (RQ-VAE)",
    "diagnose": "show how well item tokenizers use their codes",
    "train": "train recommender and item tokenizer in turns",
    "finetune": "finetune the recommender on frozen codes",
    "grpo": "train a recommender by rewards of what it recommends",
    "baselines": "measure simpler systems on a split",
    "evaluate": "measure a recommender on a split",
    "recommend": "recommend items for one history, or for all users of a dataset",
    "demo": "try a recommender on a page in the browser",
    "convert": "turn the original ETEGRec's checkpoints into a model",
    "import-codes": "start a recommender from codes trained elsewhere",
    "push": "publish a trained model or a prepared dataset on the Hub",
}
USER_ERRORS = (ValueError, FloatingPointError, OSError)


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns 0, 1 for an error of the input, 2 for a wrong call, 130 for an interruption."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    if debug:
        argv.remove("--debug")
    if not argv or argv[0] not in COMMANDS:
        print("usage: etegrec COMMAND [--help] [--debug] ...\n")
        for name, purpose in COMMANDS.items():
            print(f"  {name:<16} {purpose}")
        if argv and argv[0] not in ("-h", "--help"):
            near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
            print(f"\nunknown command {argv[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""), file=sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    try:
        import_module(f"{__package__}.{argv[0].replace('-', '_')}").run(argv[1:])
    except KeyboardInterrupt:
        print(f"etegrec {argv[0]}: interrupted", file=sys.stderr)
        return 130
    except USER_ERRORS as error:
        if debug:
            raise
        Console(stderr=True).print(
            f"etegrec {argv[0]}: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
