"""Files of every format, written by hand in their published layout, become prepared datasets."""

import bz2
import gzip
import json
import lzma
import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from etegrec_hf import read_histories
from etegrec_hf.cli.main import USER_ERRORS, main
from etegrec_hf.data.new_items import read_new_items
from etegrec_hf.data.prepare import prepare
from etegrec_hf.data.prepared import PreparedDataset, Split
from etegrec_hf.data.sources import READERS, SourceOptions, read_source
from etegrec_hf.data.sources.contents import contents_of
from etegrec_hf.data.sources.values import parse_time
from etegrec_hf.data.splits import SPLIT_NAMES
from etegrec_hf.data.text_embeddings import item_texts

NOTHING_LEFT_OUT = {"malformed_rows_left_out": 0, "malformed": []}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def rows_of(folder, split: str) -> list[tuple[str, list[str]]]:
    """User, and history followed by target, of each row."""
    data = PreparedDataset.load(folder)
    rows: Split = getattr(data, split)
    sequences = (rows.sequences[start:end] for start, end in zip(rows.offsets[:-1], rows.offsets[1:]))
    return [(user, [data.item_ids[i - 1] for i in items]) for user, items in zip(rows.user_ids, sequences)]


def read(path, format: str, output_dir, split: str = "leave-one-out", **wishes) -> tuple[dict, dict, dict]:
    """Statistics; each user's whole sequence; texts of each item, as they are in the prepared dataset."""
    options = wishes.pop("options", SourceOptions())
    statistics = prepare(path, output_dir, format, min_count=1, split=split, options=options, **wishes)
    items = pq.read_table(output_dir / "items/items.parquet").to_pylist()
    texts = {row.pop("item_id"): row for row in items}
    return statistics, dict(rows_of(output_dir, "test")), texts


def expect(statistics: dict, **expected) -> None:
    assert {name: statistics[name] for name in expected} == expected


def write(path: Path, content: str | bytes, packed: bool = False) -> Path:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def fails(path, format: str, folder, kind: type[Exception], match: str, **options) -> None:
    split = "given" if "split_column" in options else "leave-one-out"
    with pytest.raises(kind, match=match) as caught:
        prepare(path, folder / "never", format, min_count=1, split=split, options=SourceOptions(**options))
    assert isinstance(caught.value, USER_ERRORS)
    assert not (folder / "never").exists()


# ---- Amazon

REVIEWS_2014 = """\
{"reviewerID": "A2IBPI20UZIR0U", "asin": "1384719342", "reviewerName": "cassandra", "helpful": [0, 0], "reviewText": \
"Not much to write about here", "overall": 5.0, "summary": "good", "unixReviewTime": 1393545600, \
"reviewTime": "02 28, 2014"}
{"reviewerID": "A14VAT5EAX3D9S", "asin": "B00004Y2UT", "overall": 5.0, "unixReviewTime": 1363392000}
{"reviewerID": "A2IBPI20UZIR0U", "asin": "B0002E1G5C", "overall": 4.0, "unixReviewTime": 1377648000}
{"reviewerID": "A2IBPI20UZIR0U", "asin": "B00004Y2UT", "overall": 4.0, "unixReviewTime": 1393545600}
{"reviewerID": "A14VAT5EAX3D9S", "asin": "1384719342", "overall": 2.0, "unixReviewTime": 1363392001}
{"reviewerID": "A14VAT5EAX3D9S", "asin": "B0002E1G5C", "overall": 2.0, "unixReviewTime": 1363392002}
{"reviewerID": "A14VAT5EAX3D9S", "asin": "B0002E1G5C", "overall": 2.0, "unixReviewTime": 1363392002}
"""
METADATA_2014 = r"""{'asin': '1384719342', 'title': "Pop Filter, 6\" 'Studio'", 'price': 16.0, 'imUrl': 'http://x/1', \
'related': {'also_bought': ['B00004Y2UT']}, 'salesRank': {'Musical Instruments': 944}, 'brand': "", \
'categories': [['Musical Instruments', 'Microphones & Accessories'], ['Pop Filters']], \
'description': 'A {title} for\tyou'}
{'asin': 'B00004Y2UT', 'title': 'Monster Cable', 'brand': 'Monster', 'categories': [['Cables']]}
{'asin': 'B0009999ZZ', 'title': 'Nobody bought this'}
""".replace("\\\n", "")


@pytest.mark.parametrize("packed", [False, True])
def test_amazon_2014(tmp_path, packed):
    end = ".json.gz" if packed else ".json"
    write(tmp_path / f"reviews_Musical_Instruments_5{end}", REVIEWS_2014, packed)
    write(tmp_path / f"meta_Musical_Instruments{end}", METADATA_2014, packed)
    statistics, sequences, texts = read(tmp_path, "amazon2014", tmp_path / "data")
    assert sequences == {
        "A2IBPI20UZIR0U": ["B0002E1G5C", "1384719342", "B00004Y2UT"],
        "A14VAT5EAX3D9S": ["B00004Y2UT", "1384719342", "B0002E1G5C"],
    }
    assert list(texts) == ["1384719342", "B00004Y2UT", "B0002E1G5C"]
    assert texts["1384719342"] == {
        "title": "Pop Filter, 6\" 'Studio'",
        "description": "A {title} for\tyou",
        "brand": "",
        "categories": "Musical Instruments Microphones & Accessories Pop Filters",
    }
    assert texts["B00004Y2UT"] == {
        "title": "Monster Cable", "description": "", "brand": "Monster", "categories": "Cables",
    }  # fmt: skip
    assert set(texts["B0002E1G5C"].values()) == {""}
    expect(
        statistics, **NOTHING_LEFT_OUT, users=2, items=3, interactions=6, interactions_read=7, duplicates_dropped=1,
        items_without_title=1, items_without_texts=1, order="unixReviewTime", users_sorted_by_time=1,
    )  # fmt: skip


REVIEWS_2018 = """\
{"overall": 5.0, "verified": true, "reviewTime": "01 1, 2018", "reviewerID": "AXHY24HWOF184", "asin": "B001", \
"style": {"Format:": " Hardcover"}, "reviewerName": "Bendy", "reviewText": "ok", "unixReviewTime": 1514764800}
{"overall": 5.0, "reviewerID": "AXHY24HWOF184", "asin": "B002", "unixReviewTime": 1514764801, "image": ["http://x"]}
{"overall": 3.0, "reviewerID": "AXHY24HWOF184", "asin": "B003", "unixReviewTime": 1514764802}
"""
METADATA_2018 = [
    {"category": ["Office Products", "Pens &amp; Refills"], "description": ["First part.", "", "<p>Second"],
     "title": "Blue &quot;pen&quot;", "brand": "Bic", "feature": ["blue"], "asin": "B001", "price": ".a-box-inner{}"},
    {"category": [], "description": [], "brand": "", "asin": "B002",
     "title": "<span class=\"a\">var aPageStart = (new Date()).getTime(); {{7*7}}</span>"},
    {"title": "second entry", "brand": "told later", "asin": "B002"},
    {"title": "cut emoji \ud83d", "asin": "B003", "description": {"no": "text"}},
]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_amazon_2018(tmp_path, packed):
    end = ".json.gz" if packed else ".json"
    reviews = write(tmp_path / f"Office_Products_5{end}", REVIEWS_2018, packed)
    write(tmp_path / f"meta_Office_Products{end}", "\n".join(map(json.dumps, METADATA_2018)), packed)
    statistics, sequences, texts = read(reviews, "amazon2018", tmp_path / "data")
    assert sequences == {"AXHY24HWOF184": ["B001", "B002", "B003"]}
    assert texts["B001"] == {
        "title": "Blue &quot;pen&quot;",
        "description": "First part. <p>Second",
        "brand": "Bic",
        "categories": "Office Products Pens &amp; Refills",
    }
    assert texts["B002"]["title"] == METADATA_2018[1]["title"], "text is data and stays as it is"
    assert texts["B002"]["brand"] == "told later"
    assert texts["B003"] == {"title": "cut emoji ?", "description": "", "brand": "", "categories": ""}
    expect(statistics, **NOTHING_LEFT_OUT, users=1, items=3, items_without_title=0, items_without_texts=0)


REVIEWS_2023 = """\
{"rating": 5.0, "title": "of the review", "text": "x", "images": [], "asin": "BLUE", "parent_asin": "PENS", \
"user_id": "AGBFY", "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}
{"rating": 1.0, "asin": "RED", "parent_asin": "PENS", "user_id": "AGBFY", "timestamp": 1588687728922}
{"rating": 1.0, "asin": "B3", "parent_asin": "INK", "user_id": "AGBFY", "timestamp": 1588687728921}
"""
METADATA_2023 = """\
{"main_category": "Office Products", "title": "Pens", "average_rating": 4.5, "features": ["f"], "description": \
["Writes.", "Well."], "price": null, "images": [], "videos": [], "store": "Bic", "categories": ["Office", "Pens"], \
"details": {"Brand": "other"}, "parent_asin": "PENS", "bought_together": null}
{"title": "", "store": null, "description": [], "categories": [], "parent_asin": "INK"}
"""


@pytest.mark.parametrize("packed", [False, True])
def test_amazon_2023_goes_by_the_parent_product_and_by_milliseconds(tmp_path, packed):
    end = ".jsonl.gz" if packed else ".jsonl"
    write(tmp_path / f"Office_Products{end}", REVIEWS_2023, packed)
    write(tmp_path / f"meta_Office_Products{end}", METADATA_2023, packed)
    statistics, sequences, texts = read(tmp_path, "amazon2023", tmp_path / "data")
    assert sequences == {"AGBFY": ["INK", "PENS", "PENS"]}
    assert texts["PENS"] == {
        "title": "Pens", "description": "Writes. Well.", "brand": "Bic", "categories": "Office Pens",
    }  # fmt: skip
    expect(statistics, items=2, items_without_title=1, items_without_texts=1, order="timestamp")


def test_amazon_metadata_is_optional_and_can_lie_elsewhere(tmp_path):
    reviews = write(tmp_path / "mine.json", REVIEWS_2018)
    assert read(reviews, "amazon2018", tmp_path / "data")[2] == {"B001": {}, "B002": {}, "B003": {}}
    (tmp_path / "elsewhere").mkdir()
    metadata = write(tmp_path / "elsewhere/texts", "\n".join(map(json.dumps, METADATA_2018)))
    texts = read(reviews, "amazon2018", tmp_path / "again", options=SourceOptions(items=str(metadata)))[2]
    assert texts["B001"]["brand"] == "Bic"


def test_metadata_is_never_evaluated(tmp_path):
    touched = tmp_path / "touched"
    lines = [
        f"{{'asin': 'B001', 'title': __import__('pathlib').Path({str(touched)!r}).touch()}}",
        f"{{'asin': 'B001', 'title': open({str(touched)!r}, 'w')}}",
        "{'asin': 'B001', [1]: 2}",
        "(" * 500 + ")" * 500,
        "{'asin': 'B001', 'title': \"__import__('os').system('x') {asin} {{1+1}}\"}",
    ]
    reviews = write(tmp_path / "Pens.json", REVIEWS_2018)
    write(tmp_path / "meta_Pens.json", "\n".join(lines))
    fails(
        tmp_path / "Pens.json", "amazon2014", tmp_path, ValueError, r"4 malformed lines in .*meta_Pens.json \(line 1"
    )
    statistics, _, texts = read(reviews, "amazon2014", tmp_path / "data", options=SourceOptions(max_malformed=0.8))
    assert texts["B001"] == {"title": "__import__('os').system('x') {asin} {{1+1}}"}
    assert not touched.exists()
    expect(statistics, malformed_rows_left_out=4)
    # the other editions have JSON alone
    fails(reviews, "amazon2018", tmp_path, ValueError, "5 malformed lines in .*meta_Pens.json", max_malformed=0.9)


def test_the_wrong_amazon_edition_is_an_error(tmp_path):
    reviews = write(tmp_path / "Pens.json", REVIEWS_2018)
    fails(reviews, "amazon2023", tmp_path, ValueError, r"3 malformed lines .*line 1: 'user_id' is .* check --format")
    metadata = write(tmp_path / "meta_Pens.json", METADATA_2023)
    fails(
        reviews, "amazon2018", tmp_path, ValueError, r"2 malformed lines in .*meta_Pens.json \(line 1: 'asin' is empty"
    )
    fails(metadata, "amazon2023", tmp_path, ValueError, "'user_id' is empty or missing")


def test_a_folder_with_several_reviews_is_an_error(tmp_path):
    for name in ("Pens.json", "Ink.jsonl.gz", "notes.txt"):
        write(tmp_path / name, REVIEWS_2018)
    fails(tmp_path, "amazon2018", tmp_path, FileNotFoundError, "holds 2 files of reviews .* give the path of one")


# ---- MovieLens


def test_movielens_100k(tmp_path):
    write(
        tmp_path / "u.data",
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t1\t881250948\n196\t1\t4\t881250950\n",
    )
    flags = {"1": [3, 4, 5], "242": [5], "302": [0]}
    titles = {"1": "Toy Story (1995)", "242": "Kolya (1996)", "302": "Misérables, Les (1995)"}
    lines = [
        f"{item}|{titles[item]}|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story|"
        + "|".join(str(int(genre in flags[item])) for genre in range(19))
        for item in titles
    ]
    write(tmp_path / "u.item", "\n".join(lines).encode("latin-1"))
    statistics, sequences, texts = read(tmp_path, "movielens", tmp_path / "data")
    assert sequences == {"196": ["302", "242", "1"]}
    assert texts == {
        "242": {"title": "Kolya (1996)", "categories": "Comedy"},
        "302": {"title": "Misérables, Les (1995)", "categories": "unknown"},
        "1": {"title": "Toy Story (1995)", "categories": "Animation Children's Comedy"},
    }
    expect(statistics, **NOTHING_LEFT_OUT, users_read=2, users=1, users_sorted_by_time=1, order="timestamp")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])  # the 10M set has the same layout in UTF-8
