"""`etegrec demo` in a real browser: Debian's chromium, headless.

Without chromium these tests are skipped, except in CI, where they fail.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NASTY = '<script>document.title="broken"</script> & ${1 + 1} {{2}} <b>"bold"</b>'  # the first item's title
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "etegrec_hf", "demo"]
AUDITED = """
import sys, time

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[event == "socket.connect"]
        print(address[0] if isinstance(address, tuple) else address, file=log, flush=True)

log = open(sys.argv.pop(1), "w")
sys.addaudithook(note)
from etegrec_hf.cli.main import main
from etegrec_hf.demo.recommender import DemoRecommender

recommend = DemoRecommender.recommend

def slowly(self, history, top_k, num_beams, *others):
    time.sleep(4 if num_beams == 100 else 0)
    return recommend(self, history, top_k, num_beams, *others)

DemoRecommender.recommend = slowly
sys.exit(main(["demo", *sys.argv[1:]]))
"""  # the command, which writes the hosts that it looks up or connects to into a file, and is slow with a beam of 100

expect.set_options(timeout=30_000)  # a busy machine draws a page in seconds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="drives a real browser: install chromium"),
]


def save(folder: Path, prepared, titles: dict[str, str]) -> str:
    codes = random_codes(prepared.n_items, 3, 8)
    tokenizer = ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8, item_titles=titles)
    save_model_folder(folder, make_model(codes, 8), tokenizer, TrainingRecord())
    return str(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Demo:
    """A running `etegrec demo`, which at the end has asked no other host for anything."""

    def __init__(self, log: Path, *arguments: str):
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-c", AUDITED, str(log), *arguments, "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        told = self.process.stdout.readline()
        assert told.strip() == f"The demo is at {self.url}/ (Ctrl-C ends it)."

    def close(self) -> None:
        assert self.process.poll() is None, "it ended by itself"
        self.process.terminate()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        assert set(self.log.read_text().split()) <= {"127.0.0.1", "localhost", "None"}


@pytest.fixture(scope="module")
def demo(prepared, prepared_folder, tmp_path_factory):
    """With titles and data."""
    titles = prepared.title_of | {"item00000": NASTY}
    place = tmp_path_factory.mktemp("demo")
    folder = save(place / "model", prepared, titles)
    demo = Demo(place / "hosts.txt", "--model", folder, "--data", prepared_folder)
    yield demo
    demo.close()


@pytest.fixture(scope="module")
def bare_demo(prepared, tmp_path_factory):
    """Without titles and data."""
    place = tmp_path_factory.mktemp("bare")
    demo = Demo(place / "hosts.txt", "--model", save(place / "model", prepared, {}))
    yield demo
    demo.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose network log shows, at the end, that it talked to this machine alone."""
    log = tmp_path_factory.mktemp("browser") / "network.json"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=[*ARGUMENTS, f"--log-net-log={log}"]
        )
        yield browser
        browser.close()
    asked = asked_by_pages(log)
    assert len(asked) > 100
    assert {urlsplit(url).hostname for url in asked} == {"127.0.0.1"}


def asked_by_pages(log: Path) -> list[str]:
    """Addresses that pages asked for or told the browser to connect to; not what the browser itself looks for."""
    events = json.loads(log.read_text())
    kinds = {number: name for name, number in events["constants"]["logEventTypes"].items()}
    addresses = []
    for event in events["events"]:
        kind, parameters = kinds[event["type"]], event.get("params", {})
        is_request = (
            kind == "URL_REQUEST_START_JOB" and parameters.get("initiator", "not an origin") != "not an origin"
        )
        is_connection = kind == "HTTP_STREAM_JOB_CONTROLLER" and parameters.get("is_preconnect")
        if is_request or is_connection:
            addresses.append(parameters["url"])
    return [address for address in addresses if not address.startswith(("data:", "blob:"))]


@pytest.fixture
def page(browser):
    """A new page, which must not run into errors of its scripts."""
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert errors == []


def open_demo(page: Page, demo: Demo) -> None:
    page.goto(demo.url)
    expect(page.get_by_label("Search items by title or id")).to_be_visible()


def write_history(page: Page, *item_ids: str) -> None:
    page.get_by_label("History: item ids").fill("\n".join(item_ids))


