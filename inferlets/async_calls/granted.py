"""Tools from outside, as far as the manifest asks for them and the operator allows: MCP servers', and HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from cadenza import http, remote

from .toolbox import Tool, Toolbox


def offer_granted(tools: Toolbox) -> list[str]:
    """Offers every tool of the catalog; `weather.forecast` is called `weather_forecast`. Answers their names."""
    for description in remote.catalog():
        tools.put(of_catalog(description))
    return [name_of(description) for description in remote.catalog()]


def of_catalog(description: remote.Description) -> Tool:
    """What the server says is an error is one for the model: `error: …`."""
    names = tuple(description.schema.get("properties", {}))

    async def call(*values: object, **named: object) -> str:
        if len(values) > len(names):
            raise TypeError(f"{description.name} takes {len(names)} arguments, not {len(values)}")
        given: Mapping[str, object] = {**dict(zip(names, values, strict=False)), **named}
        return str(await remote.call(description.name, **given))

    return Tool(name_of(description), call, parameters=names)


def name_of(description: remote.Description) -> str:
    return description.name.replace(".", "_").replace("-", "_")


def offer_web(tools: Toolbox, name: str = "fetch_page") -> None:
    """Offers to get the text of a page, from the hosts of the manifest."""
    async def fetch(url: str) -> str:
        answer = await http.get(url)
        return answer.text if answer.ok else f"error: status {answer.status}"

    tools.put(Tool(name, fetch, parameters=("url",)))
