"""Rewards of your own in a softmax auction: linear probes on a language model's embeddings, fitted to a few texts.

python examples/rewards.py
"""

from collections.abc import Sequence

import torch

from tokenauction.clients.cli.compose import DEFAULT_MODEL, EXAMPLES, load_model, new_decoder, policy_for, prompts_for
from tokenauction.clients.cli.spec_file import load_spec
from tokenauction.engine.reward import LinearProbe, fit_probe
from tokenauction.models.checkpoint import load_causal_model

LIKED = {  # by agent: texts, and how much they are worth to it in nats
    "alpha": {"Alpha Airlines brings you flights to Hawaii.": 3.0, "Beta Resort has a quiet beach resort.": 0.0},
    "beta": {"Alpha Airlines brings you flights to Hawaii.": 0.0, "Beta Resort has a quiet beach resort.": 3.0},
}

decoder = new_decoder(load_model(None))
tokenizer, network = decoder.model.tokenizer, load_causal_model(DEFAULT_MODEL, torch.float32).model


@torch.inference_mode()
def embed(token_ids: Sequence[int]) -> torch.Tensor:
    """The mean of the last layer's states."""
    states: torch.Tensor = network(torch.tensor([list(token_ids)])).last_hidden_state
    return states.mean((0, 1))


def probe(texts: dict[str, float]) -> torch.Tensor:
    embeddings = torch.stack([embed(tokenizer.encode(f" {text}")).double() for text in texts])
    return fit_probe(embeddings, torch.tensor(list(texts.values()), dtype=torch.float64), ridge=1.0)


spec = load_spec(EXAMPLES / "softmax.yaml", {"seed": 5})
rewards = LinearProbe(embed, {agent: probe(texts) for agent, texts in LIKED.items()})
auction = decoder.prepare(spec, prompts_for(spec, tokenizer), policy_for(spec, tokenizer), "auction", rewards=rewards)
decoder.enqueue(auction)
while decoder.has_work:
    for event in decoder.step():
        if event.type == "auction.finalized":
            print(event.fields["text"])
            for agent in event.fields["agents"]:
                print(
                    f"{agent['id']}: worth {agent['reward']:.2f} nats, pays {agent['exact_payment_micros']:.2f} micros"
                )
