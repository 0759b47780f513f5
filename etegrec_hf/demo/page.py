"""The page of the demo: a Gradio app over a [`DemoRecommender`]. It needs gradio (extra `demo`)."""

import math
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO

import gradio as gr

from ..data.item_ids import write_item_ids
from ..data.wording import counted
from .beam_tree import beam_tree, probability_text
from .recommender import DemoRecommender
from .tables import history_list, item_table, message

TOP_K = 10  # recommended items
MATCHES = 10  # items that a search shows; the catalogue stays on the server
SIMILAR = 20
TOOLS = "gradio_api/mcp/"  # after the address of the page
MOST = 100  # largest `top_k` of the tool
MAX_BEAMS = 100  # or more, by the model's own settings
TREE_HINT = (
    "Each level keeps the most probable prefixes. A box shows the last code of a prefix and the probability of the "
    "whole prefix. The thicker a line, the larger the child's share of its parent's probability. Pale prefixes were "
    "kept but led to no item of the final beam. Numbers are places in the list."
)
STALE = "This is not the list of the history and settings as they are now: press Recommend."
HIDDEN = {"api_visibility": "private"}  # for handlers that only the page itself may call
PLAIN = {"apply_default_css": False}  # the page has its own
SCROLL = "() => document.querySelector('.neighbours').scrollIntoView({block: 'nearest', behavior: 'smooth'})"
# Each list makes its buttons anew, so the box around them listens; `select` asks for similar items
BUTTONS = """element.addEventListener("click", event => {
    const button = event.target.closest("button[data-item]");
    if (button) trigger(button.dataset.event, {item: button.dataset.item});
});"""
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # nothing to download
CSS = """
.message { padding: 8px 12px; background: var(--background-fill-secondary); }
.message { border-left: 4px solid var(--primary-500); }
.message.error { border-color: #dc2626; }
.html-container.html-container { padding: 0; }
.block:has(> .html-container > div:empty) { display: none; }
.hint { color: var(--body-text-color-subdued); }
ol.history { margin: 0; padding-left: 1.6em; list-style: decimal; max-height: 7.5em; overflow: auto; }
.gradio-container:has(.stale .message) :is(.list-box table, .beam-tree) { opacity: 0.45; }
.items-box { overflow-x: auto; }
table.items { border-collapse: collapse; width: 100%; font-size: 14px; }
table.items caption { text-align: left; padding: 4px 0; color: var(--body-text-color-subdued); }
table.items th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--border-color-primary); }
table.items th, table.items td { padding: 5px 10px 5px 0; white-space: nowrap; }
table.items td { border-bottom: 1px solid var(--border-color-primary); }
table.items td.title { white-space: normal; min-width: 12em; }
table.items td.number { font-variant-numeric: tabular-nums; }
table.items td.rank { color: var(--body-text-color-subdued); }
table.items td.id, table.items td.codes { font-family: var(--font-mono); font-size: 12px; }
table.items tr.marked td { background: color-mix(in srgb, var(--primary-500) 15%, transparent); }
table.items td.acts { white-space: nowrap; }
button.act { font-size: 12px; padding: 3px 8px; border: 1px solid var(--border-color-primary); border-radius: 999px; }
button.act { color: var(--body-text-color-subdued); background: transparent; cursor: pointer; line-height: 1.4; }
button.act:hover, button.act:focus-visible { color: var(--body-text-color); border-color: var(--primary-500); }
button.act + button.act { margin-left: 4px; }
@media (max-width: 640px) {
  table.items th, table.items td { padding-right: 6px; font-size: 13px; }
  table.items td.title { min-width: 7em; }
  table.items td.acts { white-space: normal; width: 64px; }
  table.items button.act { display: block; margin: 2px 0; width: 60px; padding: 2px 0; }
}
ol.history button.act { padding: 0 6px; margin-left: 6px; border-color: transparent; }
.tree-box { overflow: auto; max-height: 75vh; }
.beam-tree { max-width: none; }
.beam-tree text { fill: var(--body-text-color); font: 12px var(--font-mono); }
.beam-tree text.item { font: 13px var(--font); }
.beam-tree text.listed { font-weight: 600; }
.beam-tree rect { fill: var(--primary-500); stroke: var(--primary-500); }
.beam-tree path { fill: none; stroke: var(--primary-500); opacity: 0.5; }
.beam-tree g.dropped { opacity: 0.6; }
.beam-tree g.dropped rect { stroke-dasharray: 3 3; }
.beam-tree path.dropped { stroke-dasharray: 3 3; opacity: 0.3; }
"""