def test_movielens_1m(tmp_path, encoding):
    write(tmp_path / "ratings.dat", "1::1193::5::978300760\n1::661::3::978302109\n1::914::3.5::978301968\n")
    movies = "661::James: a & b::Animation|Children's\n914::Café (1964)::Musical\n1193::Cuckoo (1975)::Drama\n"
    write(tmp_path / "movies.dat", movies.encode(encoding))
    statistics, sequences, texts = read(tmp_path, "movielens", tmp_path / "data")
    assert sequences == {"1": ["1193", "914", "661"]}
    assert texts == {
        "1193": {"title": "Cuckoo (1975)", "categories": "Drama"},
        "661": {"title": "James: a & b", "categories": "Animation Children's"},
        "914": {"title": "Café (1964)", "categories": "Musical"},
    }
    expect(statistics, **NOTHING_LEFT_OUT, users=1, items=3, items_without_title=0)


def test_movielens_32m(tmp_path):
    write(
        tmp_path / "ratings.csv",
        "userId,movieId,rating,timestamp\n1,11,4.0,944249077\n1,4,4.0,944250228\n1,7,0.5,944249076\n",
    )
    write(tmp_path / "tags.csv", "userId,movieId,tag,timestamp\n")
    write(
        tmp_path / "movies.csv",
        'movieId,title,genres\n11,"American President, The (1995)",Comedy|Drama\n'
        '4,"Say ""Aaah"", été",(no genres listed)\n7,Sabrina (1995),Comedy\n',
    )
    statistics, sequences, texts = read(tmp_path, "movielens", tmp_path / "data")
    assert sequences == {"1": ["7", "11", "4"]}
    assert texts == {
        "11": {"title": "American President, The (1995)", "categories": "Comedy Drama"},
        "4": {"title": 'Say "Aaah", été', "categories": ""},
        "7": {"title": "Sabrina (1995)", "categories": "Comedy"},
    }
    expect(statistics, **NOTHING_LEFT_OUT, interactions=3, items_without_title=0, order="timestamp")


def test_movies_with_long_titles_and_broken_rows(tmp_path):
    write(
        tmp_path / "ratings.csv",
        "userId,movieId,rating,timestamp\n" + "".join(f"1,{item},4.0,{item}\n" for item in range(1, 4)),
    )
    title = "x" * 200_000  # longer than Python's csv module takes
    write(tmp_path / "movies.csv", f'movieId,title,genres\n1,"{title}",Drama\n2,A\n,B,Drama\n3,C,Drama\n')
    statistics, _, texts = read(tmp_path, "movielens", tmp_path / "data", options=SourceOptions(max_malformed=0.5))
    assert [text["title"] for text in texts.values()] == [title, "", "C"]
    path = tmp_path / "movies.csv"
    reasons = "(row 2: 2 cells instead of 3; row 3: 'item' is empty or missing)"
    assert statistics["malformed"] == [f"2 malformed rows in {path} {reasons}"]
    write(path, 'movieId,title,genres\n1,A,Drama\n2,"Movie (1995),Drama\n' + "3,Movie,Drama\n" * 20_000)
    fails(tmp_path, "movielens", tmp_path, ValueError, "a quote that opens in row 2 of .*movies.csv is never closed")
    write(path, "movieId,title\n1,A\n")
    fails(tmp_path, "movielens", tmp_path, ValueError, "movies.csv has the columns .* needs three: ids, titles and")


def test_malformed_lines_of_movielens_are_told_with_their_numbers(tmp_path):
    write(tmp_path / "ratings.dat", "1::a::5::1\n1::b::5\n\n1::b::5::2\n1::c::5::soon\n1::c::5::3\n::d::1::4\n")
    write(tmp_path / "movies.dat", "a::A::Drama\nb::B\n")
    fails(
        tmp_path, "movielens", tmp_path, ValueError,
        r"3 malformed lines in .*ratings.dat \(line 2: 3 fields instead of 4, separated by '::'; line 5: 'timestamp' "
        r"is 'soon', neither a number nor a date like 2020-09-05; line 7: 'user' is empty or missing\), that is "
        "50.00% of all",
    )  # fmt: skip
    statistics, sequences, texts = read(
        tmp_path, "movielens", tmp_path / "data", options=SourceOptions(max_malformed=0.5)
    )
    assert sequences == {"1": ["a", "b", "c"]}
    assert texts["b"] == {"title": "", "categories": ""}
    expect(statistics, malformed_rows_left_out=4, items_without_title=2, items_without_texts=2)
    assert ["ratings.dat" in statistics["malformed"][0], "movies.dat (line 2" in statistics["malformed"][1]] == [
        True
    ] * 2


# ---- RecBole


def test_recbole(tmp_path):
    write(
        tmp_path / "tiny.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "u1\ti 3\t5.0\t978302109.0\nu1\ti1\t1\t978302108.5\nu1\t007\t1\t978302110\n",
    )
    write(
        tmp_path / "tiny.item",
        "item_id:token\ttitle:token_seq\tcategories:token_seq\tbrand:token\tprice:float\n"
        'i1\t"Quoted" 12" LP, live\tRock Pop\tEMI\t1.5\ni 3\t"open quote\t\t\t\n007\tBond\tFilm\t\t2\n',
    )
    statistics, sequences, texts = read(tmp_path, "recbole", tmp_path / "data")
    assert sequences == {"u1": ["i1", "i 3", "007"]}
    assert texts == {
        "i 3": {"title": '"open quote', "brand": "", "categories": "", "price": None},
        "i1": {"title": '"Quoted" 12" LP, live', "brand": "EMI", "categories": "Rock Pop", "price": 1.5},
        "007": {"title": "Bond", "brand": "", "categories": "Film", "price": 2.0},
    }
    expect(statistics, **NOTHING_LEFT_OUT, items=3, order="timestamp")
    write(tmp_path / "other.inter", "user_id:token\titem_id:token\n")
    fails(tmp_path, "recbole", tmp_path, FileNotFoundError, "holds 2 files NAME.inter; give the path")


def test_recbole_knows_the_columns_of_movielens_and_of_given_splits(tmp_path):
    write(
        tmp_path / "ml.inter",
        "user_id:token\titem_id:token\tsplit:token\nu\ta\ttrain\nu\tb\ttrain\nu\tc\tvalid\nu\td\ttest\n",
    )
    write(
        tmp_path / "ml.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq\na\tHeat\t1995\tCrime\n",
    )
    given = SourceOptions(split_column="split")
    _, sequences, texts = read(tmp_path / "ml.inter", "recbole", tmp_path / "data", split="given", options=given)
    assert sequences == {"u": ["a", "b", "c", "d"]}
    assert rows_of(tmp_path / "data", "validation") == [("u", ["a", "b", "c"])]
    assert rows_of(tmp_path / "data", "train") == [("u", ["a", "b"])]
    assert texts["a"] == {"title": "Heat", "categories": "Crime"}


def test_recbole_columns_without_a_type_keep_their_names(tmp_path):
    path = write(tmp_path / "t.inter", "user_id:token\titem_id:token\tnote\nu\ta\tx\nu\tb\tx\nu\tc\tx\n")
    statistics, sequences, _ = read(path, "recbole", tmp_path / "data")
    assert sequences == {"u": ["a", "b", "c"]}
    expect(statistics, columns_of_log_not_used="note")


def test_recbole_files_of_each_split_are_refused_with_a_remedy(tmp_path):
    for split in ("train", "valid", "test"):
        write(tmp_path / f"t.{split}.inter", "user_id:token\titem_id:token\nu\ta\n")
    message = "holds t.test.inter, t.train.inter, t.valid.inter; join them into one file .* --split-column"
    fails(tmp_path, "recbole", tmp_path, ValueError, message)


# ---- LETTER and ETEGRec


def test_letter(tmp_path):
    write(tmp_path / "Tiny.inter.json", json.dumps({"0": [4, 0, 2], "1": [2, 10, 4, 0]}))
    write(
        tmp_path / "Tiny.item.json",
        json.dumps(
            {
                "4": {"title": "Four", "description": "<b>4</b>", "brand": "B", "categories": "a,b"},
                "10": {"title": "x"},
            }
        ),
    )
    statistics, sequences, texts = read(tmp_path / "Tiny.inter.json", "letter", tmp_path / "data")
    assert sequences == {"0": ["4", "0", "2"], "1": ["2", "10", "4", "0"]}
    assert list(texts) == ["0", "2", "4", "10"]
    assert texts["4"] == {"title": "Four", "description": "<b>4</b>", "brand": "B", "categories": "a,b"}
    expect(statistics, users=2, items=4, items_without_title=2, items_without_texts=2, order="rows of the file")


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ({"1": [1, "2", 3]}, "names items as int, str; write all of them as numbers, or all as text"),
        (
            {"1": [1.0, 2.0]},
            r"'item' is 1.0, neither text nor a whole number in the history of user '1' in .*inter.json",
        ),
        ({"1": [True]}, "'item' is True, neither"),
        ({"1": ["a", ""]}, "'item' is empty or missing in the history of user '1'"),
        ({"1": ["a", None]}, "'item' is empty or missing"),
        ({"": ["a", "b"]}, "'user' is empty or missing in the history of user ''"),
        ({"1": 5}, r"user '1' in .* has 5; expected a list of item numbers"),
        ({"1": []}, r"the log is empty: .*inter.json holds no interaction; check the path and --format"),
        ([1], "holds a list; expected a JSON object"),
    ],
)
def test_broken_histories_of_a_letter_file_are_an_error(tmp_path, histories, message):
    write(tmp_path / "Tiny.inter.json", json.dumps(histories))
    fails(tmp_path, "letter", tmp_path, ValueError, message)


@pytest.mark.parametrize("texts", ["A title", None, ["A title"]])
def test_texts_of_a_letter_file_that_are_no_object_are_an_error(tmp_path, texts):
    write(tmp_path / "Tiny.inter.json", '{"0": [1, 2, 3]}')
    write(tmp_path / "Tiny.item.json", json.dumps({"1": {"title": "A"}, "2": texts}))
    fails(tmp_path, "letter", tmp_path, ValueError, r"item '2' in .*Tiny.item.json has .*; expected texts like \{")


@pytest.mark.parametrize("split", ["leave-one-out", "ratio"])
@pytest.mark.parametrize("empty", [1, 3])  # in the middle, and last
def test_users_of_a_letter_file_without_items_are_dropped_and_counted(tmp_path, split, empty):
    users = [("1", [11, 12, 13]), ("3", [11, 12, 13]), ("4", [13, 12, 11])]
    users.insert(empty, ("2", []))
    write(tmp_path / "Tiny.inter.json", json.dumps(dict(users)))
    statistics, sequences, _ = read(tmp_path, "letter", tmp_path / "data", split=split)
    assert sequences == {"1": ["11", "12", "13"], "3": ["11", "12", "13"], "4": ["13", "12", "11"]}
    assert rows_of(tmp_path / "data", "train") == [("1", ["11"]), ("3", ["11"]), ("4", ["13"])]
    expect(
        statistics, users_read=4, users=3, users_below_3_interactions_dropped=1, users_below_min_count_dropped=0,
        train_rows=3,
    )  # fmt: skip


BIG = [3, 2**63 + 1, 2**63 + 2, 5]  # numpy makes floats of them, in which two are one


@pytest.mark.parametrize("format", ["letter", "jsonl", "csv", "hub", "etegrec"])
def test_large_whole_numbers_stay_as_they_are_written(tmp_path, format):
    folder = tmp_path / "log"
    folder.mkdir()
    items, path = BIG, folder
    if format == "letter":
        write(folder / "Tiny.inter.json", json.dumps({"1": items}))
    elif format == "etegrec":
        for kind, end in (("train", 2), ("valid", 3), ("test", 4)):
            write(folder / f"Tiny.{kind}.jsonl", line_of(1, items[: end - 1], items[end - 1]))
        write(folder / "Tiny.emb_map.json", json.dumps({item: row for row, item in enumerate(items, start=1)}))
    elif format == "jsonl":
        path = write(folder / "log.jsonl", "\n".join(json.dumps({"user_id": 1, "item_id": item}) for item in items))
    else:
        write(folder / "log.csv", "user_id,item_id\n" + "\n".join(f"1,{item}" for item in items))
        path = folder if format == "hub" else folder / "log.csv"
    assert read(path, format, tmp_path / "data")[1] == {"1": [str(item) for item in items]}


@pytest.mark.parametrize("name", ["inter", "item", "index"])
def test_a_key_that_is_twice_in_a_letter_file_is_an_error(tmp_path, name):
    write(tmp_path / "Tiny.inter.json", '{"1": [1, 2, 3]}')
    write(tmp_path / f"Tiny.{name}.json", '{"1": ["<a_1>"], "2": ["<a_2>"], "1": ["<a_3>"]}')
    message = rf"Tiny.{name}.json has the key '1' 2 times; keep one entry per key"
    fails(tmp_path, "letter", tmp_path, ValueError, message)


