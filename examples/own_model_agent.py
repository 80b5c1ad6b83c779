"""An agent with its own model in 20 lines: it sends its own distribution for every token, and bids a fixed amount.

tokenauction create examples/hawaii.yaml --join-ms 20000 --own-models --tmax-token-ms 500 --quiet       (prints AUCTION)
python examples/own_model_agent.py AUCTION
"""

import asyncio
import sys

from tokenauction.clients.agent import Agent
from tokenauction.clients.cli.compose import DEFAULT_MODEL
from tokenauction.clients.client import Client
from tokenauction.clients.strategies import Fixed
from tokenauction.models.loading import load_model
from tokenauction.models.remote import RemoteRow

PROMPT = "Query: a week in Hawaii\nAdvertisers:\n1 Gamma Tours: guided walks\nWrite for 1 Gamma Tours: guided walks."


async def main(auction_id: str, url: str) -> None:
    model = load_model(str(DEFAULT_MODEL))  # any model with the auction's vocabulary
    row = RemoteRow(model, model.tokenizer.encode_prompt(PROMPT))
    brief = {"name": "Gamma Tours", "offer": "guided walks"}
    agent = Agent(Client(url), "gamma", Fixed(3_000), **brief, budget_micros=100_000, own_model=row)
    outcome = await agent.run(auction_id)
    print(f"{outcome.text}\npaid {outcome.paid_micros} micros")


asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8400"))
