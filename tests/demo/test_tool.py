"""The demo's tool for agents, called by a client of the Model Context Protocol over loopback."""

import ast
import asyncio
import socket
import threading

import pytest

pytest.importorskip("gradio")

from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from etegrec_hf.demo import page as page_module
from etegrec_hf.demo.recommender import DemoRecommender


@pytest.fixture
def address(model, tokenizer, monkeypatch, capsys):
    """The address of the tool of a tiny recommender, served as by `etegrec demo`."""
    tokenizer.item_titles = {"i3": "Third"}
    pages, is_served = [], threading.Event()
    build_page = page_module.build_page

    def built(recommender):
        pages.append(build_page(recommender))
        pages[0].block_thread = is_served.set
        return pages[0]

    monkeypatch.setattr(page_module, "build_page", built)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page_module.serve(DemoRecommender(model, tokenizer), "127.0.0.1", port)
    assert is_served.is_set()
    address = f"http://127.0.0.1:{port}/{page_module.TOOLS}"
    assert capsys.readouterr().out.splitlines()[1:] == [f"Agents (MCP) find its tool at {address}"]
    yield address
    pages[0].close()


async def talk(address: str, calls: list[dict]):
    """Returns the tools of a server, and the answers to calls of its first tool."""
    async with streamable_http_client(address) as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
        return tools, [await session.call_tool(tools[0].name, arguments) for arguments in calls]


def test_an_agent_finds_one_tool_and_calls_it(address, model, tokenizer):
    history = ["i1", "i2"]
    calls = [{"history": history, "top_k": 40}, {"history": ["nobody"]}, {"history": history, "top_k": 0}]
    (tool,), (found, unknown, none) = asyncio.run(talk(address, calls))
    assert tool.name.endswith("recommend")
    assert "Recommends the items that a person takes next" in tool.description
    assert tool.inputSchema["properties"]["history"]["type"] == "array"
    assert tool.inputSchema["properties"]["history"]["items"] == {"type": "string"}
    assert tool.inputSchema["properties"]["top_k"]["type"] == "integer"
    assert "oldest first" in tool.inputSchema["properties"]["history"]["description"]
    listed = ast.literal_eval(found.content[0].text)  # as Gradio writes it
    items, scores = model.recommend(**tokenizer([history], return_tensors="pt"), top_k=40, num_beams=40)
    assert [entry["item_id"] for entry in listed] == tokenizer.ids_of(items[0])
    assert [entry["score"] for entry in listed] == pytest.approx(scores[0].tolist(), abs=1e-5)
    assert {entry["item_id"]: entry["title"] for entry in listed if "title" in entry} == {"i3": "Third"}
    for answer, message in (
        (unknown, "The history names 'nobody', not in the catalogue of 40 items; correct or remove them."),
        (none, "`top_k` is 0; give a number from 1 to 100"),
    ):
        assert answer.isError
        assert message in answer.content[0].text
