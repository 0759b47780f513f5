"""README is short, its figures and links hold, and so do citations of the specification."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose_of(path: Path) -> str:
    return CODE.sub("", path.read_text(encoding="utf-8"))


def anchors_of(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_rows_of_the_readme_are_rows_of_the_page_on_quality():
    rows = re.search(r"start:quality.*?\n(.*?)<!--.*?end:quality", prose_of(ROOT / "README.md"), re.DOTALL)[1]
    missing = set(rows.splitlines()) - set(prose_of(ROOT / "docs/quality.md").splitlines())
    assert not missing, "change figures in both places"


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_links_outside_the_site_lead_somewhere(page):
    """What `mkdocs build --strict` checks for the pages of the site."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(ROOT / page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        assert (ROOT / path).exists(), target
        assert not anchor or anchor in anchors_of(ROOT / path), target


def test_cited_sections_of_the_specification_exist():
    headings = re.findall(r"^#+ (\d+(?:\.\d+)?)\.? ", prose_of(ROOT / "docs/specification.md"), re.MULTILINE)
    cited = set()
    for path in (ROOT / "docs/paper.md", *(ROOT / "etegrec_hf").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for numbers in re.findall(r"specification(?:, sections?)? (\d[\d., and]*)", text):
            cited |= set(re.findall(r"\d+(?:\.\d+)?", numbers))
    assert {"2.2", "4.2", "9.2"} <= cited <= set(headings)
