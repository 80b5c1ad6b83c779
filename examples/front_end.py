"""A front end in 20 lines: begin an auction on a server and show the text as it is written.

tokenauction serve                         (in another terminal)
python examples/front_end.py
"""

import asyncio
import sys

from tokenauction.clients.client import Client

ALPHA = {"id": "alpha", "name": "Alpha Airlines", "offer": "flights to Hawaii", "bid": "0.002"}
BETA = {"id": "beta", "name": "Beta Resort", "offer": "a quiet beach resort", "bid": "0.002"}


async def main(url: str) -> None:
    spec = {"query": "Vacations in Hawaii", "agents": [ALPHA, BETA], "max_sentences": 1}
    async for event in Client(url).create(spec):
        if event["type"] == "auction.token":
            print(event["text"], end="", flush=True)
        elif event["type"] == "auction.settled":
            print("\nsponsored by", " and ".join(sponsor["name"] for sponsor in event["disclosure"]["by"]))


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8400"))
