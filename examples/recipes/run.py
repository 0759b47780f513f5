"""Runs a recipe from a raw interaction log to a table of its results, for several seeds and variants.

    python examples/recipes/run.py examples/recipes/instruments --raw FOLDER --output-dir runs/instruments

A recipe is a folder with one YAML file per command of `etegrec`, and with `variants.yaml`, which lists the changes of
each variant. If a file is missing, the one in the neighbouring folder `common` is used. An interrupted script can be
called again: stages that have ended aren't repeated, and trainings are resumed from their newest checkpoint.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

TRAININGS = {
    "train-tokenizer": "diagnostics.json",
    "train": "report.html",
    "finetune": "report.html",
    "grpo": "report.html",
}  # the file that each command writes last
ONLY_IF_NAMED = {"grpo"}  # commands that a variant has to name
TABLES = {"test": {}, "test_seen_left_out": {"exclude_seen": True}}
FULL = "full"  # the variant without changes, which others are compared with


class Recipe:
    """Runs a recipe's stages by `etegrec`, each in a process of its own.

    Args:
        folder (`Path`): folder of the YAML files; files that recipes share are in the neighbouring folder `common`.
        raw (`Path`): folder of the log that `prepare.yaml` names.
        output (`Path`): folder of everything that is written.
        threads (`int`): threads per process.
        tables (`list[str]`): the names in `TABLES` that are measured.
    """

    def __init__(self, folder: Path, raw: Path, output: Path, threads: int, tables: list[str]):
        self.folder, self.raw, self.output, self.tables = folder, raw, output, tables
        self.environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self.variants = yaml.safe_load(self.existing("variants").read_text(encoding="utf-8"))
        self.data, self.commands = output / "data", output / "commands.jsonl"
        if not self.commands.exists() and any(output.iterdir()):
            raise SystemExit(f"{str(output)!r} holds other files; name an empty or new folder.")
        self.commands.touch()

    def file(self, name: str) -> Path:
        """Returns the recipe's YAML file of this name, or the file that all recipes share."""
        own, shared = (folder / f"{name}.yaml" for folder in (self.folder, self.folder.parent / "common"))
        return own if own.exists() or not shared.exists() else shared

    def existing(self, name: str) -> Path:
        """Returns `file(name)`, and ends the script if there is none."""
        path = self.file(name)
        if not path.exists():
            remedy = f"copy examples/recipes/common to {str(self.folder.parent / 'common')!r}, or write the file"
            raise SystemExit(f"{str(path)!r} doesn't exist; {remedy}.")
        return path

    def run(self, command: str, changes: dict, **options) -> None:
        """Calls a command with its YAML file, the changes of a variant, and these options."""
        arguments = [sys.executable, "-m", "etegrec_hf", command, "--config", self.existing(command)]
        for name, value in (changes | options).items():
            arguments += [f"--{name}", str(value)]
        words = " ".join(f"{name}={value}" for name, value in (changes | options).items())
        print(f"{time.strftime('%H:%M:%S')} {command} {words}", flush=True)
        log = Path(options.get("output_dir", options.get("output"))).with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        with log.open("a", encoding="utf-8") as lines:
            ended = subprocess.run(list(map(str, arguments)), env=self.environment, stdout=lines, stderr=lines)
        if ended.returncode:
            last = (log.read_text(encoding="utf-8").splitlines() or ["it printed nothing"])[-1]
            raise SystemExit(f"etegrec {command} failed; all that it printed is in {log}, and ends with\n{last}")
        with self.commands.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"command": command, "told": words, "seconds": time.perf_counter() - start}) + "\n")

    def prepare(self) -> None:
        """Prepares the dataset of all seeds and variants, and embeds its items if there is an `embed.yaml`."""
        if not (self.data / "README.md").exists():
            log = self.raw / yaml.safe_load(self.existing("prepare").read_text(encoding="utf-8"))["path"]
            self.run("prepare", {}, path=log, output_dir=self.data)
            shutil.rmtree(self.output / "embed", ignore_errors=True)  # embeddings of an earlier dataset
        if self.file("embed").exists() and not self.embedded():
            collaborative = self.output / "embed"
            resume = {"resume": True} if any(collaborative.glob("checkpoint-*")) else {}
            if not resume:
                shutil.rmtree(collaborative, ignore_errors=True)
            self.run("embed", {}, data=self.data, output_dir=collaborative, **resume)

    def embedded(self) -> bool:
        """Returns whether `embed` has ended since the dataset was prepared."""
        ended = [json.loads(line)["command"] for line in self.commands.read_text(encoding="utf-8").splitlines()]
        return [command for command in ended if command in ("prepare", "embed")][-1:] == ["embed"]

    def train(self, command: str, changes: dict, folder: Path, **options) -> None:
        """Runs a training, from its newest checkpoint if there is one."""
        if (folder / TRAININGS[command]).exists():
            return
        if any(folder.glob("checkpoint-*")):
            options["resume"] = True
        else:
            shutil.rmtree(folder, ignore_errors=True)
        self.run(command, changes, data=self.data, output_dir=folder, **options)

    def measure(self, variant: str, seed: int) -> None:
        """Trains and evaluates a variant; stages that it doesn't change are taken from the full recipe."""
        changes = self.variants[variant]
        own = self.output / f"seed-{seed}" / variant
        earlier, folder = None, self.output / f"seed-{seed}" / FULL
        for command in TRAININGS:
            changed = changes.get(command, None if command in ONLY_IF_NAMED else {})
            if changed is None:  # the variant ends before this command
                break
            folder = own if changed or folder == own or command in ONLY_IF_NAMED else folder
            options = {"seed": seed} if earlier is None else {"seed": seed, SOURCE[command]: earlier}
            if command == "grpo" and self.file("embed").exists():  # whose model gives rewards
                options["collaborative_model"] = self.output / "embed"
            self.train(command, changed, folder / command, **options)
            earlier = folder / command
        for table in self.tables:
            options, output = TABLES[table], own / f"{table}.json"
            if not output.exists():
                ranks = output.with_suffix(".parquet")
                changed = changes.get("evaluate", {})
                self.run("evaluate", changed | options, model=earlier, data=self.data, output=output, ranks=ranks)

    def table(self, variants: list[str], seeds: list[int]) -> None:
        """Compares the measured variants, and writes `results.json`."""
        results: dict = {"runs": {}, "tables": {}}
        for table in self.tables:
            files = {
                (name, seed): self.output / f"seed-{seed}" / name / f"{table}.json"
                for name in variants
                for seed in seeds
            }
            output = self.output / f"{table}.json"
            named = [f"{name}={file}" for (name, _), file in files.items()]
            compared = [sys.executable, "-m", "etegrec_hf", "compare", "--output", str(output), "--results", *named]
            subprocess.run(compared, check=True, env=self.environment)
            results["tables"][table] = json.loads(output.read_text(encoding="utf-8"))
            for (name, seed), file in files.items():
                of_run = results["runs"].setdefault(name, {}).setdefault(f"seed {seed}", {})
                of_run[table] = json.loads(file.read_text(encoding="utf-8"))
        lines = self.commands.read_text(encoding="utf-8").splitlines()
        results["commands"] = [json.loads(line) for line in lines]
        (self.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        spent = sum(command["seconds"] for command in results["commands"])
        print(f"{spent / 3600:.1f} hours of commands in all; everything is in {self.output / 'results.json'}")


SOURCE = {"train": "tokenizer", "finetune": "model", "grpo": "model"}  # the option for what was trained before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="folder of the recipe")
    parser.add_argument("--raw", type=Path, required=True, help="folder of the raw log")
    parser.add_argument("--output-dir", type=Path, required=True, help="where everything is written")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=[FULL], help="of variants.yaml, or all")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="that are measured")
    parser.add_argument("--jobs", type=int, default=2, help="random seeds that are trained at the same time")
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    recipe = Recipe(arguments.recipe, arguments.raw, arguments.output_dir, threads, arguments.tables)
    variants = list(recipe.variants) if arguments.variants == ["all"] else arguments.variants
    unknown = sorted(set(variants) - set(recipe.variants))
    if unknown:
        parser.error(f"no variant {unknown[0]!r}; variants.yaml has {', '.join(recipe.variants)}")
    recipe.prepare()

    def measure_all(seed: int) -> None:
        for variant in variants:
            recipe.measure(variant, seed)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(measure_all, arguments.seeds))
    recipe.table(variants, arguments.seeds)


if __name__ == "__main__":
    main()
