"""A host of the Model Context Protocol, built with the protocol's own SDK for Python.

It starts the server that its arguments name, and then carries out what it reads from stdin, a JSON
object a line, and answers each with one:

    {"tool": NAME, "arguments": {...}}      calls a tool
    {"tool": NAME, "arguments": {...}, "seconds": S}   gives up, and says so, after S seconds
    {"told": N}                             waits for N notifications of a channel in all

The first line that it writes is how it was greeted, and what tools there are.
"""

import asyncio
import json
import sys

import anyio
import pydantic
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client
from mcp.client.extension import NotificationBinding

METHOD = "notifications/claude/channel"


class Told(pydantic.BaseModel):
    content: str
    meta: dict[str, str]


def say(value):
    print(json.dumps(value), flush=True)


async def call(session, order):
    try:
        result = await session.call_tool(
            order["tool"], order.get("arguments"), read_timeout_seconds=order.get("seconds")
        )
    except MCPError as error:
        return {"protocol_error": str(error)}
    text = "".join(block.text for block in result.content)
    if result.is_error:
        return {"error": text}
    # Hosts that know no structured results read the text.
    assert json.loads(text) == result.structured_content, text
    return result.structured_content


async def main():
    command, *arguments = sys.argv[1:]
    told = []
    more = anyio.Event()

    async def take(params):
        nonlocal more
        told.append({"content": params.content, "meta": params.meta})
        more.set()
        more = anyio.Event()

    server = StdioServerParameters(command=command, args=arguments)
    channel = NotificationBinding(method=METHOD, params_type=Told, handler=take)
    async with stdio_client(server) as (read, write):
        async with ClientSession(read, write, notification_bindings=[channel]) as session:
            greeting = await session.initialize()
            tools = (await session.list_tools()).tools
            say({
                "server": greeting.server_info.name,
                "instructions": greeting.instructions,
                "experimental": greeting.capabilities.experimental,
                "tools": [tool.name for tool in tools],
            })
            while line := await asyncio.to_thread(sys.stdin.readline):
                order = json.loads(line)
                if "told" in order:
                    while len(told) < order["told"]:
                        await more.wait()
                    say({"told": told})
                else:
                    say(await call(session, order))


asyncio.run(main())