def line_of(user, history, target) -> str:
    return json.dumps({"user_id": user, "inter_history": history, "target_id": target})


def etegrec_folder(folder: Path, padding: bool, max_history: int = 2) -> Path:
    """Two users, in the layout of the original code: a line a prefix, histories cut to their last items."""
    folder.mkdir()
    sequences = {"A1": ["b", "a", "c", "a", "d"], "A2": ["c", "d", "a"]}
    lines: dict[str, list] = {"train": [], "valid": [], "test": []}
    for user, items in sequences.items():
        for position in range(1, len(items)):
            kind = {len(items) - 1: "test", len(items) - 2: "valid"}.get(position, "train")
            history = items[max(0, position - max_history) : position]
            lines[kind].append(line_of(user, history, items[position]) + "\n")
    for kind, entries in lines.items():
        write(folder / f"Tiny.{kind}.jsonl", "".join(entries))
    row_of = {"a": 3, "b": 1, "c": 4, "d": 2}
    write(folder / "Tiny.emb_map.json", json.dumps(({"[PAD]": 0} if padding else {}) | row_of))
    np.save(folder / "padded.npy", np.arange(5, dtype=np.float32).reshape(5, 1))
    np.save(folder / "bare.npy", np.arange(1, 5, dtype=np.float32).reshape(4, 1))
    return folder


@pytest.mark.parametrize("array", ["padded", "bare"])
@pytest.mark.parametrize("padding", [False, True])
def test_the_original_etegrec(tmp_path, padding, array):
    folder = etegrec_folder(tmp_path / "Tiny", padding)
    statistics, sequences, texts = read(
        folder, "etegrec", tmp_path / "data", split="given", embedding=str(folder / f"{array}.npy")
    )
    assert sequences == {"A1": ["b", "a", "c", "a", "d"], "A2": ["c", "d", "a"]}
    assert rows_of(tmp_path / "data", "train") == [("A1", ["b", "a", "c"]), ("A2", ["c"])]
    assert rows_of(tmp_path / "data", "validation") == [("A1", ["b", "a", "c", "a"]), ("A2", ["c", "d"])]
    data = PreparedDataset.load(tmp_path / "data")
    assert dict(zip(data.item_ids, data.embeddings.ravel())) == {"a": 3, "b": 1, "c": 4, "d": 2}
    expect(statistics, users=2, items=4, interactions=8, order="rows of the file", items_without_texts=4)
    assert set(texts) == {"a", "b", "c", "d"}


def test_splits_of_etegrec_are_those_of_its_files(tmp_path):
    folder = etegrec_folder(tmp_path / "Tiny", padding=True)
    prepare(folder, tmp_path / "given", "etegrec", min_count=1, split="given")
    prepare(folder, tmp_path / "last", "etegrec", min_count=1, split="leave-one-out")
    for split in SPLIT_NAMES:
        assert rows_of(tmp_path / "given", split) == rows_of(tmp_path / "last", split)


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("emb_map.json", None, FileNotFoundError, "emb_map.json' isn't a file; check the path"),
        ("valid.jsonl", None, FileNotFoundError, "Tiny.valid.jsonl' isn't a file"),
        ("train.jsonl", None, FileNotFoundError, "holds 0 files NAME.train.jsonl; give a folder with one"),
        ("emb_map.json", "[1]", ValueError, "emb_map.json holds a list; expected a JSON object"),
        ("emb_map.json", '{"a": 1', ValueError, "emb_map.json isn't JSON"),
        ("emb_map.json", '{"a": 1, "b": 2, "a": 3}', ValueError, "emb_map.json has the key 'a' 2 times; keep one"),
        ("emb_map.json", '{"a": "1"}', ValueError, "gives item 'a' the row '1', which isn't a whole number"),
        (
            "emb_map.json",
            '{"a": 1, "b": 2}',
            ValueError,
            "2 items are not in .*emb_map.json, first 'c'; use this data set's map",
        ),
        ("emb_map.json", '{"a": 1, "b": 2, "c": 0, "d": 3}', ValueError, "gives item 'c' the row 0; rows of items"),
        ("emb_map.json", '{"a": 1, "b": 2, "c": 3, "d": 3}', ValueError, "gives several items the same row"),
        ("test.jsonl", "{}", ValueError, r"1 malformed line in .*Tiny.test.jsonl \(line 1: 'inter_history' is None"),
        (
            "test.jsonl",
            "user,item\n",
            ValueError,
            r"line 1: JSONDecodeError.*\); a user's sequence is put together from all its",
        ),
        ("test.jsonl", line_of([1], ["a"], "a"), ValueError, r"'user_id' is \[1\], neither text nor a whole number"),
        ("test.jsonl", line_of("A1", ["a"], 1.5), ValueError, "'target_id' is 1.5, neither"),
        ("test.jsonl", line_of("A1", [{}], "a"), ValueError, "'inter_history' is {}, neither"),
        (
            "test.jsonl",
            "\n" + line_of("A1", ["d"], "a"),
            ValueError,
            "line 2 of .*Tiny.test.jsonl: its history isn't",
        ),
        ("test.jsonl", line_of("A1", [], "a"), ValueError, "its history isn't the end of the sequence of user 'A1'"),
        (
            "test.jsonl",
            line_of(7, ["a"], "a"),
            ValueError,
            "'user_id' in line 1 of .*Tiny.test.jsonl is 7, .* as text",
        ),
        (
            "test.jsonl",
            line_of("A1", ["c", "a"], 7),
            ValueError,
            "'target_id' in line 1 of .*Tiny.test.jsonl is 7, but text and numbers",
        ),
    ],
)
def test_broken_files_of_etegrec_are_an_error(tmp_path, name, content, kind, message):
    folder = etegrec_folder(tmp_path / "Tiny", padding=True)
    (folder / f"Tiny.{name}").unlink()
    if content is not None:
        write(folder / f"Tiny.{name}", content)
    fails(folder, "etegrec", tmp_path, kind, message)


# ---- Tables

COLUMNS = {"who": ["u", "u", "u", "v"], "what": [3, 1, 2, 1], "when": [30, 10, 20, 5], "label": ["C", None, "B", "A"],
           "description": [["long", "text"], [], None, ["of one"]]}  # fmt: skip
NAMED = SourceOptions("who", "what", "when", "label")
EXPECTED = ({"u": ["1", "2", "3"]}, {"1": ("A", "of one"), "2": ("B", ""), "3": ("C", "long text")})


def write_table(folder: Path, kind: str, packed: bool = False) -> Path:
    table = pa.table(COLUMNS)
    end = f".{kind}.gz" if packed else f".{kind}"
    if kind == "parquet":
        pq.write_table(table, folder / f"log{end}", row_group_size=1, compression="gzip" if packed else "snappy")
        return folder / f"log{end}"
    if kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    else:
        text = "who,what,when,label,description\n" + "".join(
            ",".join(("" if cell is None else " ".join(cell) if isinstance(cell, list) else str(cell)) for cell in row)
            + "\n"
            for row in zip(*COLUMNS.values())
        )
    return write(folder / f"log{end}", text, packed)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_with_texts_of_their_own(tmp_path, kind, packed):
    statistics, sequences, texts = read(write_table(tmp_path, kind, packed), kind, tmp_path / "data", options=NAMED)
    told = {item_id: (row["title"], row["description"]) for item_id, row in texts.items()}
    assert (sequences, told) == EXPECTED
    expect(statistics, **NOTHING_LEFT_OUT, users_read=2, users=1, items=3, interactions_read=4, order="when")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_datasets_opens(tmp_path, kind):
    (tmp_path / "mine").mkdir()
    write_table(tmp_path / "mine", kind)
    statistics, sequences, texts = read(tmp_path / "mine", "hub", tmp_path / "data", options=NAMED)
    told = {item_id: (row["title"], row["description"]) for item_id, row in texts.items()}
    assert (sequences, told) == EXPECTED
    expect(statistics, **NOTHING_LEFT_OUT, order="when", source="mine", format="hub")


def test_ids_of_a_csv_on_the_hub_stay_as_they_are_written(tmp_path):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine/a.csv", "user_id,item_id\n01,007\n01,7\n01,7.0\n01,\n")
    statistics, sequences, _ = read(
        tmp_path / "mine", "hub", tmp_path / "data", options=SourceOptions(max_malformed=0.3)
    )
    assert sequences == {"01": ["007", "7", "7.0"]}
    expect(statistics, malformed_rows_left_out=1)


@pytest.mark.parametrize("kind", ["saved", "saved with splits", "parquet"])
def test_classes_of_a_hub_data_set_are_called_by_their_names(tmp_path, kind):
    names = ClassLabel(names=["x", "y", "z"])
    features = Features({"user_id": Value("string"), "item_id": names, "title": names})
    rows = {"user_id": ["u"] * 4, "item_id": [2, 0, 1, -1], "title": [0, 1, None, -1]}  # -1 is no class
    data = Dataset.from_dict(rows, features)
    folder = tmp_path / "mine"
    if kind == "parquet":
        folder.mkdir()
        data.to_parquet(folder / "train.parquet")
    elif kind == "saved":
        data.save_to_disk(str(folder))
    else:
        DatasetDict({"train": data}).save_to_disk(str(folder))
        fails(folder, "hub", tmp_path, FileNotFoundError, "there is no data set .*mine'.*test", hub_split="test")
    options = SourceOptions(max_malformed=0.25)
    statistics, sequences, texts = read(folder, "hub", tmp_path / "data", options=options)
    assert sequences == {"u": ["z", "x", "y"]}
    assert "(row 4: 'item_id' is empty or missing)" in statistics["malformed"][0]
    assert {item_id: text["title"] for item_id, text in texts.items()} == {"z": "x", "x": "y", "y": ""}


@pytest.mark.parametrize(
    ("splits", "options"), [(False, {"hub_split": "test"}), (False, {"hub_config": "x"}), (True, {"hub_config": "x"})]
)
def test_options_that_mean_nothing_to_a_saved_data_set_are_an_error(tmp_path, splits, options):
    data = Dataset.from_dict({"user_id": ["u"] * 3, "item_id": ["x", "y", "z"]})
    (DatasetDict({"train": data}) if splits else data).save_to_disk(str(tmp_path / "mine"))
    ((name, value),) = options.items()
    message = f"`{name}` is '{value}', but has no effect on '.*mine', which `save_to_disk` wrote; leave it out"
    fails(tmp_path / "mine", "hub", tmp_path, ValueError, rf"^{message}", **options)


def test_a_hub_configuration_and_split_can_be_named(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder / "a.csv", "user_id,item_id\nu,x\nu,y\nu,z\n")
    write(folder / "b.csv", "user_id,item_id\nu,z\nu,y\nu,x\n")
    write(
        folder / "README.md",
        "---\nconfigs:\n- config_name: one\n  data_files: a.csv\n- config_name: two\n  data_files:\n  - split: log\n"
        "    path: b.csv\n---\n",
    )
    monkeypatch.chdir(tmp_path)
    options = SourceOptions(hub_config="two", hub_split="log")
    assert read("mine", "hub", tmp_path / "data", options=options)[1] == {"u": ["z", "y", "x"]}
    fails("mine", "hub", tmp_path, ValueError, "the data set 'mine' can't be opened: Config name is missing")
    fails(
        "mine",
        "hub",
        tmp_path,
        ValueError,
        "'mine' .*: BuilderConfig 'three' not found.*--hub-config",
        hub_config="three",
    )
    fails(
        "mine",
        "hub",
        tmp_path,
        ValueError,
        "'mine' can't be opened: Unknown split",
        hub_config="one",
        hub_split="tset",
    )


def test_a_broken_hub_data_set_is_an_error(tmp_path):
    for name, files in {
        "unlike": {"a.csv": "user_id,item_id\nu,x\n", "b.csv": "user,item\nu,x\n"},
        "bytes": {"a.csv": b"user_id,item_id\nu,\xff\n"},
        "junk": {"a.parquet": "junk"},
    }.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            write(tmp_path / name / file, content)
        fails(
            tmp_path / name, "hub", tmp_path, ValueError, f"the data set '.*{name}' can't be opened: .*check its files"
        )
    (tmp_path / "empty").mkdir()
    fails(
        tmp_path / "empty", "hub", tmp_path, FileNotFoundError, "there is no data set '.*empty': .*; check the folder"
    )
    fails(
        "me/nothing",
        "hub",
        tmp_path,
        ConnectionError,
        "'me/nothing' isn't a local folder and can't be loaded from the Hub",
    )
    fails(tmp_path / "bytes/a.csv", "hub", tmp_path, ValueError, "a.csv' is a file; give its folder, or read it with")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "jsonl.gz", "csv.gz", "parquet", "json"])
def test_texts_from_a_file_of_their_own_come_before_those_of_the_log(tmp_path, kind):
    log = write(tmp_path / "log.csv", "user_id,item_id,title,brand\nu,1,old,X\nu,2,kept,\nu,3,,\n")
    rows = [
        {"item_id": "1", "title": "new", "categories": "a"},
        {"item_id": "2", "title": "", "categories": ""},
        {"item_id": "9", "title": "not asked for", "categories": "b"},
    ]
    path = tmp_path / f"items.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows).append_column("wide", pa.array([[1.0]] * 3)), path)
    elif "json" in kind:
        write(path, "\n".join(map(json.dumps, rows)), packed=kind.endswith("gz"))
    else:
        separator = "\t" if kind == "tsv" else ","
        lines = [separator.join(rows[0]), *(separator.join(row.values()) for row in rows)]
        write(path, "\n".join(lines), packed=kind.endswith("gz"))
    statistics, _, texts = read(log, "csv", tmp_path / "data", options=SourceOptions(items=str(path)))
    assert texts == {
        "1": {"title": "new", "brand": "X", "categories": "a"},
        "2": {"title": "kept", "brand": "", "categories": ""},
        "3": {"title": "", "brand": "", "categories": ""},
    }
    expect(statistics, **NOTHING_LEFT_OUT, items_without_title=1, items_without_texts=1)


