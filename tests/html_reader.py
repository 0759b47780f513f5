"""What a page of HTML says, for tests."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        sections (`dict[str, list[list[list[str]]]]`): by a section's id, its tables as rows of cells.
        words (`dict[str, str]`): by a section's id, all of its text.
        marked (`list[list[str]]`): rows that stand out.
        attributes (`list[tuple[str, str, str]]`): tag, name and value of each attribute.
        tags (`list[str]`): that were opened.
    """

    EMPTY = {"meta", "img", "br"}

    def __init__(self, html: str):
        super().__init__()
        self.sections, self.words, self.marked, self.attributes, self.tags = {}, {"": ""}, [], [], []
        self.section, self.open = "", []
        self.feed(html)
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attributes)["id"]
            assert self.section not in self.sections
            self.sections[self.section], self.words[self.section] = [], ""
        elif tag == "table":
            self.sections[self.section].append([])
        elif tag == "tr":
            self.sections[self.section][-1].append([])
            if "marked" in dict(attributes).get("class", ""):
                self.marked.append(self.sections[self.section][-1][-1])
        elif tag in ("td", "th"):
            self.sections[self.section][-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data):
        self.words[self.section] += data
        if {"td", "th"} & set(self.open):
            self.sections[self.section][-1][-1][-1] += data


def columns(table: list[list[str]]) -> list[dict[str, str]]:
    """The rows of a table with a header, by the header's names."""
    header, *rows = table
    return [dict(zip(header, row, strict=True)) for row in rows]
