"""`etegrec compare`: results of several runs in one table, if they were measured alike."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ..evaluation.comparison import over_seeds, paired_bootstrap
from ..evaluation.protocol import common_protocol
from .output_file import check_output_file, write_results
from .parsing import parse
from .printing import PrintArguments
from .tables import print_systems

EXAMPLES = """examples:
  etegrec compare --results ours=a/metrics.json theirs=b/metrics.json
  etegrec compare --results ours=s0/m.json ours=s1/m.json theirs=t0/m.json theirs=t1/m.json --output table.json
"""


@dataclass
class CompareArguments:
    """What stands in the table."""

    results: list[str] = field(
        metadata={
            "help": "SYSTEM=FILE for each run, a JSON file of `etegrec evaluate`; several runs of one system are its "
            "seeds, and the others are compared with the first one."
        }
    )
    output: str | None = field(default=None, metadata={"help": "JSON file to write."})


def run(argv: list[str]) -> None:
    arguments, printed = parse("compare", argv, CompareArguments, PrintArguments, examples=EXAMPLES)
    with printed.apart():
        output = check_output_file(arguments.output)
        results = compare(arguments.results)
        write_results(output, results)
    printed.show(results, lambda: print_systems(results))


def compare(named: list[str]) -> dict:
    """Means and deviations of each system's runs, differences from the first system, the baselines, and the protocol.

    Args:
        named (`list[str]`): `SYSTEM=FILE` for each run. Differences need what `etegrec evaluate --ranks` wrote.

    Raises:
        ValueError: an entry of another form, a file that isn't of `etegrec evaluate`, or runs measured differently.
        FileNotFoundError: no such file.
    """
    runs: dict[str, dict[str, dict]] = {}  # by system and file
    for entry in named:
        system, equals, name = entry.partition("=")
        if not equals or not system or not name:
            raise ValueError(f"`results` holds {entry!r}; write SYSTEM=FILE, like ours=runs/metrics.json.")
        if name in runs.setdefault(system, {}):
            raise ValueError(f"`results` names {name!r} twice for {system!r}; name each run once.")
        runs[system][name] = read_result(name)
    everything = {name: result for of_system in runs.values() for name, result in of_system.items()}
    protocol = common_protocol(everything)
    systems = {}
    for system, of_system in runs.items():
        results = list(of_system.values())
        systems[system] = {
            "runs": len(results),
            "seeds": [result["seeds"] for result in results],
            **over_seeds([result[protocol["split"]] for result in results]),
        }
    reference, *others = runs
    ranks = {system: read_ranks(of_system) for system, of_system in runs.items()}
    differences = {
        system: paired_bootstrap(ranks[system], ranks[reference])
        for system in others
        if ranks[system] and ranks[reference]
    }
    baselines = next(iter(everything.values()))["baselines"]
    return {
        "protocol": protocol,
        "systems": systems,
        "differences": {"from": reference, "systems": differences},
        "baselines": baselines,
    }


def read_result(name: str) -> dict:
    """What `etegrec evaluate` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else.
    """
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"{name!r} in `results` is no file; name what `etegrec evaluate --output` wrote.")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name} is no JSON ({error}); name what `etegrec evaluate --output` wrote.") from error
    if not isinstance(result, dict) or not {"protocol", "baselines", "seeds"} <= result.keys():
        raise ValueError(f"{name} is no result of `etegrec evaluate`, or an older one; evaluate again.")
    return result


def read_ranks(results: dict[str, dict]) -> list[np.ndarray]:
    """The ranks `[users]` of each of these results, none if one didn't keep them.

    Results of one protocol rank the same sequences in the same order.

    Args:
        results (`dict[str, dict]`): by their files.

    Raises:
        FileNotFoundError: a file of ranks is gone.
    """
    ranks = []
    for name, result in results.items():
        if "ranks" not in result:
            return []
        path = Path(name).parent / result["ranks"]
        if not path.is_file():
            raise FileNotFoundError(f"{name} names its ranks {str(path)!r}, which is no file; move both together.")
        ranks.append(pq.read_table(path, columns=["rank"])["rank"].to_numpy())
    return ranks