def search_for(page: Page, text: str) -> None:
    """Types into the focused field until its match is there: a page that has just opened may not listen yet."""
    for _ in range(10):
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.keyboard.insert_text(text)
        try:
            expect(page.get_by_role("checkbox", name=text)).to_be_visible(timeout=2000)
            page.wait_for_timeout(500)  # for answers to what stood in the field on the way
            return
        except AssertionError:
            continue
    pytest.fail(f"no match for {text!r}")


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()


def set_up(page: Page, name: str, value: str) -> None:
    """Sets a number among the settings of the search, which are folded away at first, until it stays.

    A setting that has just been unfolded may not listen yet: its slider then stays where it was.
    """
    number = page.get_by_label(f"number input for {name}")
    slider = page.get_by_label(f"range slider for {name}")
    if not number.is_visible():
        press(page, "Search settings ▼")
    for _ in range(10):
        slider.fill(value)  # an emptied number would be an event without a value
        page.wait_for_timeout(500)
        if number.input_value() == slider.input_value() == value:
            return
    pytest.fail(f"{name} doesn't stay at {value}")


def rows(page: Page, caption: str = "Recommended items") -> list[list[str]]:
    """Cells of a table, once it is there."""
    table = page.get_by_role("table", name=caption)
    expect(table).to_be_visible()
    return [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]


def test_from_three_items_to_ten_with_the_keyboard(demo, page, prepared):
    open_demo(page, demo)
    search = page.get_by_label("Search items by title or id")
    titles = ["script", prepared.titles[1], prepared.titles[2]]
    search.focus()
    for title in titles:
        search_for(page, title)
        expect(page.get_by_text("Found: 1", exact=True)).to_be_visible()
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        expect(page.get_by_role("checkbox", name=title)).to_be_checked()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # Add to history
        chosen = page.locator("ol.history li span").last
        expect(chosen).to_have_text(NASTY if title == "script" else title)
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        expect(search).to_be_focused()
    expect(page.locator("ol.history li span")).to_have_text([NASTY, *titles[1:]])
    expect(page.get_by_label("History: item ids")).to_have_value("item00000\nitem00001\nitem00002")

    recommend = page.get_by_role("button", name="Recommend", exact=True)
    for _ in range(40):
        page.keyboard.press("Tab")
        if recommend.evaluate("button => button == document.activeElement"):
            break
    page.keyboard.press("Enter")
    listed = rows(page)
    assert [row[0] for row in listed] == [str(place) for place in range(1, 11)]
    title_of = prepared.title_of | {"item00000": NASTY}
    assert [row[1] for row in listed] == [title_of[row[4]] for row in listed]
    scores = [float(row[2].rstrip("%")) for row in listed]
    assert scores == sorted(scores, reverse=True)
    assert all(re.fullmatch(r"<a_\d> <b_\d> <c_\d>", row[5]) for row in listed)


def test_the_beam_is_drawn_and_an_excluded_item_leaves_list_and_beam(demo, page):
    open_demo(page, demo)
    write_history(page, "item00003", "item00004")
    press(page, "Recommend")
    first = rows(page)
    press(page, "The beam, level by level ▼")
    tree = page.get_by_role("img", name="Beam search as a tree: 8, 20, 20 prefixes kept at levels 1 to 3.")
    expect(tree).to_be_visible()
    listed = tree.locator("text.listed")
    gone = first[0][1]
    expect(listed.filter(has_text=re.compile(rf"^{re.escape(gone)}1\. "))).to_have_count(1)

    press(page, f"Exclude {gone}")
    expect(page.get_by_role("table", name="Recommended items").get_by_text(gone, exact=True)).to_have_count(0)
    second = rows(page)
    assert [row[4] for row in second][:9] == [row[4] for row in first][1:]
    assert len(second) == 10
    expect(tree.locator("text.item").filter(has_text=re.compile(rf"^{re.escape(gone)}"))).to_have_count(0)
    page.get_by_role("checkbox", name=gone, exact=True).click()  # not `uncheck`, which looks for it again
    expect(page.get_by_role("table", name="Recommended items").get_by_text(gone, exact=True)).to_have_count(1)
    assert rows(page) == first
    expect(page.get_by_role("checkbox", name=gone, exact=True)).to_have_count(0)