def test_wrong_files_of_texts_are_an_error(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id\nu,1\nu,2\nu,3\n")
    for name, content, kind, message in (
        (
            "none.csv",
            None,
            FileNotFoundError,
            "`items` '.*none.csv' isn't a file; name the file with the items' texts",
        ),
        ("x.xml", "<a/>", ValueError, "`items` '.*x.xml' isn't a .csv, .tsv, .item, .jsonl or .parquet file; convert"),
        (
            "x.csv",
            "number,title\n1,a\n",
            ValueError,
            r"x.csv has no column 'item_id', only \['number', 'title'\]; rename the column of ids as in",
        ),
        (
            "x.jsonl",
            '{"number": "1"}',
            ValueError,
            r"x.jsonl has no column 'item_id', only \['number'\]; rename the column of ids as in",
        ),
        ("x.parquet", "junk", ValueError, "x.parquet can't be read as parquet"),
        (
            "y.csv",
            "item_id,title\n1,a\n2\n",
            ValueError,
            r"1 malformed row in .*y.csv \(row 2: 1 cell instead of 2\)",
        ),
    ):
        if content is not None:
            write(tmp_path / name, content)
        fails(log, "csv", tmp_path, kind, message, items=str(tmp_path / name))
    options = SourceOptions(items=str(tmp_path / "y.csv"), max_malformed=0.5)
    statistics, _, texts = read(log, "csv", tmp_path / "data", options=options)
    assert texts["1"] == {"title": "a"}
    assert "y.csv (row 2: 1 cell" in statistics["malformed"][0]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_in_several_files_with_every_kind_of_text(tmp_path, kind):
    folder = tmp_path / "log"
    (folder / "deeper").mkdir(parents=True)
    for name, items in (("a", "wx"), ("b", "xy"), ("deeper/c", "zx")):
        texts = pa.array(list(items)).cast(kind) if not pa.types.is_dictionary(kind) else pa.array(list(items), kind)
        pq.write_table(pa.table({"user_id": ["u", "u"], "item_id": texts, "title": texts}), folder / f"{name}.parquet")
    write(folder / "README.md", "no parquet")
    _, sequences, texts = read(folder, "parquet", tmp_path / "data")
    assert sequences == {"u": ["w", "x", "x", "y", "z", "x"]}
    assert [(item_id, row["title"]) for item_id, row in texts.items()] == [(letter, letter) for letter in "wxyz"]


def test_tables_in_memory_with_every_kind_of_text(tmp_path):
    """Polars makes views of texts, also inside of categories."""
    letters = pa.array(["w", "x", "y"])
    views = letters.cast(pa.string_view())
    categories = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.uint32()), views)
    for number, texts in enumerate((letters, views, categories)):
        log = pa.table({"user_id": ["u"] * 3, "item_id": texts, "title": texts, "group": texts})
        _, sequences, told = read(log, "auto", tmp_path / str(number))
        assert sequences == {"u": ["w", "x", "y"]}
        assert {item_id: row["title"] for item_id, row in told.items()} == {letter: letter for letter in "wxy"}


@pytest.mark.parametrize("kind", ["parquet", "memory"])
def test_lists_of_items_are_no_ids(tmp_path, kind):
    log = pa.table({"user_id": ["u"] * 3, "item_id": [["a"], ["b"], ["c"]], "timestamp": [1, 2, 3]})
    if kind == "parquet":
        pq.write_table(log, tmp_path / "log.parquet")
    message = r"column 'item_id' of .* holds list<.*>, but ids must be text or whole numbers; convert the column"
    fails(log if kind == "memory" else tmp_path / "log.parquet", "auto", tmp_path, ValueError, message)


def test_a_csv_with_line_breaks_and_a_byte_order_mark_and_colons(tmp_path):
    text = '\ufeffuser:id,item_id,timestamp,title\r\nu,a,1,"two\r\nlines, ""quoted"""\r\n\r\nu,b,2,B\r\nu,c,3,C:D\r\n'
    _, sequences, texts = read(
        write(tmp_path / "log.csv", text), "csv", tmp_path / "data", options=SourceOptions("user:id")
    )
    assert sequences == {"u": ["a", "b", "c"]}
    assert [row["title"] for row in texts.values()] == ['two\r\nlines, "quoted"', "B", "C:D"]


# ---- Delimited files: quotes, separators, packing


def test_between_tabs_quotes_enclose_cells_if_they_enclose_the_header(tmp_path):
    rows = ['"u"\t"a"\t1\t"12"" disc,\ttwo"', '"u"\t"b"\t2\t"B"', '"u"\t"c"\t3\tC']
    text = "\n".join(['"user_id"\t"item_id"\t"timestamp"\t"title"', *rows, ""])
    _, sequences, texts = read(write(tmp_path / "log.tsv", text), "csv", tmp_path / "data")
    assert sequences == {"u": ["a", "b", "c"]}
    assert [row["title"] for row in texts.values()] == ['12" disc,\ttwo', "B", "C"]
    text = text.replace('"user_id"', "user_id").replace("disc,\t", "disc, ")
    _, sequences, texts = read(write(tmp_path / "log.tsv", text), "csv", tmp_path / "text")
    assert sequences == {'"u"': ['"a"', '"b"', '"c"']}, "quotes are text"


DISCS = [f"u{row // 10},i{row % 50},{row},7 inch disc" for row in range(3000)]
HEADER = "user_id,item_id,timestamp,title"


def csv_of(path: Path, header: str, rows: list[str], changed: dict[int, str], end: str = "\n") -> Path:
    """A file of the rows, numbered from 1, of which some are changed."""
    rows = [changed.get(number, row) for number, row in enumerate(rows, start=1)]
    return write(path, end.join([header, *rows]))


@pytest.mark.parametrize(
    ("row", "changed", "number"),
    [
        ("last column", {501: 'u50,i0,500,"7 inch'}, 501),
        ("after broken rows", {7: "x", 8: "", 9: "   ", 501: 'u50,i0,500,"7 inch'}, 499),  # empty lines don't count
        ("first column", {501: '"u50,i0,500,7 inch'}, 501),
        ("last row", {3000: 'u50,i0,500,"7 inch'}, 3000),
        ("a later quote", {501: 'u50,i0,500,"7 inch', 900: '"u90",i0,900,"7'}, 501),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_quote_that_is_never_closed_is_an_error_with_its_row(tmp_path, row, changed, number, end):
    path = csv_of(tmp_path / "log.csv", HEADER, DISCS, changed, end)
    message = f"a quote that opens in row {number} of .*log.csv is never closed, .*; close it, or double it"
    fails(path, "csv", tmp_path, ValueError, message, max_malformed=1)


def test_an_open_quote_is_an_error_in_every_file_that_is_read_as_csv(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id\nu,1\nu,2\nu,3\n")
    items = write(tmp_path / "items.csv", 'item_id,title\n1,A\n2,"7 inch\n3,C\n')
    fails(log, "csv", tmp_path, ValueError, "opens in row 2 of .*items.csv is never closed", items=str(items))
    semicolons = write(tmp_path / "s.csv", 'user_id;item_id\nu;1\nu;"2\nu;3')
    fails(semicolons, "csv", tmp_path, ValueError, "opens in row 2 of .*s.csv is never closed")
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub/a.csv", 'user_id,item_id,title\nu,1,A\nu,2,"7 inch\nu,3,C\n')
    fails(tmp_path / "hub", "hub", tmp_path, ValueError, "hub' can't be opened: .*EOF inside string starting at row 2")
    new = write(tmp_path / "new.csv", 'item_id,embedding\na,"[1]"\nb,"[2]\n')
    with pytest.raises(ValueError, match=r"opens in row 2 of .*new.csv is never closed"):
        read_new_items(new)


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        ({501: 'u50,i0,500,"7 inch', 1501: 'u150,i0,1500,7 inch"'}, 1000),
        ({501: 'u50,i0,500,"7 inch', 511: 'u51,i0,510,"7, inch"'}, 10),
        ({501: 'u50,"i0,500,7 inch', 1501: 'u150,i0",1500,7 inch'}, 1000),
        ({501: 'u50,"i0,500,7 inch', 504: 'u50,i3",503,7 inch,'}, 3),  # 5 cells, so that few lines are proof enough
        ({501: 'u50,"i0,500,7 inch', 504: 'u50,"i3,503,7 inch'}, 3),  # 4 cells, and so has each line
        ({501: 'u50,i0,500,"7 inch', 503: 'u50,i2,502,"7 inch'}, 2),
    ],
)
def test_rows_that_quotes_have_swallowed_count_as_malformed(tmp_path, changed, lines):
    path = csv_of(tmp_path / "log.csv", HEADER, DISCS, {100: "ragged", 2000: "u,i,soon,x", **changed})
    reason = f"row 501: a quote that opens in it holds the next {lines:,} lines: close it, or double it if it is text"
    message = (
        rf"{lines + 3:,} malformed rows in .*log.csv \(row 100: 1 cell instead of 4; {reason}; row {2000 - lines}: "
    )
    fails(path, "csv", tmp_path, ValueError, message)
    statistics = prepare(path, tmp_path / "data", "csv", min_count=1, options=SourceOptions(max_malformed=0.5))
    expect(statistics, interactions_read=3000 - lines - 3, malformed_rows_left_out=lines + 3)
    number = 2000 - lines
    assert (
        f"(row 100: 1 cell instead of 4; {reason}; row {number}: 'timestamp' is 'soon'" in statistics["malformed"][0]
    )


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_quotes_that_have_swallowed_rows_of_a_csv_on_the_hub_are_an_error(tmp_path, name, separator):
    (tmp_path / "hub").mkdir()
    # the title isn't read, and yet rows are in it
    changed = {501: 'u50,i0,500,"7 inch', 1501: 'u150,i0,1500,7 inch"'}
    path = csv_of(tmp_path / "hub" / name, HEADER.replace("title", "shown"), DISCS, changed)
    write(path, path.read_text().replace(",", separator))
    fails(
        tmp_path / "hub", "hub", tmp_path, ValueError, "a quote that opens in row 501 of .* holds the next 1,000 lines"
    )


def test_texts_of_few_lines_are_no_rows_of_the_file(tmp_path):
    told = ["red, green,\nblue, and black", "A\nsalt, sugar, water, flour", "A\n1,000 pieces", "A,B\nC,D"]
    rows = [f'u,{item},{item},"{text}"' for item, text in enumerate(told)]
    statistics, _, texts = read(write(tmp_path / "log.csv", "\n".join([HEADER, *rows])), "csv", tmp_path / "data")
    assert [row["title"] for row in texts.values()] == told
    expect(statistics, **NOTHING_LEFT_OUT)


def test_texts_of_many_lines_are_no_rows_of_the_file(tmp_path):
    letter = "\n".join(["Dear all,", *["a line, with a comma"] * 30, "", "yours"])
    rows = [f'u,{item},{item},"{letter}"' for item in "123"]
    rows[1] = 'u,2,2,"say ""7 inch"" disc"'
    rows[2] = 'u,3,3,7" disc of 12"'  # quotes inside a cell are text
    path = write(tmp_path / "log.csv", "\n".join([HEADER, *rows]))
    statistics, _, texts = read(path, "csv", tmp_path / "data")
    assert [row["title"] for row in texts.values()] == [letter, 'say "7 inch" disc', '7" disc of 12"']
    expect(statistics, **NOTHING_LEFT_OUT)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
def test_the_separator_is_the_one_by_which_the_header_has_the_ids(tmp_path, separator):
    rows = ["user_id,item_id,timestamp,a-b", "u,x,3,1", "u,y,2,1", "u,z,1,1"]
    path = write(tmp_path / "log.txt", "\n".join(rows).replace(",", separator))
    assert read(path, "csv", tmp_path / "data")[1] == {"u": ["z", "y", "x"]}
    assert read(path, "recbole", tmp_path / "recbole")[1] == {"u": ["z", "y", "x"]}
    for ending in ("csv", "tsv", "item"):
        items = write(tmp_path / f"items.{ending}", f"item_id{separator}title\nx{separator}X\n")
        texts = read(path, "csv", tmp_path / ending, options=SourceOptions(items=str(items)))[2]
        assert texts["x"] == {"title": "X"}


@pytest.mark.parametrize(("named", "separator"), [("tab", "\t"), ("\\t", "\t"), ("#", "#"), (";", ";")])
@pytest.mark.parametrize("format", ["csv", "recbole"])
def test_a_separator_can_be_named(tmp_path, format, named, separator):
    path = write(tmp_path / "log.inter", "user_id,item_id\nu,x\nu,y\nu,z\n".replace(",", separator))
    assert read(path, format, tmp_path / "data", options=SourceOptions(separator=named))[1] == {"u": ["x", "y", "z"]}


@pytest.mark.parametrize("separator", ["", ";;", "\n", '"', "\u00e9"])
def test_a_separator_that_is_none_is_an_error(separator):
    with pytest.raises(ValueError, match=r"`separator` is .*; give one character, such as ; or |, or 'tab'"):
        SourceOptions(separator=separator)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('"Reader";"ISBN"\nu;a\n', r"that it holds users, only \['Reader', 'ISBN'\]; name it with --user-column"),
        (
            "1 1193\n1 661\n",
            r"that it holds users: its first line \['1', '1193'\] holds no names; insert a first line with",
        ),
        ("A1,B2,5.0,1393545600\nA1,B3,1.0,1393545600\n", "its first line .* holds no names"),
        (
            "user_id\x01item_id\nu\x01a\n",
            r"only \['user_id.*item_id'\]; name the character between .* --separator, and",
        ),
    ],
)
def test_columns_that_a_header_does_not_name_are_an_error_with_the_right_remedy(tmp_path, content, message):
    fails(write(tmp_path / "log.csv", content), "csv", tmp_path, ValueError, message)


