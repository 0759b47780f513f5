"""`etegrec compare`: puts results of several runs into one table, if they were measured in the same way."""

from dataclasses import dataclass, field
from pathlib import Path

from ..evaluation.comparison import compare
from .output_file import check_output_file, write_results
from .parsing import parse
from .printing import PrintArguments
from .tables import print_systems

EXAMPLES = """examples:
  etegrec compare ours=a/metrics.json theirs=b/metrics.json
  etegrec compare ours=s0/m.json ours=s1/m.json theirs=t0/m.json theirs=t1/m.json --output table.json
"""


@dataclass
class CompareArguments:
    """The results in the table."""

    results: list[str] = field(
        metadata={
            "help": "SYSTEM=FILE per run, with a JSON file of `etegrec evaluate`. Runs of one system are averaged as "
            "its seeds; other systems are compared with the first.",
            "metavar": "SYSTEM=FILE",
        }
    )
    output: str | None = field(default=None, metadata={"help": "JSON file to write."})


def run(argv: list[str]) -> None:
    classes = (CompareArguments, PrintArguments)
    arguments, printed = parse("compare", argv, *classes, examples=EXAMPLES, works_on="results")
    with printed.apart():
        output = check_output_file(arguments.output)
        runs = runs_of(arguments.results)
        for name in (name for names in runs.values() for name in names):
            if output is not None and output.resolve() == Path(name).resolve():
                raise ValueError(f"`output` {str(output)!r} is one of the `results`; name a new file.")
        results = compare(runs)
        write_results(output, results)
    printed.show(results, lambda: print_systems(results))


def runs_of(named: list[str]) -> dict[str, list[str]]:
    """Returns the files of each system from entries `SYSTEM=FILE`.

    Raises:
        ValueError: an entry has another form.
        ValueError: a system names a file twice.
    """
    runs: dict[str, list[str]] = {}
    for entry in named:
        system, _, name = entry.partition("=")
        if not system or not name:
            raise ValueError(f"`results` holds {entry!r}; write SYSTEM=FILE, like ours=runs/metrics.json.")
        if Path(name).resolve() in [Path(other).resolve() for other in runs.setdefault(system, [])]:
            raise ValueError(f"`results` names {name!r} twice for {system!r}; name each run once.")
        runs[system].append(name)
    return runs
