"""Common names of columns in logs, by which the columns are recognised.

Names are compared without case, blanks and signs. Groups of names are tried in order; within a group all names are
equally good.
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
    ("parentasin",),  # shared by the variants of a product
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
ITEMS_OF_FILE = (*ITEMS, ("id",))  # in a log, `id` would be that of the row
TIMES = (
    ("timestamp",),
    ("unixreviewtime", "unixtime", "unixtimestamp"),
    (
        *("time", "ts", "date", "datetime", "eventtime", "eventtimestamp", "eventdate", "createdat", "createdtime"),
        *("createtime", "reviewtime", "invoicedate", "orderdate", "orderedat", "purchasedate", "purchasetime", "tdat"),
        *("transactiondate", "transactiontime", "clicktime", "viewtime", "playedat", "visittime", "ratingtime"),
        *("timestampms", "reviewdate", "occurredat", "servertime", "boughtat", "purchasedat", "viewedat", "clickedat"),
        *("watchedat", "listenedat", "readat", "ratedat", "addedat", "visitedat", "placedat", "soldat"),
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
DESCRIPTIONS = (("itemdescription", "productdescription"), ("description",))  # used as titles if there are no others
# columns that tell different kinds of rows apart
EVENTS = (
    *("event", "eventtype", "eventname", "behavior", "behaviour", "behaviortype", "behaviourtype", "action"),
    *("actiontype", "interaction", "interactiontype", "activity"),
)
RATINGS = ("rating", "ratings", "stars", "overall", "score", "reviewscore")


def plain(name: str) -> str:
    """Returns a name in lower case, without blanks and signs.

    >>> plain("Customer ID") == plain("customer_id") == plain("CustomerID")
    True
    """
    return re.sub(r"[\W_]+", "", name).casefold()


def named_like(names: Iterable[str], groups: tuple[tuple[str, ...], ...], without: Collection[str] = ()) -> list[str]:
    """Returns the names that are in the first group that contains any of them; those in `without` are left out.

    >>> named_like(["uid", "Item ID", "member"], USERS)
    ['uid', 'member']
    """
    candidates = [name for name in dict.fromkeys(names) if name not in without]
    found = ([name for name in candidates if plain(name) in group] for group in groups)
    return next(filter(None, found), [])


def notes_of_unused(unused: Iterable[str]) -> list[str]:
    """Returns notes for the user about unused columns that tell different kinds of rows apart."""
    notes = []
    for name in unused:
        if plain(name) in EVENTS:
            notes.append(
                f"the column {name!r} says what happened in a row, but all rows count the same; remove rows from "
                "the log that shouldn't count (such as views)"
            )
        elif plain(name) in RATINGS:
            notes.append(f"the column {name!r} holds ratings, but all rows count the same, also those of low ratings")
    return notes