def zstd(content: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(content)
    return packed.getvalue().to_pybytes()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, zstd], ids=["gzip", "bz2", "zstd"])
def test_packed_files_are_read_whatever_they_are_called(tmp_path, pack):
    reviews = write(tmp_path / "log", pack(REVIEWS_2023.encode()))
    log = write(tmp_path / "log.csv", pack(b"user_id,item_id\nu,1\nu,2\nu,3\n"))
    letter = write(tmp_path / "Tiny.inter.json", pack(b'{"u": [1, 2, 3]}'))
    assert read(reviews, "amazon2023", tmp_path / "a")[1] == {"AGBFY": ["INK", "PENS", "PENS"]}
    assert read(letter, "letter", tmp_path / "l")[1] == {"u": ["1", "2", "3"]}
    for name, content in (
        ("items.csv.zst", b"item_id,title\n1,A\n"),
        ("items.jsonl.bz2", b'{"item_id":1,"title":"A"}'),
    ):
        options = SourceOptions(items=str(write(tmp_path / name, pack(content))))
        assert read(log, "csv", tmp_path / name[6:9], options=options)[2]["1"] == {"title": "A"}
    for format, path in (("csv", log), ("jsonl", reviews)):
        write(path, path.read_bytes()[:-9])
        fails(path, format, tmp_path, ValueError, f"{path.name} (can't be read as CSV: T|is a damaged .*T)runcated")


@pytest.mark.parametrize("format", ["csv", "jsonl", "letter"])
def test_other_archives_are_named(tmp_path, format):
    lz4 = pa.Codec("lz4").compress(b"user_id,item_id\n", asbytes=True)
    for kind, content in (
        ("xz", lzma.compress(b"user_id,item_id\n")),
        ("zip", b"PK\x03\x04" + bytes(20)),
        ("lz4", lz4),
    ):
        path = write(tmp_path / "log", content)
        fails(
            path,
            format,
            tmp_path,
            ValueError,
            f"log is packed as {kind}, which can't be read; unpack it, or pack it by",
        )
    write(tmp_path / "log.csv", "user_id,item_id\nu,a\n")
    for mode in ("w", "w:gz", "w:bz2"):
        with tarfile.open(path, mode) as archive:
            archive.add(tmp_path / "log.csv")
        fails(path, format, tmp_path, ValueError, "log is a tar archive; unpack it, and give the file to read")


def test_a_text_that_begins_like_an_archive_is_none(tmp_path):
    path = write(tmp_path / "log.csv", "BZh,user_id,item_id\n1,u,a\n1,u,b\n1,u,c\n")
    assert read(path, "csv", tmp_path / "data")[1] == {"u": ["a", "b", "c"]}


def test_rows_longer_than_a_block_are_read_in_larger_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("etegrec_hf.data.sources.csv_table.BLOCKS", (1000, 100_000))
    text = "a long review\n" * 1000
    rows = [f"user{row % 5},item{row % 7},{row}," for row in range(300)]
    rows[200], rows[250] = f'user1,item1,200,"{text}"', "ragged"
    path = write(tmp_path / "log.csv", "\n".join(["user_id,item_id,timestamp,review", *rows]))
    statistics = prepare(path, tmp_path / "data", "csv", min_count=1, options=SourceOptions(max_malformed=0.01))
    expect(statistics, interactions_read=299, malformed_rows_left_out=1, columns_of_log_not_used="review")
    assert "(row 251: 1 cell instead of 4)" in statistics["malformed"][0], "the first try doesn't count"
    monkeypatch.setattr("etegrec_hf.data.sources.csv_table.BLOCKS", (1000, 2000))
    fails(path, "csv", tmp_path, ValueError, "a row after row .* of .*log.csv is longer than .* never closed")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_lines_of_blanks(tmp_path, end):
    lines = ["", "  ", "user_id,item_id", "u,a", "   ", "u,b", "", "\t", "u,c", "u"]
    path = write(tmp_path / "log.csv", end.join(lines))
    statistics, sequences, _ = read(path, "csv", tmp_path / "data", options=SourceOptions(max_malformed=0.5))
    assert sequences == {"u": ["a", "b", "c"]}
    expect(statistics, malformed_rows_left_out=1)
    assert "(row 4: 1 cell instead of 2)" in statistics["malformed"][0], "lines of blanks have no number"


# ---- Texts: where they are looked for, and what is none


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_of_texts_that_tells_nothing_is_told_of(tmp_path, kind, capsys):
    log = write(tmp_path / "log.csv", "user_id,item_id\nu,a\nu,b\nu,c\n")

    def call(name: str, columns: dict, *more: str) -> tuple[int, str]:
        path = tmp_path / f"{name}.{kind}"
        table = pa.table(columns)
        if kind == "parquet":
            pq.write_table(table, path)
        elif kind == "jsonl":
            write(path, "\n".join(map(json.dumps, table.to_pylist())))
        else:
            pyarrow.csv.write_csv(table, path)
        arguments = ["--format", "csv", "--min-count", "1", "--items", str(path), "--output-dir", str(tmp_path / name)]
        return main(["prepare", str(log), *arguments, *more]), capsys.readouterr().err

    other_ids = {"item_id": ["0.0", "1.0"], "title": ["A", "B"]}
    rc, told = call("others", other_ids)
    note = f"note: 0 of 3 items are in {tmp_path}/others.{kind}: its first id is '0.0', the log's is 'a'"
    assert (rc, note in told) == (0, True)
    assert "items without texts" not in told, "the note above says it"
    named = {"item_id": ["a", "b"], "label": ["A", "B"]}
    rc, told = call("named", named)
    columns = "title, description, brand, categories and has only ['item_id', 'label'] (name one with --title-column)"
    assert (rc, f"named.{kind} has no texts: it lacks the columns {columns}" in told) == (0, True)
    assert "0 of 3" not in told
    rc, told = call("typo", named, "--title-column", "nmae")
    columns = "has a column 'nmae', only ['item_id', 'label'] and ['user_id', 'item_id']; name it with --title-column"
    assert (rc, f"neither {tmp_path}/typo.{kind} nor the log {columns}" in told) == (1, True)
    rc, told = call("half", named, "--title-column", "label")
    assert (rc, "of 3 items are in" in told, "items without title: 1" in told) == (0, False, True)


def test_metadata_of_other_items_is_told_of(tmp_path):
    write(tmp_path / "Pens.jsonl", REVIEWS_2023)
    meta = write(tmp_path / "meta_Pens.jsonl", METADATA_2023.replace("PENS", "x").replace("INK", "y"))
    write(tmp_path / "Tiny.inter.json", '{"u": [1, 2, 3]}')
    item = write(tmp_path / "Tiny.item.json", '{"i1": {"title": "A"}}')
    write(tmp_path / "u.data", "".join(f"1\t{i}\t3\t{i}\n" for i in (7, 8, 9)))
    movies = write(tmp_path / "u.item", "|".join(["77", "A", *["0"] * 22]))
    for format, path, file, first in (
        ("amazon2023", tmp_path / "Pens.jsonl", meta, "'x', the log's is 'PENS'"),
        ("letter", tmp_path / "Tiny.inter.json", item, "'i1', the log's is '1'"),
        ("movielens", tmp_path, movies, "'77', the log's is '7'"),
    ):
        statistics = prepare(path, tmp_path / format, format, min_count=1)
        (note,) = statistics["notes"]
        assert note.endswith(f"items are in {file}: its first id is {first}")
        expect(statistics, items_in_file_of_texts=0)


def test_titles_that_parquet_holds_as_bytes_are_texts(tmp_path):
    titles = pa.array(["Ünder".encode(), b"\xff!", None])
    table = pa.table({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "title": titles})
    pq.write_table(table, tmp_path / "log.parquet")
    texts = read(tmp_path / "log.parquet", "parquet", tmp_path / "data")[2]
    assert [texts[item_id]["title"] for item_id in "abc"] == ["Ünder", "\ufffd!", ""]


def test_texts_that_are_not_there_are_no_words(tmp_path):
    """NaN is how pandas writes nothing."""
    rows = [{"user_id": "u", "item_id": item, "title": title} for item, title in zip("abcb", ["NaN", 1.5, 2.5, 7.5])]
    rows[0]["title"], rows[1]["title"] = float("nan"), float("nan")
    rows = [row | {"description": ["x", float("nan")]} for row in rows]
    jsonl = write(tmp_path / "log.jsonl", "\n".join(map(json.dumps, rows)))
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in ("user_id", "item_id", "title")}),
                   tmp_path / "log.parquet")  # fmt: skip
    items = write(tmp_path / "items.jsonl", '{"item_id": "a", "title": NaN, "brand": NaN}')
    write(tmp_path / "Tiny.inter.json", '{"u": ["a", "b", "c"]}')
    write(
        tmp_path / "Tiny.item.json", '{"a": {"title": NaN}, "b": {"title": "7.5"}, "c": {"title": 2.5, "brand": NaN}}'
    )
    write(tmp_path / "Pens.json", REVIEWS_2018.replace("B001", "a").replace("B002", "b").replace("B003", "c"))
    meta = [{"asin": "a", "title": float("nan")}, {"asin": "b", "title": 7.5}, {"asin": "c", "title": 2.5}]
    write(tmp_path / "meta_Pens.json", "\n".join(map(json.dumps, meta)))
    for format, path, options in (
        ("jsonl", jsonl, SourceOptions(items=str(items))),
        ("parquet", tmp_path / "log.parquet", SourceOptions()),
        ("letter", tmp_path / "Tiny.inter.json", SourceOptions()),
        ("amazon2018", tmp_path / "Pens.json", SourceOptions()),
    ):
        statistics, _, texts = read(path, format, tmp_path / format, options=options)
        assert {item_id: text["title"] for item_id, text in texts.items()} == {"a": "", "b": "7.5", "c": "2.5"}
        assert {text.get("description", "x") for text in texts.values()} <= {"x", ""}
        expect(statistics, items_without_title=1)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "hub", "amazon2018", "movielens", "etegrec", "letter"])
def test_columns_that_are_not_used_are_named(tmp_path, format):
    rows = [{"user_id": "u", "item_id": item, "title": "T", "price": 1, "category": "c"} for item in "abc"]
    folder, named = tmp_path / "log", "price, category"
    folder.mkdir()
    path = folder
    if format in ("parquet", "hub"):
        pq.write_table(pa.Table.from_pylist(rows), folder / "log.parquet")
    elif format == "jsonl":
        del rows[0]["price"], rows[0]["category"]
        path = write(folder / "log.jsonl", "\n".join(map(json.dumps, rows)))
    elif format == "csv":
        path = write(
            folder / "log.csv", "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)])
        )
    elif format == "amazon2018":
        write(folder / "Pens.json", REVIEWS_2018)
        write(folder / "meta_Pens.json", "\n".join(map(json.dumps, METADATA_2018)))
        named = "overall, verified, reviewTime, style, reviewerName, reviewText, image"
    elif format == "movielens":
        write(folder / "ratings.dat", "1::a::5::1\n1::b::5::2\n1::c::5::3\n")
        named = "rating"
    elif format == "etegrec":
        etegrec_folder(folder / "Tiny", padding=True)
        path, named = folder / "Tiny", "none"
    else:
        write(folder / "Tiny.inter.json", '{"u": [1, 2, 3]}')
        named = "none"
    statistics = prepare(path, tmp_path / "data", format, min_count=1)
    expect(statistics, columns_of_log_not_used=named)
    assert statistics.get("columns_of_texts_not_used") == ("feature, price" if format == "amazon2018" else None)
    assert f"| columns of log not used | {named} |" in (tmp_path / "data/README.md").read_text()


# ---- Malformed rows


def test_malformed_rows_of_a_csv_are_told_with_their_numbers(tmp_path):
    rows = ["u,a,1", "u,b", ",b,2", "u,b,2,3", "u,,3", "u,c,soon", "u,b,2", "u,c,3"]
    path = write(tmp_path / "log.csv", "\n".join(["user_id,item_id,timestamp", *rows]))
    fails(
        path, "csv", tmp_path, ValueError,
        r"5 malformed rows in .*log.csv \(row 2: 2 cells instead of 3; row 3: 'user_id' is empty or missing; row 4: 4 "
        r"cells instead of 3\), that is 62.50% of all, but `max_malformed` allows 0.10%; repair them, check",
    )  # fmt: skip
    statistics, sequences, _ = read(path, "csv", tmp_path / "data", options=SourceOptions(max_malformed=0.7))
    assert sequences == {"u": ["a", "b", "c"]}
    expect(statistics, malformed_rows_left_out=5, interactions_read=3)
    for rows, message in (
        (["u,a,1", "u,b,2", "u,c,3", "u,,4"], "row 4: 'item_id' is empty"),
        (["u,b", "u,a,1", "u,c", "u,c,", "u,b,2"], "row 3: 2 cells instead of 3; row 4: 'timestamp' is missing"),
        (
            ["u,a,1", "u,b,2", "u", "u,c,x", "u,b,2"],
            "row 3: 1 cell instead of 3; row 4: 'timestamp' is 'x', neither a number",
        ),
        (["u,,1", "u", ",c,2", "u"], "row 1: 'item_id' .*; row 2: 1 cell .*; row 3: 'user_id' is empty or missing"),
    ):
        write(path, "\n".join(["user_id,item_id,timestamp", *rows]))
        fails(path, "csv", tmp_path, ValueError, message)


