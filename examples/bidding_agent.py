"""A bidding agent in 20 lines: bid until the brand is named, then stop paying for more.

tokenauction create examples/hawaii.yaml --join-ms 20000 --quiet          (prints AUCTION)
python examples/bidding_agent.py AUCTION
"""

import asyncio
import sys

from tokenauction.clients.agent import Agent
from tokenauction.clients.client import Client
from tokenauction.clients.strategies import Sight


class UntilNamed:
    def bid(self, sight: Sight) -> int:  # micros per token, asked for before every token
        return 0 if "Gamma Tours" in sight.text else 3_000


async def main(auction_id: str, url: str) -> None:
    agent = Agent(Client(url), "gamma", UntilNamed(), name="Gamma Tours", offer="guided walks", budget_micros=100_000)
    outcome = await agent.run(auction_id)
    print(f"{outcome.text}\npaid {outcome.paid_micros} micros, {len(outcome.bids)} new bids")


asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8400"))