def recommend_tool(recommender: DemoRecommender) -> Callable[[list[str], int], list[dict]]:
    """Returns the function that agents call; its name, types and docstring are the description that they get."""

    def recommend(history: list[str], top_k: int = TOP_K) -> list[dict]:
        """Recommends the items that a person takes next, given the items that they took so far.

        Every item is one of the catalogue. An empty history gives the most popular items.

        Args:
            history: Item ids of the catalogue, oldest first.
            top_k: How many items to recommend, 1 to 100.

        Returns:
            A list of objects, best first: item_id, title where it is known, and score, a log-probability; popular
            items have the number of their interactions instead of a score.
        """
        try:
            if not 1 <= top_k <= MOST:
                raise ValueError(f"`top_k` is {top_k}; give a number from 1 to {MOST}.")
            if not history:
                found, counts = recommender.popular(top_k, [])
                rows = [{"item_id": item_id, "count": count} for item_id, count in zip(found, counts)]
            else:
                recommender.check_known(history)
                num_beams = max(top_k, recommender.settings.num_beams)
                listed = recommender.recommend(history, top_k, num_beams)
                rows = [{"item_id": item_id, "score": score} for item_id, score in zip(listed.item_ids, listed.scores)]
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        titles = recommender.titles
        return [row | ({"title": titles[row["item_id"]]} if row["item_id"] in titles else {}) for row in rows]

    return recommend