def test_row_numbers_of_a_long_csv_are_right(tmp_path):
    rows = [f"user{row % 5},item{row},{row}" for row in range(60_000)]  # longer than one block
    rows[10_000] = rows[40_000] = "ragged"
    rows[50_000] = "user1,,5"
    path = write(tmp_path / "log.csv", "\n".join(["user_id,item_id,timestamp", *rows]), packed=True)
    statistics = prepare(path, tmp_path / "data", "csv", min_count=1)
    assert statistics["malformed"] == [
        f"3 malformed rows in {path} (row 10001: 1 cell instead of 3; row 40001: 1 cell instead of 3; row 50001: "
        "'item_id' is empty or missing)"
    ]
    expect(statistics, interactions_read=59_997, malformed_rows_left_out=3, users_sorted_by_time=0)


def test_malformed_lines_of_jsonl_are_told_with_their_numbers(tmp_path):
    good = [json.dumps({"user_id": "u", "item_id": item, "timestamp": time}) for time, item in enumerate("abc")]
    bad = [
        "no json",
        "[1]",
        '{"user_id": "u", "timestamp": 1}',
        '{"user_id": "", "item_id": "a", "timestamp": 1}',
        '{"user_id": "u", "item_id": 1.0, "timestamp": 1}',
        '{"user_id": "u", "item_id": ["a"], "timestamp": 1}',
        '{"user_id": "u", "item_id": true, "timestamp": 1}',
        '{"user_id": "u", "item_id": "a"}',
        '{"user_id": "u", "item_id": "a", "timestamp": "soon"}',
        '{"user_id": "u", "item_id": "a", "timestamp": NaN}',
        '{"user_id": "u", "item_id": "a", "timestamp": 1e999}',
        '{"user_id": "u", "item_id": "\\ud83d", "timestamp": 1}',
        b'{"user_id": "u", "item_id": "\xff", "timestamp": 1}',
        "{" * 100_000,
    ]
    lines = [good[0], "", *bad, *good[1:]]
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    path = write(tmp_path / "log.jsonl", content)
    fails(
        path, "jsonl", tmp_path, ValueError,
        r"14 malformed lines in .*log.jsonl \(line 3: JSONDecodeError.*; line 4: it holds a list, not an object; line "
        r"5: 'item_id' is empty or missing\), that is 82.35% of all",
    )  # fmt: skip
    statistics, sequences, _ = read(path, "jsonl", tmp_path / "data", options=SourceOptions(max_malformed=0.9))
    assert sequences == {"u": ["a", "b", "c"]}
    expect(statistics, malformed_rows_left_out=14)
    for line in bad:
        write(path, b"\n".join([good[0].encode(), line if isinstance(line, bytes) else line.encode()]))
        fails(path, "jsonl", tmp_path, ValueError, r"1 malformed line in .*log.jsonl \(line 2: ")


def test_a_malformed_first_line_of_jsonl_is_one_of_many(tmp_path):
    lines = [
        '{"user_id": "u", "timestamp": 1}',
        *(f'{{"user_id": "u", "item_id": "{i}", "timestamp": {i}}}' for i in "321"),
    ]
    lines.append('{"user_id": "u", "item_id": "4", "timestamp": 4, "title": "Four", "description": ["a", "b"]}')
    path = write(tmp_path / "log.jsonl", "\n".join(lines))
    _, sequences, texts = read(path, "jsonl", tmp_path / "data", options=SourceOptions(max_malformed=0.2))
    assert sequences == {"u": ["1", "2", "3", "4"]}
    assert texts["4"] == {"title": "Four", "description": "a b"}


def test_a_time_that_comes_late_in_json_lines_is_an_error(tmp_path):
    lines = [f'{{"user_id": "u", "item_id": "{line}"}}' for line in range(200)]
    lines[150] = lines[150].replace("}", ', "timestamp": 3}')
    message = "line 151 of .* has a `timestamp`, but earlier lines have none"
    fails(write(tmp_path / "log.jsonl", "\n".join(lines)), "jsonl", tmp_path, ValueError, message)


def test_texts_of_a_malformed_line_are_not_taken(tmp_path):
    lines = [
        '{"user_id": "u", "title": "of nothing"}',
        *(f'{{"user_id": "u", "item_id": "{i}"}}' for i in ("None", "b", "c")),
    ]
    path = write(tmp_path / "log.jsonl", "\n".join(lines))
    assert read(path, "jsonl", tmp_path / "data", options=SourceOptions(max_malformed=0.5))[2]["None"] == {}


def test_python_literals_are_read_as_json_lines(tmp_path):
    lines = [
        f"{{u'username': u'me \\u00e9', u'product_id': u'{item}', 'date': u'2017-07-0{day}', 'early_access': False}}"
        for item, day in (("30", 3), ("10", 1), ("20", 2))
    ]
    named = SourceOptions("username", "product_id", "date", items=str(tmp_path / "games.json"))
    write(tmp_path / "games.json", "{u'product_id': u'10', u'title': u\"Counter's\", u'price': 9.99}\n")
    statistics, sequences, texts = read(
        write(tmp_path / "steam.json", "\n".join(lines)), "jsonl", tmp_path / "data", options=named
    )
    assert sequences == {"me é": ["10", "20", "30"]}
    assert texts["10"] == {"title": "Counter's"}
    expect(statistics, columns_of_log_not_used="early_access", columns_of_texts_not_used="price")


@pytest.mark.parametrize("value", ["1", "x"])
def test_ids_of_mixed_types_in_jsonl_are_an_error(tmp_path, value):
    lines = [{"user_id": "u", "item_id": 1}, {"user_id": "u", "item_id": value}]
    path = write(tmp_path / "log.jsonl", "\n".join(map(json.dumps, lines)))
    fails(
        path,
        "jsonl",
        tmp_path,
        ValueError,
        rf"'item_id' in line 2 of .* is '{value}', but text and numbers are mixed .*; write all ids",
    )


def test_ids_of_a_parquet_file_must_be_text_or_whole_numbers(tmp_path):
    for items in (pa.array([1.0, 2.0, 3.0]), pa.array([b"a", b"b", b"c"]), pa.array([True, False, True])):
        path = tmp_path / "log.parquet"
        pq.write_table(pa.table({"user_id": ["u"] * 3, "item_id": items}), path)
        fails(
            path,
            "parquet",
            tmp_path,
            ValueError,
            "column 'item_id' of .* holds (double|binary|bool), but ids must be text or whole",
        )
    for items in (pa.array([3, 1, 2], pa.uint8()), pa.array([3, 1, 2]).dictionary_encode()):
        pq.write_table(pa.table({"user_id": ["u"] * 3, "item_id": items}), path)
        name = tmp_path / str(items.type)[:4]
        assert read(path, "parquet", name)[1] == {"u": ["3", "1", "2"]}
    pq.write_table(pa.table({"user_id": ["u"] * 3, "item_id": pa.nulls(3)}), path)
    fails(
        path, "parquet", tmp_path, ValueError, r"3 malformed rows in .* \(row 1: 'item_id' is empty or missing; row 2"
    )


def test_missing_columns_are_named_with_their_remedy(tmp_path):
    csv = write(tmp_path / "log.csv", "who,item_id\nu,a\n")
    jsonl = write(tmp_path / "log.jsonl", '{"who": "u", "item_id": "a"}\n{"who": "u", "item_id": "b"}\n')
    pq.write_table(pa.table({"who": ["u"], "item_id": ["a"]}), tmp_path / "log.parquet")
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub/a.csv", "who,item_id\nu,a\n")
    for path, format in (
        (csv, "csv"),
        (jsonl, "jsonl"),
        (tmp_path / "log.parquet", "parquet"),
        (tmp_path / "hub", "hub"),
    ):
        columns = r", only \['who', 'item_id'\]"
        fails(
            path,
            format,
            tmp_path,
            ValueError,
            f"whose name says that it holds users{columns}; name it with --user-column",
        )
        for option, remedy in (
            ("item", "name it with --item"),
            ("title", "name it with --title"),
            ("time", "name one of"),
        ):
            message = f"has no column 'x'{columns}; {remedy}"
            fails(path, format, tmp_path, ValueError, message, user_column="who", **{f"{option}_column": "x"})
        wishes = {"user_column": "who", "split_column": "x"}
        message = "of line 1 of .* is None.*--split-column" if format == "jsonl" else "no column 'x', .*--split-column"
        fails(path, format, tmp_path, ValueError, message, **wishes)
    twice = write(tmp_path / "twice.csv", "user_id,item_id,item_id\nu,a,b\n")
    fails(twice, "csv", tmp_path, ValueError, "twice.csv has 2 columns 'item_id'; rename all but one")


def test_split_names_that_mean_nothing_are_an_error(tmp_path):
    lines = "user_id,item_id,fold\nu,a,train\nu,b,{}\n"
    path = write(tmp_path / "log.csv", lines.format("tset"))
    fails(
        path,
        "csv",
        tmp_path,
        ValueError,
        "the split of a row of .* is 'tset'; write one of train, valid",
        split_column="fold",
    )
    for names in (("Train", "validation ", "TEST"), (" train", "Valid", "test"), ("train", "Dev", "Test")):
        rows = "".join(f"u,{item},{name}\n" for item, name in zip("abc", names))
        given = SourceOptions(split_column="fold")
        csv = write(tmp_path / "named.csv", "user_id,item_id,fold\n" + rows)
        assert read(csv, "csv", tmp_path / names[1], "given", options=given)[0]["test_rows"] == 1
    path = write(path, "ragged\n".join(lines.format("").split("\n", 1)))
    write(path, lines.format("").replace("u,a", "ragged\nu,a"))
    fails(
        path,
        "csv",
        tmp_path,
        ValueError,
        "the split of row 3 of .* is missing; fill it in",
        split_column="fold",
        max_malformed=1,
    )


# ---- Whole files


def test_damaged_gzip_files_are_an_error(tmp_path):
    log = "user_id,item_id\n" + "".join(f"u{row * 7919 % 10007},i{row * 104729 % 10007}\n" for row in range(20_000))
    for format, content in (("csv", log), ("jsonl", REVIEWS_2023), ("amazon2018", REVIEWS_2018)):
        whole = gzip.compress(content.encode())
        path = write(tmp_path / f"log-{format}.gz", whole[: len(whole) * 2 // 3])
        fails(
            path,
            format,
            tmp_path,
            ValueError,
            f"log-{format}.gz (is a damaged gzip file|can't be read as CSV: .*runcated)",
        )


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "recbole", "amazon2014", "amazon2018", "amazon2023"])
@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_empty_files_are_an_error(tmp_path, format, content):
    path = write(tmp_path / "empty.file", content)
    fails(
        path,
        format,
        tmp_path,
        ValueError,
        "empty.file (holds no interaction|can't be read as (CSV|parquet)|has no column)",
    )


def test_logs_without_an_interaction_are_an_error(tmp_path):
    (tmp_path / "movies").mkdir()
    (tmp_path / "hub").mkdir()
    pq.write_table(
        pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}), tmp_path / "p"
    )
    for path, format in (
        (write(tmp_path / "c", "user_id,item_id\n"), "csv"),
        (tmp_path / "p", "parquet"),
        (write(tmp_path / "movies/u.data", "").parent, "movielens"),
        (write(tmp_path / "j", "no json\n"), "jsonl"),
        (write(tmp_path / "a", "{}\n"), "amazon2018"),
        (write(tmp_path / "hub/a.jsonl", '{"user_id": null, "item_id": "a"}\n').parent, "hub"),
    ):
        message = "the log is empty: .* holds no interaction; check the path and --format"
        fails(path, format, tmp_path, ValueError, message, max_malformed=1)


