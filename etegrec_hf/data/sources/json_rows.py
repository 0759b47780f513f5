"""JSON lines of one interaction each."""

from functools import partial
from pathlib import Path

from .columns import check_columns, split_number, time_column
from .item_texts import read_item_texts
from .lines import LogBuilder, json_lines, text_of
from .source import ROW_ORDER, TEXT_FIELDS, Malformed, Source, SourceOptions, Texts


def read_jsonl(path: Path, options: SourceOptions) -> Source:
    """Reads one JSON object a line, plain or gzip, never whole in memory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: too many malformed lines, missing fields, ids of mixed types.
    """
    malformed = Malformed(path)
    entries = json_lines(path, malformed)
    first = next(entries, None)
    keys = [] if first is None else list(first[1])
    time = time_column(keys, path, options)
    check_columns(keys, path, options)
    log = LogBuilder(path, malformed, options.user_column, options.item_column, time or "")
    texts: Texts = {}
    fields = {name: name for name in TEXT_FIELDS} | {"title": options.title_column}
    for number, entry in [first] if first else []:
        _add(log, number, entry, options, texts, fields)
    for number, entry in entries:
        _add(log, number, entry, options, texts, fields)
    malformed.check(options.max_malformed)
    read_texts = partial(read_item_texts, texts, options)
    return Source(log.build(), read_texts, order=time or ROW_ORDER, malformed=[malformed])


def _add(log: LogBuilder, number: int, entry: dict, options: SourceOptions, texts: Texts, fields: dict) -> None:
    if not log.time and "timestamp" in entry:
        raise ValueError(f"line {number} of {log.path} has a `timestamp` and the first line none; give all lines one.")
    split = None
    if options.split_column is not None:
        split = split_number(entry.get(options.split_column), f"line {number} of {log.path}")
    log.add(number, entry, split)
    item_id = str(entry.get(options.item_column))
    if item_id not in texts:
        told = {name: text_of(entry[key]) for name, key in fields.items() if entry.get(key)}
        if told:
            texts[item_id] = told