def test_titles_are_text_everywhere(demo, page):
    open_demo(page, demo)
    write_history(page, "item00000", "item00001")
    press(page, "Search settings ▼")
    page.get_by_label("No items of the history").check()
    press(page, "Recommend")
    others = [row[4] for row in rows(page)]
    assert not {"item00000", "item00001"} & set(others)
    page.get_by_label("No items of the history").uncheck()
    set_up(page, "Beam width", "60")  # all items
    press(page, "Recommend")
    press(page, "The beam, level by level ▼")
    expect(page.locator("text.item", has_text=NASTY)).to_be_visible()
    page.locator("ol.history").get_by_role("button", name=f"Similar to {NASTY}").click()
    expect(page.get_by_role("table", name=f"with {NASTY}")).to_be_visible()
    assert page.title() == "etegrec demo"
    assert page.locator("table b, svg script, ol.history b, button b").count() == 0


def test_similar_items_share_a_prefix_of_codes(demo, page):
    open_demo(page, demo)
    write_history(page, "item00007")
    press(page, "Recommend")
    _, title, _, _, item_id, codes = rows(page)[0]
    press(page, f"Similar to {title}")
    similar = rows(page, "Items that share")
    shared = page.locator("caption", has_text="Items that share").inner_text().split("share ")[1].split(" with")[0]
    assert codes.startswith(shared)
    assert similar
    assert all(row[4].startswith(shared) and row[3] != item_id for row in similar)
    expect(page.get_by_role("table", name="Items that share").get_by_role("button", name="Exclude")).to_have_count(0)
    press(page, "Recommend")  # of a list that was asked for anew nothing is shown yet
    expect(page.get_by_role("table", name="Items that share")).to_have_count(0)


def test_a_word_with_a_typing_error_finds_near_titles(demo, page, prepared):
    open_demo(page, demo)
    word = max(prepared.titles[5].split(), key=len)
    page.get_by_label("Search items by title or id").fill(word[:2] + word[3:])
    expect(page.get_by_text("Nothing has these words. Near to them:")).to_be_visible()
    expect(page.get_by_role("checkbox", name=word).first).to_be_visible()
    page.get_by_label("Search items by title or id").fill("qqqqqqqq")
    expect(page.get_by_text("Nothing has these words or near ones.")).to_be_visible()
    expect(page.get_by_role("button", name="Add to history")).to_be_hidden()


def test_a_temperature_draws_other_items_each_time(demo, page):
    open_demo(page, demo)
    write_history(page, "item00007")
    set_up(page, "Temperature", "2")
    lists = set()
    for _ in range(4):
        press(page, "Recommend")
        expect(page.locator("p[role=status]")).to_contain_text("drawn at random at temperature 2")
        lists.add(tuple(row[4] for row in rows(page)))
        page.wait_for_timeout(500)
    assert len(lists) > 1


def test_a_random_user_and_popular_items(demo, page, prepared):
    open_demo(page, demo)
    press(page, "Clear")
    expect(page.get_by_text("The history is empty.")).to_be_visible()
    press(page, "Recommend")
    expect(page.locator("p[role=status]")).to_contain_text("these are the most popular items of training")
    counts = [int(row[2]) for row in rows(page, "Popular items")]
    assert counts == sorted(counts, reverse=True)
    press(page, "Random user")
    history = page.get_by_label("History: item ids")
    expect(history).not_to_have_value("")
    press(page, "Recommend")
    told = page.locator("p[role=status]").filter(has_text="took")
    expect(told).to_be_visible()
    user = re.search(r"user (user\d+) took", told.inner_text())[1]
    row = prepared.test.user_ids.index(user)
    start, end = prepared.test.offsets[row : row + 2]
    indices = prepared.test.sequences[start:end]
    assert history.input_value().split() == [prepared.item_ids[index - 1] for index in indices[:-1]]
    press(page, "Clear")
    expect(page.get_by_text("The history is empty.")).to_be_visible()


def test_unknown_items_are_named(demo, page):
    open_demo(page, demo)
    write_history(page, "item00003", "<b>nobody</b>", "item99999")
    told = "The history names '<b>nobody</b>', 'item99999', not in the catalogue of 60 items"
    expect(page.get_by_role("alert")).to_contain_text(told)
    press(page, "Recommend")
    expect(page.get_by_role("alert")).to_have_count(2)
    expect(page.get_by_role("alert").last).to_contain_text(told)
    expect(page.get_by_role("table")).to_have_count(0)