def test_files_of_another_format_are_an_error_that_says_so(tmp_path):
    csv = write(tmp_path / "log.csv", "user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,3\n")
    jsonl = write(tmp_path / "log.jsonl", REVIEWS_2023)
    pq.write_table(pa.table({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"]}), tmp_path / "log.parquet")
    parquet = tmp_path / "log.parquet"
    for path in (csv, jsonl, parquet):
        for format in ("csv", "jsonl", "parquet", "recbole", "letter", *("amazon2014", "amazon2018", "amazon2023")):
            if path.suffix != f".{format}" and (path, format) not in ((jsonl, "amazon2023"), (csv, "recbole")):
                remedy = "copy it again" if format == "letter" else "check --format"
                fails(path, format, tmp_path, ValueError, f"{path.name}.*{remedy}")


@pytest.mark.parametrize("format", [name for name in READERS if name != "hub"])
def test_a_path_that_does_not_exist_is_an_error(tmp_path, format):
    fails(tmp_path / "nowhere", format, tmp_path, FileNotFoundError, "nowhere")
    fails("no/where", format, tmp_path, FileNotFoundError, "no/where")


def test_a_folder_for_a_file_and_a_file_for_a_folder_are_an_error(tmp_path):
    (tmp_path / "folder").mkdir()
    file = write(tmp_path / "log.csv", "user_id,item_id\nu,a\n")
    for format in READERS:
        fails(tmp_path / "folder", format, tmp_path, FileNotFoundError, "folder")
    for format in ("movielens", "etegrec"):
        fails(file, format, tmp_path, FileNotFoundError, "log.csv.*give (the folder|the one|a folder|the path)")


def test_the_hub_names_what_is_not_there(tmp_path):
    fails(tmp_path / "nowhere", "hub", tmp_path, FileNotFoundError, "there is no data set '.*nowhere'")


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("letter", {"items": "x.csv"}),
        ("letter", {"max_malformed": 0.5}),
        ("etegrec", {"max_malformed": 0.5}),
        ("movielens", {"title_column": "name"}),
        ("amazon2018", {"time_column": "t"}),
        ("csv", {"hub_config": "x"}),
        ("parquet", {"hub_split": "test"}),
        ("recbole", {"hub_split": "test"}),
    ],
)
def test_options_that_mean_nothing_to_a_format_are_an_error(tmp_path, format, options):
    ((name, value),) = options.items()
    message = f"`{name}` is {value!r}, but the format '{format}' has no such option; leave it out"
    fails(tmp_path, format, tmp_path, ValueError, message, **options)


def test_shares_outside_0_and_1_are_an_error():
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"`max_malformed` is .*, but it is a share of rows; choose 0 to 1"):
            SourceOptions(max_malformed=share)


def test_text_that_is_not_utf8_is_an_error_in_a_csv(tmp_path):
    head = b"user_id,item_id,title\nu,a,A\n"
    for path in (
        write(tmp_path / "id.csv", head + b"u,\xe9,B\n"),
        write(tmp_path / "title.csv", head + b"u,b,\xe9\n"),
        write(tmp_path / "header.csv", b"user_id,item_id,\xe9\nu,a,A\n"),
    ):
        fails(path, "csv", tmp_path, ValueError, f"{path.name} can't be read as CSV: .*the file is whole and UTF-8")


def test_nothing_left_is_an_error(tmp_path):
    path = write(tmp_path / "log.csv", "user_id,item_id\nu,a\nu,b\nu,c\n")
    with pytest.raises(
        ValueError, match=r"users with fewer than 5 interactions and items with fewer than 5; lower `min_count`"
    ):
        prepare(path, tmp_path / "data", "csv")


def test_the_command_tells_what_was_left_out(tmp_path, capsys):
    path = write(
        tmp_path / "log.jsonl", "no json\n" + "".join(f'{{"user_id": "u", "item_id": "{i}"}}\n' for i in "abc")
    )
    call = ["prepare", str(path), "--format", "jsonl", "--output-dir", str(tmp_path / "data"), "--min-count", "1"]
    assert main(call) == 1
    assert "etegrec prepare: 1 malformed line in" in capsys.readouterr().err
    assert main([*call, "--max-malformed", "0.5"]) == 0
    assert f"note: left out: 1 malformed line in {path} (line 1: JSONDecodeError" in capsys.readouterr().err


# ---- Times


def test_dates_mean_the_same_moment_in_every_time_zone(monkeypatch):
    import time

    for zone in ("UTC", "America/New_York", "Asia/Tokyo"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert parse_time("2024-03-10 02:30:00") == 1710037800
        assert parse_time("2024-03-10T02:30:00Z") == parse_time("2024-03-10T03:30:00+01:00") == 1710037800
        assert parse_time("1970-01-02") == 86400
        assert parse_time("2019-10-01 00:00:00 UTC") == parse_time("2019-10-01T00:00:00Z") == 1569888000
        assert parse_time("2017/07/14 02:40:00") == parse_time("2017-07-14T02:40:00") == 1500000000
        assert parse_time("Fri Jul 14 02:40:00 -0700 2017") == 1500000000 + 7 * 3600
    monkeypatch.undo()
    time.tzset()
    for value in (
        None,
        True,
        "",
        "soon",
        "nan",
        "inf",
        "23:58:00",
        "14/07/2017",
        "Fri Jul 14",
        float("nan"),
        2**63,
        [1],
        {},
        b"1",
    ):
        assert parse_time(value) is None
    assert [parse_time(value) for value in (0, -5, 1.5, "7", "-1", "2.5", 1700000000000000001)] == [
        0, -5, 1.5, 7, -1, 2.5, 1700000000000000001,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_times_that_go_backwards_are_sorted_and_ties_keep_the_order_of_rows(tmp_path, kind):
    rows = [("u", "a", 5), ("v", "a", 1), ("u", "b", 3), ("u", "c", 5), ("v", "b", 1), ("u", "d", 3), ("v", "c", 2)]
    table = pa.table(dict(zip(("user_id", "item_id", "timestamp"), zip(*rows))))
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=2)
    elif kind == "jsonl":
        write(path, "\n".join(map(json.dumps, table.to_pylist())))
    else:
        write(path, "user_id,item_id,timestamp\n" + "\n".join(f"{u},{i},{t}" for u, i, t in rows))
    statistics, sequences, _ = read(path, kind, tmp_path / "data")
    assert sequences == {"u": ["b", "d", "a", "c"], "v": ["a", "b", "c"]}
    expect(statistics, users_sorted_by_time=1)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_one_bad_time_leaves_nanoseconds_apart(tmp_path, kind):
    times = ["1700000000000000002", "1700000000000000001", "1700000000000000000", "soon"]
    rows = {"user_id": ["u"] * 4, "item_id": list("abcd"), "timestamp": times}
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(rows), path)
    else:
        write(path, ",".join(rows) + "\n" + "\n".join(map(",".join, zip(*rows.values()))))
    assert read(path, kind, tmp_path / "data", options=SourceOptions(max_malformed=0.3))[1] == {"u": ["c", "b", "a"]}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "hub"])
def test_a_time_of_day_is_no_time(tmp_path, kind):
    times = ["23:58:00", "23:59:00", "00:01:00", "00:02:00"]
    rows = pa.table({"user_id": ["u"] * 4, "item_id": list("abcd"), "time": times})
    path = tmp_path / f"log.{kind}"
    if kind == "jsonl":
        write(path, "\n".join(map(json.dumps, rows.to_pylist())))
    elif kind == "parquet":
        pq.write_table(rows.set_column(2, "time", pa.array([86280, 86340, 60, 120], pa.time32("s"))), path)
    else:
        path.mkdir()
        pyarrow.csv.write_csv(rows, path / "log.csv")
        path = path if kind == "hub" else path / "log.csv"
    message = "4 malformed .* 1: 'time' is '23:58:00', neither a number nor a date"
    fails(path, kind, tmp_path, ValueError, message, time_column="time")


@pytest.mark.parametrize(
    "time", ["2019-10-01 00:00:0{} UTC", "2017/07/14 02:40:0{}", "Fri Jul 14 02:40:0{} -0700 2017"]
)
def test_dates_of_published_logs_are_read(tmp_path, time):
    rows = "".join(f"u,{item},{time.format(second)}\n" for item, second in zip("abc", "312"))
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp\n" + rows)
    assert read(path, "csv", tmp_path / "data")[1] == {"u": ["b", "c", "a"]}


def test_true_is_no_time(tmp_path):
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": [True]}), tmp_path / "log.parquet")
    fails(
        tmp_path / "log.parquet",
        "parquet",
        tmp_path,
        ValueError,
        "row 1: 'timestamp' is True, neither a number nor a date",
    )


def test_a_file_that_may_not_be_read_is_an_error(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = write(tmp_path / "log.csv", "user_id,item_id\nu,a\n")
    path.chmod(0)
    fails(path, "csv", tmp_path, PermissionError, "log.csv")


# ---- What is recognised: formats, columns, dates, and what belongs to items

EIGHTS = [(f"u{row // 8}", f"i{(row // 8 + row) % 8}", row) for row in range(64)]  # 8 users of 8 items each


def log_of(path: Path, names: tuple[str, str, str], separator: str = ",") -> Path:
    return write(path, "\n".join([separator.join(names), *(separator.join(map(str, row)) for row in EIGHTS)]))


def movielens_folder(folder: Path, name: str, content: str) -> Path:
    folder.mkdir()
    return write(folder / name, content).parent


@pytest.mark.parametrize(
    ("format", "make"),
    [
        ("csv", lambda at: log_of(at / "log.csv", ("user_id", "item_id", "timestamp"))),
        ("csv", lambda at: log_of(at / "log.tsv", ("user_id", "item_id", "timestamp"), "\t")),
        ("csv", lambda at: write(at / "log.txt", gzip.compress(b"userId;movieId\nu;1\nu;2\nu;3\n"))),
        ("jsonl", lambda at: write(at / "log.json", '{"user_id": "u", "item_id": 1}\n' * 3)),
        ("jsonl", lambda at: write(at / "log", bz2.compress(b"{'user': 'u', 'item': 1}\n" * 3))),
        ("recbole", lambda at: write(at / "log.inter", "user_id:token,item_id:token\nu,1\nu,2\nu,3\n")),
        ("letter", lambda at: write(at / "Tiny.inter.json", '{"u": [1, 2, 3]}')),
        ("letter", lambda at: write(at / "histories.json", '{"u": [1, 2, 3]}')),
        ("letter", lambda at: write(at / "Tiny.inter.json", '{"u": [1, 2, 3]}').parent),
        ("amazon2014", lambda at: write(at / "reviews_Pens_5.json.gz", gzip.compress(REVIEWS_2014.encode()))),
        ("amazon2018", lambda at: write(at / "Pens_5.json", REVIEWS_2018)),
        ("amazon2023", lambda at: write(at / "Pens.jsonl", REVIEWS_2023).parent),
        ("movielens", lambda at: movielens_folder(at / "ml", "ratings.dat", "1::7::5::1\n1::8::5::2\n1::9::5::3\n")),
        (
            "movielens",
            lambda at: movielens_folder(at / "ml", "ratings.csv", "userId,movieId,timestamp\n1,7,1\n1,8,2\n1,9,3\n"),
        ),
        ("etegrec", lambda at: etegrec_folder(at / "Tiny", padding=True) or at / "Tiny"),
    ],
)
def test_formats_are_recognised(tmp_path, format, make):
    (tmp_path / "raw").mkdir()
    path = make(tmp_path / "raw")
    expected = prepare(path, tmp_path / "named", format, min_count=1)
    assert prepare(path, tmp_path / "auto", min_count=1) == expected
    assert expected["format"] == format
    assert rows_of(tmp_path / "auto", "test") == rows_of(tmp_path / "named", "test")


def test_tables_and_saved_data_sets_are_recognised(tmp_path):
    rows = {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"]}
    pq.write_table(pa.table(rows), tmp_path / "log")  # by its first bytes
    Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parts").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "parts/a.parquet")
    for name, format in (("log", "parquet"), ("saved", "hub"), ("parts", "parquet")):
        expect(prepare(tmp_path / name, tmp_path / f"{name}-data", min_count=1), format=format, interactions=3)


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("log.csv", None, FileNotFoundError, "log.csv' is neither a file nor a folder; check the path"),
        ("log.json", "[\n{}]", ValueError, "log.json is one JSON array; write one object per line"),
        ("log.xlsx", "PK", ValueError, "log.xlsx is a spreadsheet; save it as CSV"),
        ("log.csv", "user,item\nu1,i1\n".encode("utf-16"), ValueError, "log.csv is UTF-16; save it as UTF-8"),
        ("log.csv", "\n\n", ValueError, "the log is empty: .*log.csv holds no interaction"),
        ("log", "word\nword\n", ValueError, "the format of .* isn't recognised .*; name it with --format, or convert"),
        ("log", b"\x00,\x01", ValueError, "the format of .* isn't recognised"),
        ("log", '{\n"a": 1}\n{\n"b": 2}', ValueError, "objects that can't be read; write one JSON object per line"),
    ],
)
def test_what_is_not_recognised_is_an_error_with_a_remedy(tmp_path, name, content, kind, message):
    path = tmp_path / name if content is None else write(tmp_path / name, content)
    fails(path, "auto", tmp_path, kind, message)


def test_folders_that_are_not_recognised_are_an_error_with_a_remedy(tmp_path):
    fails(tmp_path, "auto", tmp_path, ValueError, "holds no log of a known format; give the path of the file to")
    log = log_of(tmp_path / "log.csv", ("user_id", "item_id", "timestamp"))
    fails(tmp_path, "auto", tmp_path, ValueError, "holds no log of a known format; give the path of the file to")
    for name in ("a.inter.json", "a.inter"):
        write(tmp_path / name, "")
    fails(tmp_path, "auto", tmp_path, ValueError, r"holds files of several formats \(letter, recbole\); give the path")
    prepare(log, tmp_path / "data", min_count=1)
    fails(tmp_path / "data", "auto", tmp_path, ValueError, "is a prepared dataset already; give it .* as --data")
    fails("no-such/data", "auto", tmp_path, ConnectionError, "'no-such/data' isn't a local folder and can't be")


def test_an_option_says_that_reviews_are_read_as_json_lines(tmp_path):
    path = write(tmp_path / "Pens.json", REVIEWS_2018)
    statistics = prepare(path, tmp_path / "data", min_count=1, options=SourceOptions(time_column="unixReviewTime"))
    expect(statistics, format="jsonl", columns="reviewerID is the user, asin the item, unixReviewTime the time")


