"""Names that the columns of logs commonly have, by which they are recognised.

Names are compared without case, blanks and underscores. A group of names is looked for as a whole before the next one:
within a group no name is better than another.
"""

import re
from collections.abc import Collection, Iterable

USERS = (
    ("userid",),
    (
        *("user", "uid", "customerid", "customer", "custid", "clientid", "client", "memberid", "member", "visitorid"),
        *("visitor", "reviewerid", "reviewer", "accountid", "account", "buyerid", "buyer", "shopperid", "personid"),
        *("playerid", "listenerid", "readerid", "subscriberid", "authorid", "fullvisitorid"),
    ),
    ("username", "customername", "reviewername", "membername"),
    ("sessionid", "session"),
)
ITEMS = (
    ("itemid",),
    ("parentasin",),  # variants of a product share it
    (
        *("item", "iid", "productid", "prodid", "asin", "movieid", "filmid", "sku", "skuid", "stockcode", "articleid"),
        *("trackid", "songid", "bookid", "isbn", "videoid", "newsid", "gameid", "appid", "businessid", "recipeid"),
        *("courseid", "listingid", "offerid", "goodsid", "productcode", "itemcode", "venueid", "poiid", "animeid"),
        *("contentid", "postid", "jobid", "hotelid", "showid"),
    ),
    (
        *("product", "article", "track", "movie", "film", "song", "book", "video", "news", "game", "recipe", "course"),
        *("artistid", "artist", "venue", "url"),
    ),
)
ITEMS_OF_FILE = (*ITEMS, ("id",))  # which in a log is the row's
TIMES = (
    ("timestamp",),
    ("unixreviewtime", "unixtime", "unixtimestamp"),
    (
        *("time", "ts", "date", "datetime", "eventtime", "eventtimestamp", "eventdate", "createdat", "createdtime"),
        *("createtime", "reviewtime", "invoicedate", "orderdate", "orderedat", "purchasedate", "purchasetime", "tdat"),
        *("transactiondate", "transactiontime", "clicktime", "viewtime", "playedat", "visittime", "ratingtime"),
        *("timestampms", "reviewdate", "occurredat", "servertime"),
    ),
)
TITLES = (
    ("title",),
    (
        *(
            "itemtitle",
            "itemname",
            "producttitle",
            "productname",
            "movietitle",
            "moviename",
            "booktitle",
            "tracktitle",
        ),
        *("trackname", "songtitle", "songname", "articletitle", "videotitle", "newstitle", "gamename", "prodname"),
    ),
    ("name",),
)
DESCRIPTIONS = (("itemdescription", "productdescription"), ("description",))  # a title where there is no other
# Columns that tell rows of one kind from those of another
EVENTS = (
    *("event", "eventtype", "eventname", "behavior", "behaviour", "behaviortype", "behaviourtype", "action"),
    *("actiontype", "interaction", "interactiontype", "activity"),
)
RATINGS = ("rating", "ratings", "stars", "overall", "score", "reviewscore")


def plain(name: str) -> str:
    """A name without case, blanks and signs.

    >>> plain("Customer ID") == plain("customer_id") == plain("CustomerID")
    True
    """
    return re.sub(r"[\W_]+", "", name).casefold()


def named_like(names: Iterable[str], groups: tuple[tuple[str, ...], ...], without: Collection[str] = ()) -> list[str]:
    """Those of `names` that are in the first group which has any of them.

    >>> named_like(["uid", "Item ID", "member"], USERS)
    ['uid', 'member']
    """
    candidates = [name for name in dict.fromkeys(names) if name not in without]
    found = ([name for name in candidates if plain(name) in group] for group in groups)
    return next(filter(None, found), [])


def notes_of_unused(unused: Iterable[str]) -> list[str]:
    """What whoever gave a log should know of columns that tell its rows apart and aren't used."""
    notes = []
    for name in unused:
        if plain(name) in EVENTS:
            notes.append(
                f"the column {name!r} says what happened in a row, and all rows count alike; leave those out of "
                "the log that shouldn't count (views, say)"
            )
        elif plain(name) in RATINGS:
            notes.append(f"the column {name!r} holds ratings, and all rows count alike, those of low ratings too")
    return notes
