"""The reader of JSON lines with one interaction per line."""

from dataclasses import replace
from pathlib import Path

from .columns import check_named_columns, guess_columns, split_number
from .item_columns import ROWS_PER_ITEM, ItemValues
from .item_texts import add_texts, texts_reader
from .lines import json_lines, with_names
from .log_builder import LogBuilder, empty_log
from .source import ROW_ORDER, TEXT_FIELDS, Malformed, Source, SourceOptions, Texts


def read_jsonl(path: Path, options: SourceOptions) -> Source:
    """Reads a file with one JSON object or Python literal per line, packed or not, line by line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: too many malformed lines, or no interaction.
        ValueError: options that name fields which no line has.
        ValueError: ids of mixed types.
        ValueError: some lines have a `timestamp` and the first ones don't.
    """
    malformed = Malformed(path)
    names, entries = with_names(json_lines(path, malformed, literals=True))
    if not names:
        malformed.check(options.max_malformed)
        raise empty_log(path)
    named = (options.user_column, options.item_column, options.time_column, options.title_column)
    # fields that options name may only occur in later lines
    columns = guess_columns(list(dict.fromkeys([*names, *filter(None, named)])), path, options)
    fields = dict(zip(TEXT_FIELDS, TEXT_FIELDS)) | columns.texts
    fields = {field: name for field, name in fields.items() if field == "title" or name != fields["title"]}
    log = LogBuilder(path, malformed, columns.user, columns.item, columns.time or "")
    texts: Texts = {}
    used = [columns.user, columns.item, columns.time, columns.split, *fields.values()]
    values = ItemValues(filter(None, used))
    known: dict[str, None] = {}  # fields of all lines, as a line may leave some out
    for number, entry in entries:
        if not entry.keys() <= known.keys():
            known |= dict.fromkeys(entry)
            if "timestamp" in known and not log.time:
                raise ValueError(
                    f"line {number} of {path} has a `timestamp`, but earlier lines have none; give all lines one."
                )
        split = None
        if columns.split is not None:
            split = split_number(entry.get(columns.split), f"line {number} of {path}")
        if log.add(number, entry, split):
            item_id = str(entry[columns.item])
            add_texts(texts, item_id, entry, fields)
            values.add(item_id, entry)
    check_named_columns(list(known), path, options)
    malformed.check(options.max_malformed)
    interactions = log.build()
    item_columns = values.columns(interactions.item_ids.tolist(), ROWS_PER_ITEM)
    unused = [name for name in known if name not in used and name not in item_columns]
    columns = replace(columns, names=tuple(known))
    read_texts, items_file = texts_reader(texts, options, columns)
    return Source(
        interactions,
        read_texts,
        order=log.time or ROW_ORDER,
        malformed=[malformed],
        unused=unused,
        items_file=items_file,
        columns=columns,
        item_columns=item_columns,
    )
