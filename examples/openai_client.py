"""The `openai` package, as it is, streams a text that advertisers write together, and shows the bill.

pip install openai
tokenauction serve --play-money 1          (in another terminal)
python examples/openai_client.py
"""

import os
import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8400"
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("TOKENAUCTION_TOKEN", "not-needed-on-loopback"))
stream = client.chat.completions.create(
    model="auction/hawaii", messages=[{"role": "user", "content": "Vacations in Hawaii"}], stream=True
)
for chunk in stream:
    choice = chunk.choices[0]
    print(choice.delta.content or "", end="", flush=True)
    if choice.finish_reason:
        auction = (chunk.model_extra or {})["auction"]  # beside OpenAI's own fields
        print("\nsponsored by", " and ".join(sponsor["name"] for sponsor in auction["disclosure"]["by"]))
        for line in auction["bill"]:
            print(f"{line['name']}: {line['total']} {auction['currency']}")
        print(f"total: {auction['total']} {auction['currency']}, auction {auction['id']}")