def build_page(recommender: DemoRecommender) -> gr.Blocks:
    """Makes the page of a recommender. All results are computed on the server, and the catalogue stays there."""
    has_users = recommender.data is not None and len(recommender.data.test) > 0
    example, settings = recommender.example_history(), recommender.settings
    example_text = write_item_ids(example.item_ids)

    def find(query: str, chosen: list[str]):
        found, total = recommender.find(query, MATCHES)
        shown = f"Found: the first {len(found)} of {total}" if total > len(found) else f"Found: {total}"
        is_search = bool(query.strip())
        if is_search and total == 0:
            found = recommender.near(query, MATCHES)
            shown = "Nothing has these words. Near to them:" if found else "Nothing has these words or near ones."
        kept = [item_id for item_id in chosen if item_id in found]
        choices = recommender.choices(found)
        return (
            gr.CheckboxGroup(choices=choices, value=kept, info=shown, visible=is_search),
            gr.Button(visible=bool(found)),
        )

    def add(text: str, chosen: list[str]):
        before = "" if text == example_text else text.rstrip("\n")  # added items replace the example
        lines = [line for line in (before, write_item_ids(chosen)) if line]
        return "\n".join(lines), gr.CheckboxGroup(value=[])

    def show_history(text: str) -> str:
        try:
            listed = history_list(recommender, recommender.read_history(text))
        except ValueError as error:
            return message(str(error), is_error=True)
        return (
            f'<p class="hint">An example; what you add takes its place:</p>{listed}'
            if text == example_text
            else listed
        )

    def mark(shown: tuple | None, *asked) -> str:
        """Returns a note if the list on the page belongs to another history or other settings than now."""
        return message(STALE) if shown is not None and tuple(shown) != asked else ""

    def take_random():
        drawn = recommender.random_history()
        return write_item_ids(drawn.item_ids), drawn

    def recommend(text, num_beams, temperature, exclude_history, exclude, drawn):
        asked = (text, num_beams, temperature, exclude_history)
        try:
            history = recommender.read_history(text)
            if not history:
                return asked, *popular(exclude)
            found = recommender.recommend(history, TOP_K, int(num_beams), temperature, exclude, exclude_history)
        except ValueError as error:
            return None, message(str(error), is_error=True), "", gr.CheckboxGroup(), "", ""
        next_id = drawn.next_id if drawn is not None and drawn.item_ids == history else None
        notes = [counted(len(found.item_ids), "item")]
        if temperature > 0:
            notes[0] += f" drawn at random at temperature {temperature:g}, with the probabilities of that draw"
        if len(found.item_ids) < TOP_K:
            notes.append("no more are left")
        if next_id is not None:
            notes.append(what_came_next(drawn.user_id, next_id, found.item_ids))
        columns = {"probability": [probability_text(math.exp(score)) for score in found.scores]}
        if found.is_reranked:
            columns = {"score": [f"{score:.2f}" for score in found.scores]}
        labels = {prefix.item_id: recommender.label(prefix.item_id) for prefix in found.beam[-1] if prefix.item_id}
        return (
            asked,
            message("; ".join(notes) + "."),
            item_table(recommender, found.item_ids, "Recommended items", columns, marked=next_id, can_exclude=True),
            excluded(exclude),
            beam_tree(found.beam, labels, found.item_ids),
            "",
        )

    def recommend_without(clicked: gr.EventData, *request):
        text, num_beams, temperature, exclude_history, exclude, drawn = request
        left_out = list(dict.fromkeys([*exclude, clicked.item]))
        return recommend(text, num_beams, temperature, exclude_history, left_out, drawn)

    def excluded(item_ids: list[str]):
        return gr.CheckboxGroup(choices=recommender.choices(item_ids), value=item_ids, visible=bool(item_ids))

    def what_came_next(user_id: str | None, next_id: str, listed: list[str]) -> str:
        place = f"at place {listed.index(next_id) + 1}" if next_id in listed else "which is not among them"
        return f"user {user_id} took {recommender.label(next_id)} next, {place}"

    def popular(exclude: list[str]):
        item_ids, counts = recommender.popular(TOP_K, exclude)
        return (
            message("The history is empty: these are the most popular items of training, the same for everybody."),
            item_table(
                recommender, item_ids, "Popular items", {"times in training": [*map(str, counts)]}, can_exclude=True
            ),
            excluded(exclude),
            "",
            "",
        )

    def similar(clicked: gr.EventData) -> str:
        item_id = clicked.item
        try:
            found = recommender.similar(item_id, SIMILAR)
        except ValueError as error:
            return message(str(error), is_error=True)
        if found.shared_codes == 0:
            return message(f"No other item has the first code of {recommender.label(item_id)}.")
        prefix = " ".join(recommender.codes(item_id)[: found.shared_codes])
        count = len(found.item_ids)
        shown = f"{count}" if count == found.total else f"{count} of {found.total}"
        caption = f"Items that share {prefix} with {recommender.label(item_id)}: {shown}"
        return item_table(recommender, found.item_ids, caption)

    with gr.Blocks(title="etegrec demo", analytics_enabled=False) as page:
        gr.Markdown(f"# What comes next?\nA recommender of {counted(len(recommender.tokenizer.item_ids), 'item')}.")
        drawn, shown = (
            gr.State(example),
            gr.State(None),
        )  # a history to try, and the request that the shown list answers
        with gr.Row():
            with gr.Column(scale=2, min_width=340):
                gr.Markdown("## History")
                query = gr.Textbox(label="Search items by title or id", max_lines=1)
                matches = gr.CheckboxGroup(label="Matches", choices=[], visible=False)
                add_button = gr.Button("Add to history", visible=False)
                history = gr.Textbox(
                    example_text, label="History: item ids, oldest first, one per line", lines=3, max_lines=6
                )
                titles = gr.HTML(show_history(example_text), js_on_load=BUTTONS, **PLAIN)
                with gr.Row():
                    random_button = gr.Button("Random user" if has_users else "Random items", min_width=120)
                    clear_button = gr.Button("Clear", min_width=120)
                recommend_button = gr.Button("Recommend", variant="primary")
                with gr.Accordion("Search settings", open=False):
                    num_beams = gr.Slider(
                        TOP_K,
                        max(MAX_BEAMS, settings.num_beams),
                        max(TOP_K, settings.num_beams),
                        step=1,
                        label="Beam width",
                        info="Prefixes kept at each level",
                    )
                    temperature = gr.Slider(
                        0, 2, 0, step=0.1, label="Temperature", info="0: most probable items; above: a random draw"
                    )
                    exclude_history = gr.Checkbox(settings.exclude_history, label="No items of the history")
            with gr.Column(scale=3, min_width=340):
                gr.Markdown("## Recommendations")
                stale = gr.HTML(elem_classes="stale", **PLAIN)
                note = gr.HTML('<p class="hint">The list will be here.</p>', **PLAIN)
                table = gr.HTML(elem_classes=["items-box", "list-box"], js_on_load=BUTTONS, **PLAIN)
                exclude = gr.CheckboxGroup(
                    label="Excluded",
                    choices=[],
                    info="Left out of the search, so that others take their places; untick one to let it back",
                    visible=False,
                )
                neighbours = gr.HTML(elem_classes=["items-box", "neighbours"], js_on_load=BUTTONS, **PLAIN)
        with gr.Accordion("The beam, level by level", open=False):
            gr.Markdown(TREE_HINT)
            tree = gr.HTML(elem_classes="tree-box", **PLAIN)

        # one function is a tool; all other handlers are for the page alone
        gr.api(recommend_tool(recommender), api_name="recommend")
        quietly = {"trigger_mode": "always_last", "show_progress": "hidden", **HIDDEN}
        query.change(find, [query, matches], [matches, add_button], **quietly)
        add_button.click(add, [history, matches], [history, matches], **HIDDEN)
        random_button.click(take_random, None, [history, drawn], **HIDDEN)
        clear_button.click(lambda: "", None, history, **HIDDEN)
        history.change(show_history, history, titles, **quietly)
        asked = [history, num_beams, temperature, exclude_history]
        answer = [shown, note, table, exclude, tree, neighbours]
        gr.on([recommend_button.click, exclude.input], recommend, [*asked, exclude, drawn], answer, **HIDDEN)
        table.delete(recommend_without, [*asked, exclude, drawn], answer, **HIDDEN)
        gr.on(  # also when a list arrives, as the request may have changed since
            [shown.change, *(part.change for part in asked)],
            mark,
            [shown, *asked],
            stale,
            **quietly,
        )
        clicks = [table.select, titles.select, neighbours.select]
        gr.on(clicks, similar, None, neighbours, **HIDDEN).then(None, js=SCROLL, **HIDDEN)
    return page


def serve(recommender: DemoRecommender, host: str | None = None, port: int | None = None) -> None:
    """Serves the page until it is interrupted, and one tool for agents (MCP) under `gradio_api/mcp/`.

    The page isn't shared, and makes no requests to other hosts.

    Args:
        recommender ([`DemoRecommender`]): the recommender of the page.
        host, port (*optional*): address of the page; by default Gradio's `GRADIO_SERVER_NAME` and
            `GRADIO_SERVER_PORT`, which a Space sets, or else 127.0.0.1 and the first free port from 7860 on.
    """
    page = build_page(recommender)
    with redirect_stdout(StringIO()):  # Gradio prints its tools even if `quiet`
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            mcp_server=True,
            theme=gr.themes.Default(primary_hue="teal", **FONTS).set(
                body_text_color_subdued="*neutral_600",
                block_info_text_color="*neutral_600",
                button_primary_background_fill="*primary_700",
                button_primary_background_fill_hover="*primary_800",
            ),
            css=CSS,
        )
    print(f"The demo is at {address} (Ctrl-C ends it).", flush=True)
    print(f"Agents (MCP) find its tool at {address}{TOOLS}", flush=True)
    page.block_thread()