GUESSES = [
    ("user_id,item_id,timestamp,title", "user_id is the user, item_id the item, timestamp the time, title the title"),
    ("CustomerID,StockCode,InvoiceDate", "CustomerID is the user, StockCode the item, InvoiceDate the time"),
    ("visitorid,itemid,event,timestamp", "visitorid is the user, itemid the item, timestamp the time"),
    ("User ID,Product_ID,created at", "User ID is the user, Product_ID the item, created at the time"),
    ("customer,sku,bought at", "customer is the user, sku the item, bought at the time"),
    ("session_id,sku,ts", "session_id is the user, sku the item, ts the time"),
    ("user,session,item", "user is the user, item the item"),
    ("userId,movieId,movie,Name", "userId is the user, movieId the item, Name the title"),
    ("member,track,name,title", "member is the user, track the item, title the title"),
    ("username,user_id,asin,parent_asin", "user_id is the user, parent_asin the item"),
    ("uid,iid,reviewTime,unixReviewTime", "uid is the user, iid the item, unixReviewTime the time"),
    ("user,item,Description,Brand", "user is the user, item the item, Description the title, Brand the brand"),
    ("user,item,description,title", "user is the user, item the item, title the title, description the description"),
]


@pytest.mark.parametrize(("header", "columns"), GUESSES)
@pytest.mark.parametrize("separator", [",", ";"])
def test_columns_are_recognised_by_common_names(tmp_path, header, columns, separator):
    names = header.split(",")
    rows = [",".join(f"{row}" for _ in names) for row in range(3)]
    text = "\n".join([header, *rows]).replace(",", separator)
    source, format = read_source(write(tmp_path / "log.csv", text), "auto", SourceOptions())
    assert (str(source.columns), format) == (columns, "csv")
    lines = [json.dumps(dict.fromkeys(names, row)) for row in range(3)]
    source, format = read_source(write(tmp_path / "log.jsonl", "\n".join(lines)), "auto", SourceOptions())
    assert (str(source.columns), format) == (columns, "jsonl")


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("customer_id,member,item", {}, r"may hold users: \['customer_id', 'member'\]; name one with --user-column"),
        ("user,product_id,sku", {}, r"may hold items: \['product_id', 'sku'\]; name one with --item-column"),
        ("user,item,date,time", {}, r"may hold times: \['date', 'time'\]; name one with --time-column"),
        ("user,item,item_name,movie_title", {}, r"may hold titles: .*; name one with --title-column"),
        ("user,price", {}, r"that it holds items, only \['user', 'price'\]; name it with --item-column"),
        ("user,item", {"user_column": "item"}, "that it holds items, only .*; name it with --item-column"),
        ("user,item", {"time_column": "day"}, r"has no column 'day', only \['user', 'item'\]; name one of them"),
    ],
)
def test_columns_that_are_not_clear_are_an_error_that_names_the_option(tmp_path, header, options, message):
    path = write(tmp_path / "log.csv", f"{header}\n" + ",".join("1" for _ in header.split(",")))
    fails(path, "auto", tmp_path, ValueError, message, **options)


def test_names_that_are_given_win_and_types_rule_out_what_cannot_be_meant(tmp_path):
    path = write(tmp_path / "log.csv", "user_id,buyer,item_id,date,time\nu,b,1,3,1\nu,b,2,2,2\nu,b,3,1,3\n")
    options = SourceOptions(user_column="buyer", time_column="date")
    assert read(path, "auto", tmp_path / "data", options=options)[1] == {"b": ["3", "2", "1"]}
    rows = pa.table({"user": ["u"] * 3, "item": list("abc"), "sku": [0.5, 1.5, 2.5], "date": [3, 2, 1]})
    table = rows.append_column("time", pa.array([1, 2, 3], pa.time32("s")))
    source, _ = read_source(table, "auto", SourceOptions())
    assert str(source.columns) == "user is the user, item the item, date the time"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_of_a_file_of_texts_are_recognised(tmp_path, kind):
    log = log_of(tmp_path / "log.csv", ("user", "StockCode", "ts"))
    rows = {"id": [f"i{item}" for item in range(9)], "Product Name": list("ABCDEFGHI"), "price": [*range(8), 8.5]}
    rows |= {"category": ["x", "y", ""] * 3, "sizes": [[1]] * 9}
    path = tmp_path / f"items.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(rows), path)
    elif kind == "jsonl":
        write(path, "\n".join(json.dumps(dict(zip(rows, row))) for row in zip(*rows.values())))
    else:
        write(path, "\n".join([",".join(rows), *(",".join(map(str, row)) for row in zip(*rows.values()))]))
    statistics, _, texts = read(log, "auto", tmp_path / "data", options=SourceOptions(items=str(path)))
    assert texts["i1"] == {"title": "B", "price": 1.0, "category": "y"}
    assert not texts["i2"]["category"]
    unused = "sizes"
    expect(statistics, item_columns="price, category", columns_of_texts_not_used=unused, items_without_title=0)


def test_texts_of_a_file_do_not_put_descriptions_before_titles_of_the_log(tmp_path):
    log = write(tmp_path / "log.csv", "user,item,name\nu,1,A\nu,2,B\nu,3,C\n")
    items = write(tmp_path / "items.csv", "item,description\n1,long\n")
    texts = read(log, "auto", tmp_path / "data", options=SourceOptions(items=str(items)))[2]
    assert texts["1"] == {"title": "A", "description": "long"}
    log = write(tmp_path / "log.csv", "user,item\nu,1\nu,2\nu,3\n")
    texts = read(log, "auto", tmp_path / "again", options=SourceOptions(items=str(items)))[2]
    assert texts["1"] == {"title": "long"}


BELONGING = {
    "price": [0.5 * (row % 8) for row in range(8)],
    "year": [2000 + row for row in range(8)],
    "code": [f"00{row}" for row in range(8)],
    "category": ["lamp", "mug", None, "mug", "lamp", "mug", "lamp", "mug"],
}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "hub", "table"])
def test_numbers_and_categories_that_belong_to_items_are_kept(tmp_path, kind):
    users, items, times = zip(*EIGHTS)
    numbers = [int(item[1:]) for item in items]
    columns = {name: [values[number] for number in numbers] for name, values in BELONGING.items()}
    columns["price"][9] = None  # one row may leave it out
    others = {"quantity": [row % 3 for row in times], "country": ["UK"] * 64, "event": ["view", "buy"] * 32}
    others["rating"] = [row % 5 for row in times]
    others["nearly"] = [number if row else -1 for row, number in enumerate(numbers)]
    rows = pa.table({"user": users, "item": items, "time": times, **columns, **others})
    path = tmp_path / f"log.{kind}"
    if kind == "csv":
        pyarrow.csv.write_csv(rows, path)
    elif kind == "jsonl":
        write(path, "\n".join(map(json.dumps, rows.to_pylist())))
    elif kind == "parquet":
        pq.write_table(rows, path)
    elif kind == "hub":
        Dataset(rows).save_to_disk(str(path))
    else:
        path = rows
    statistics = prepare(path, tmp_path / "data", min_count=1)
    expect(statistics, item_columns=", ".join(BELONGING), columns_of_log_not_used=", ".join(others))
    table = pq.read_table(tmp_path / "data/items/items.parquet")
    assert [str(table.schema.field(name).type) for name in BELONGING] == ["double", "int64", "string", "string"]
    for row in table.to_pylist():
        assert [row[name] for name in BELONGING] == [values[int(row["item_id"][1])] for values in BELONGING.values()]
    assert PreparedDataset.load(tmp_path / "data").n_items == 8
    assert "0 to" in " ".join(item_texts(table, "{category} 0 to {code}"))
    (event, rating) = statistics["notes"]
    assert "column 'event' says what happened in a row, but all rows count the same" in event
    assert "column 'rating' holds ratings, but all rows count the same" in rating


def test_columns_follow_the_items_that_are_left(tmp_path):
    rows = [(f"u{user}", f"i{item}", 10 * item) for item in range(5) for user in range(5) if user < 4 or item != 2]
    rows = [row for row in rows if row[1] != "i1" or row[0] == "u0"]
    path = write(tmp_path / "log.csv", "\n".join(["user,item,price", *(",".join(map(str, row)) for row in rows)]))
    assert prepare(path, tmp_path / "data", min_count=3)["items_dropped"] == 1
    table = pq.read_table(tmp_path / "data/items/items.parquet")
    assert [(row["item_id"], row["price"]) for row in table.to_pylist()] == [
        ("i0", 0),
        ("i2", 20),
        ("i3", 30),
        ("i4", 40),
    ]


def test_where_items_occur_once_no_column_is_taken_for_theirs(tmp_path):
    path = write(tmp_path / "log.csv", "user,item,price\n" + "".join(f"u,{row},{row}\n" for row in range(9)))
    expect(prepare(path, tmp_path / "data", min_count=1), item_columns="none", columns_of_log_not_used="price")


def test_bytes_that_are_no_text_stand_in_no_item_column(tmp_path):
    rows = b"".join(f"u{row % 2},{row // 2},".encode() + bytes([0xE0 + row // 2]) + b"\n" for row in range(8))
    path = write(tmp_path / "log.csv", b"user,item,maker\n" + rows)
    expect(prepare(path, tmp_path / "data", min_count=1), item_columns="none", columns_of_log_not_used="maker")


@pytest.mark.parametrize(
    "make", [pa.Table.to_pandas, lambda table: table, Dataset], ids=["pandas", "arrow", "datasets"]
)
def test_tables_in_memory_become_the_same_dataset_as_their_file(tmp_path, make):
    users, items, times = zip(*EIGHTS)
    table = pa.table({"CustomerID": users, "sku": items, "ts": times[::-1], "title": [f"T{item}" for item in items]})
    pq.write_table(table, tmp_path / "log.parquet")
    of_file, log = prepare(tmp_path / "log.parquet", tmp_path / "file", min_count=1), make(table)
    found = prepare(log, tmp_path / "memory", min_count=1)
    told = {"source": f"a {type(log).__name__} in memory", "format": "table"}
    assert found == of_file | told
    for name in ("items/items.parquet", "sequences/train.parquet", "sequences/test.parquet"):
        assert pq.read_table(tmp_path / "memory" / name).equals(pq.read_table(tmp_path / "file" / name))


def test_what_is_no_table_in_memory_is_an_error(tmp_path):
    rows = pa.table({"user": ["u"] * 3, "item": ["a", "b", "c"]})
    mixed = rows.to_pandas()
    mixed["item"] = pd.Series(["a", 1, 2.5], dtype=object)
    for log, format, message in (
        ([1], "auto", "the log is a list; give a path, a DataFrame, a pyarrow.Table, or one split"),
        (DatasetDict({"train": Dataset(rows)}), "auto", "the log is a DatasetDict; give a path, .* or one split as a"),
        (rows, "csv", "`format` is 'csv', but a table in memory has no file format; leave it out"),
        (mixed, "auto", "the DataFrame can't be read as a table: .*; give each column one type, and ids as text"),
        (rows.rename_columns(["who", "item"]), "auto", r"the Table has no column .* users, only \['who', 'item'\]"),
    ):
        fails(log, format, tmp_path, ValueError, message)
    fails(rows, "auto", tmp_path, ValueError, "`separator` is ';', but the format", separator=";")


@pytest.mark.parametrize(
    ("dates", "order"),
    [
        (["12/1/2010 8:26", "1/31/2010 8:26", "2/1/2010 18:26:30"], "bca"),  # the day 31 says which is the month
        (["1/12/2010", "31/1/2010", "2/1/2010"], "cba"),
        (["01.12.2010 08:26", "31.01.2010 08:26", "31.01.2010 07:26"], "cba"),
    ],
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_dates_with_slashes_are_read_where_a_day_tells_them_from_months(dates, order, kind):
    table = pa.table({"user": ["u"] * 3, "item": list("abc"), "date": pa.array(dates, kind)})
    log = read_source(table, "auto", SourceOptions())[0].interactions
    assert "".join(log.item_ids[log.items]) == order


@pytest.mark.parametrize("dates", [["1/2/2010", "2/1/2010"], ["13/1/2010", "1/13/2010"], ["31/6/2010", "1/6/2010"]])
def test_dates_whose_month_is_not_clear_are_no_times(tmp_path, dates):
    path = write(tmp_path / "log.csv", "user,item,date\n" + "".join(f"u,{date},{date}\n" for date in dates))
    fails(
        path, "auto", tmp_path, ValueError, f"2 malformed rows .* 'date' is '{dates[0]}', neither a number nor a date"
    )


def test_the_command_needs_no_flag_but_the_folder_and_shows_what_it_recognised(tmp_path, capsys):
    path = log_of(tmp_path / "log.csv", ("CustomerID", "StockCode", "InvoiceDate"))
    assert main(["prepare", str(path), "--output-dir", str(tmp_path / "data"), "--min-count", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    expect(shown, format="csv", columns="CustomerID is the user, StockCode the item, InvoiceDate the time")
    assert "| item columns | none |" in (tmp_path / "data/README.md").read_text()


READING = [lambda path: read_source(path, "auto", SourceOptions()), contents_of, read_histories]


@pytest.mark.parametrize("read", READING)
def test_an_empty_path_is_not_the_current_folder(read):
    with pytest.raises(ValueError, match="`path` is '', an empty text; name a file or folder"):
        read("")
