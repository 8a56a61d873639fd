"""Memory and time of one step of the cached loss with a batch of 65,536 queries.

python benchmarks/measure_cached_loss.py [queries]
"""

from __future__ import annotations

import json
import resource
import sys
import time

import torch
from transformers import BertConfig, BertModel

from ssra_engine.embedder import CachedGradedMatryoshkaLoss


class Encoder(torch.nn.Module):
    """A two-layer BERT with mean pooling: what the loss asks of a SentenceTransformer."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=1000,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        states = self.bert(features["input_ids"], features["attention_mask"]).last_hidden_state
        return {"sentence_embedding": states.mean(1)}


def main(queries: int) -> None:
    torch.manual_seed(0)
    columns = [torch.randint(0, 1000, (queries, tokens)) for tokens in (8, 32)]
    features = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in columns]
    loss = CachedGradedMatryoshkaLoss(Encoder(), dims=(32, 64, 128), mini_batch_size=128)
    start = time.monotonic()
    value = loss(features, torch.randint(0, 4, (queries,)))
    value.backward()
    print(
        json.dumps(
            {
                "queries": queries,
                "loss": round(float(value.detach()), 4),
                "seconds": round(time.monotonic() - start, 1),
                "peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 65_536)
