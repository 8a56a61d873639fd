"""Train any sentence-transformers model on graded pairs with our loss, miner and batches."""

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import set_seed

from ssra_engine import mine_hard_negatives
from ssra_engine.embedder import GradedMatryoshkaLoss
from ssra_engine.embedder.batches import distinct_batches

# A tiny model made on the spot; yours is SentenceTransformer("folder").
set_seed(0)  # under torchrun every process must mine the same negatives
things = ["tram", "otter", "piano", "garlic", *(f"thing{number}" for number in range(20))]
places = ["Kyoto", "Oslo", "Quito"]
words = [*things, *places, "a", "film", "about", "in", "[UNK]"]
tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=32)], device="cpu")

# Grade 3: thing and place match; grade 1: only the thing does; grade 0: neither.
pairs = [(thing, place) for thing in things for place in places]
rows = [
    {"query": f"{a} {b}", "document": f"a film about {c} in {d}", "label": 3 if b == d else 1}
    for a, b in pairs
    for c, d in pairs
    if a == c
]
# A hard negative for each pair, which is not known to be as good as its positive.
mined = mine_hard_negatives(
    Dataset.from_list(rows), model, grade_column_name="label", num_negatives=1,
    output_format="n-tuple", verbose=False,
)  # fmt: skip
mined = mined.map(lambda row: {"label": row["grades"][0]}, remove_columns="grades")
trainer = SentenceTransformerTrainer(
    model=model,
    args=SentenceTransformerTrainingArguments(
        output_dir="scratch/example", num_train_epochs=8, per_device_train_batch_size=8,
        learning_rate=0.05, batch_sampler=distinct_batches(), report_to="none", seed=0,
    ),
    train_dataset=mined,
    loss=GradedMatryoshkaLoss(model, dims=(8, 16, 32)),
)  # fmt: skip
trainer.train()
print(model.similarity(model.encode("tram Oslo"), model.encode([
    "a film about tram in Oslo", "a film about tram in Quito", "a film about piano in Kyoto",
])))  # fmt: skip