def test_without_titles_and_data(bare_demo, page):
    open_demo(page, bare_demo)
    press(page, "Clear")
    expect(page.get_by_text("The history is empty.")).to_be_visible()
    press(page, "Recommend")
    expect(page.get_by_role("alert")).to_contain_text("The history is empty: add an item to it")
    press(page, "Random items")
    expect(page.locator("ol.history li span").first).to_have_text(re.compile(r"^item\d{5}$"))
    press(page, "Recommend")
    assert len(rows(page)) == 10
    assert all(re.fullmatch(r"item\d{5}", row[3]) for row in rows(page))
    expect(page.locator("table.items th")).to_have_text(["", "probability", "", "item id", "codes"])


@pytest.mark.parametrize("shown", ["demo", "bare_demo"])
def test_the_first_screen_of_a_phone_holds_an_example_and_what_to_press(shown, request, page, prepared):
    page.set_viewport_size({"width": 390, "height": 844})
    open_demo(page, request.getfixturevalue(shown))
    history = page.get_by_label("History: item ids").input_value().split()
    assert set(history) <= set(prepared.item_ids)
    assert len(history) >= 3
    expect(page.locator("ol.history li")).to_have_count(len(history))
    button = page.get_by_role("button", name="Recommend", exact=True)
    expect(button).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    write_history(page, *prepared.item_ids[:30])  # a long one
    expect(page.locator("ol.history li")).to_have_count(30)
    expect(button).to_be_in_viewport(ratio=1)
    press(page, "Recommend")
    assert len(rows(page)) == 10


def test_the_examples_user_took_something_next(demo, page):
    open_demo(page, demo)
    expect(page.get_by_text("An example; what you add takes its place:")).to_be_visible()
    press(page, "Recommend")
    expect(page.locator("p[role=status]")).to_contain_text(re.compile(r"user user\d+ took .* next"))


def test_a_list_of_another_history_or_settings_is_marked(demo, page):
    open_demo(page, demo)
    write_history(page, "item00003", "item00004")
    press(page, "Recommend")
    first = rows(page)
    table, told = page.get_by_role("table", name="Recommended items"), page.get_by_text("This is not the list of")
    expect(told).to_have_count(0)
    expect(table).to_have_css("opacity", "1")
    write_history(page, "item00003")
    expect(told).to_be_visible()
    expect(table).to_have_css("opacity", "0.45")
    write_history(page, "item00003", "item00004")  # as it was
    expect(told).to_have_count(0)
    expect(table).to_have_css("opacity", "1")
    for name, other, before in (("Temperature", "1", "0"), ("Beam width", "30", "20")):
        set_up(page, name, other)
        expect(told).to_be_visible()
        set_up(page, name, before)
        expect(told).to_have_count(0)
    page.get_by_label("No items of the history").check()
    expect(told).to_be_visible()
    press(page, "Clear")
    expect(told).to_be_visible()
    page.get_by_label("No items of the history").uncheck()
    write_history(page, "item00005")
    press(page, "Recommend")
    expect(told).to_have_count(0)
    assert rows(page) != first


def test_a_list_that_arrives_too_late_is_marked(demo, page):
    open_demo(page, demo)
    ask_slowly(page)
    write_history(page, "item00005")
    assert len(rows(page)) == 10
    expect(page.get_by_text("This is not the list of")).to_be_visible()


def ask_slowly(page: Page) -> None:
    """Asks for what takes four seconds, and returns when the question is on its way."""
    write_history(page, "item00003", "item00004")
    set_up(page, "Beam width", "100")
    with page.expect_request("**/queue/join*"):
        press(page, "Recommend")
    assert page.get_by_role("table").count() == 0, "it was answered before it could be disturbed"


def test_pages_that_go_away_in_the_middle_leave_the_server_answering(demo, browser, page):
    open_demo(page, demo)
    ask_slowly(page)
    page.reload()
    expect(page.get_by_label("Search items by title or id")).to_be_visible()
    closing = browser.new_page()
    open_demo(closing, demo)
    ask_slowly(closing)
    closing.close()
    write_history(page, "item00003", "item00004")
    press(page, "Recommend")
    assert len(rows(page)) == 10


def test_a_port_in_use_is_named_in_one_line(demo, tmp_path):
    start = time.monotonic()
    command = [*COMMAND, "--model", str(tmp_path), "--port", str(demo.port)]  # it need not get to the model
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    said = f"etegrec demo: `port` {demo.port} of 127.0.0.1 is in use; choose another port with --port."
    assert done.stderr.splitlines() == [said]
    assert time.monotonic() - start < 60
