"""JSON lines of one interaction each."""

from pathlib import Path

from .columns import check_columns, split_number, time_column
from .item_texts import add_texts, texts_reader
from .lines import json_lines
from .log_builder import LogBuilder, empty_log
from .source import ROW_ORDER, TEXT_FIELDS, Malformed, Source, SourceOptions, Texts


def read_jsonl(path: Path, options: SourceOptions) -> Source:
    """Reads one JSON object or Python literal per line, packed or not, never whole in memory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: too many malformed lines, fields that no line has, ids of mixed types.
    """
    malformed = Malformed(path)
    texts: Texts = {}
    fields = dict(zip(TEXT_FIELDS, TEXT_FIELDS)) | {"title": options.title_column}
    names: dict[str, None] = {}  # of all lines, as a line may leave a field out
    log = None
    for number, entry in json_lines(path, malformed, literals=True):
        if log is None:
            time = time_column(list(entry), options)
            log = LogBuilder(path, malformed, options.user_column, options.item_column, time or "")
        if not entry.keys() <= names.keys():
            names |= dict.fromkeys(entry)
            if "timestamp" in names and not log.time:
                raise ValueError(
                    f"line {number} of {path} has a `timestamp` and the first line none; give all lines one."
                )
        split = None
        if options.split_column is not None:
            split = split_number(entry.get(options.split_column), f"line {number} of {path}")
        if log.add(number, entry, split):
            add_texts(texts, str(entry[options.item_column]), entry, fields)
    if log is None:
        malformed.check(options.max_malformed)
        raise empty_log(path)
    check_columns(list(names), path, options)
    malformed.check(options.max_malformed)
    used = (*log.names, log.time, options.split_column, *fields.values())
    unused = [name for name in names if name not in used]
    read_texts, items_file = texts_reader(texts, options, names)
    order = log.time or ROW_ORDER
    return Source(log.build(), read_texts, order=order, malformed=[malformed], unused=unused, items_file=items_file)
