"""Students that train in a second or two: a matrix on the teacher's vectors, and a bag of token embeddings.

A real student takes hours to tell two settings apart. These are trained on one set and tested on it alone, with every
query's NDCG kept, so that settings can be compared query by query. Neither stands for the model that you will train:
the head ranks as well as the teacher before it is trained, the bag hardly at all, and the truth lies in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import cross_entropy, normalize

from hf_negmine.base.devices import best_device
from hf_negmine.base.files import text_digests
from hf_negmine.base.ragged import Ragged, offsets_of_counts
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.teachers.probes import one_thread
from hf_negmine.teachers.vector_store import VectorStore
from recipes.ablation.mining import Mined
from recipes.ablation.recipe import Mining, Student
from recipes.common.data import TestQueries
from recipes.common.harness import ndcg_at_10
from recipes.common.offline import place_of

WIDTH = 128
"""Of the bag's vectors: the first principal components of MiniLM's 384."""
TOKENS = 160
"""Of a text that the bag reads, at most."""
RARE = 1e-3
"""Tokens weigh RARE / (RARE + their share of the corpus): smooth inverse frequency, as in StaticEmbedding's models."""
BLOCK = 8192


@dataclass(frozen=True)
class Collection:
    """A set as vectors, or as tokens, for a small student.

    Attributes:
        queries, passages, tests: texts as the student reads them: float32 vectors, or rows of token ids.
        vectors: the teacher's, of queries and passages, for the mask.
        relevant: ids of the passages that are relevant to each test query.
        weights: what the student starts from.
    """

    queries: Any
    passages: Any
    tests: Any
    vectors: tuple[torch.Tensor, torch.Tensor]
    relevant: list[IdArray]
    weights: torch.Tensor

    @classmethod
    def of(cls, student: Student, mined: Mined, test: TestQueries, teacher: Any, folder: Path) -> Collection:
        """A set for a student; the test's corpus is the one that was mined.

        Args:
            student: a head or a bag.
            mined: any selection of the set.
            test: its test queries.
            teacher: a dense one, whose vectors the head and the mask read.
            folder: of the store that holds the teacher's vectors.
        """
        texts, store = mined.miner.fitted.texts, VectorStore(folder, progress=False)
        queries = _unit(store.vectors(teacher, texts.queries, "query").slice(0, len(texts.queries)))
        passages = _unit(store.vectors(teacher, texts.corpus, "passage").slice(0, len(texts.corpus)))
        vectors = queries, passages
        relevant = [
            texts.corpus.find(text_digests(pa.array(sorted(own), pa.large_string()))) for own in test.relevant.values()
        ]
        asked = list(test.relevant)
        if student.kind == "head":
            vectors_asked = _unit(np.array(teacher.encode(asked, "query"), dtype=np.float32))
            return cls(queries, passages, vectors_asked, vectors, relevant, torch.eye(queries.shape[1]))
        columns = texts.queries.texts.to_pylist(), texts.corpus.texts.to_pylist(), asked
        tokens = [_tokens(student.model, column) for column in columns]
        known = np.unique(np.concatenate([one.arrays[0] for one in tokens]))  # others cost time, and would not move
        own, found, tests = (Ragged(one.offsets, (np.searchsorted(known, one.arrays[0]),)) for one in tokens)
        weights = _token_vectors(student.model, tokens[1].arrays[0])[torch.from_numpy(known)]
        return cls(own, found, tests, vectors, relevant, weights)

    def student(self) -> _Head | _Bag:
        """An untrained student."""
        return _Bag(self.weights.clone()) if isinstance(self.passages, Ragged) else _Head(self.weights.clone())


def _unit(vectors: FloatArray) -> torch.Tensor:
    return normalize(torch.from_numpy(vectors), dim=1)


class _Head(torch.nn.Module):
    """One matrix on frozen vectors; it starts as the identity."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(weights)

    def forward(self, texts: torch.Tensor, ids: IdArray) -> torch.Tensor:
        return normalize(texts[torch.from_numpy(ids)] @ self.matrix, dim=1)


class _Bag(torch.nn.Module):
    """The mean of a vector per token."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.bag = torch.nn.EmbeddingBag.from_pretrained(weights, freeze=False, mode="mean")

    def forward(self, texts: Ragged, ids: IdArray) -> torch.Tensor:
        taken = texts.take(ids)
        return normalize(self.bag(torch.from_numpy(taken.arrays[0]), torch.from_numpy(taken.offsets[:-1])), dim=1)


def train_small(
    student: Student, given: Collection, mined: Mined, mining: Mining, seed: int, *, in_batch: bool
) -> tuple[_Head | _Bag, int]:
    """A student trained on one set, and the number of rows: those whose query has all its negatives.

    Args:
        student: its settings; those of its training are the learning rate, the batch size, the epochs and the warm-up.
        given: the set.
        mined: the negatives.
        mining: says the mask: an in-batch passage is left out where the teacher's score reaches this share of the
            positive's.
        seed: of the order of the rows.
        in_batch: whether other rows' passages are negatives, too.
    """
    selection, texts, training = mined.selection, mined.miner.fitted.texts, student.training
    rows = np.flatnonzero(selection.counts == student.negatives)
    own = selection.ragged.take(rows).arrays[0].reshape(len(rows), student.negatives)
    chosen = np.concatenate([texts.positive_ids[texts.positive_offsets[rows], None], own], axis=1)
    batch, epochs, rng = training.per_device_train_batch_size, training.num_train_epochs, np.random.default_rng(seed)
    steps = [part for _ in range(epochs) for part in _parts(rng.permutation(len(rows)), batch)]
    model = given.student()
    fused = student.kind == "bag"  # it has millions of weights
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate, fused=fused)
    rise = max(1.0, training.warmup_steps * len(steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min(1.0, (at + 1) / rise) * (1 - at / max(1, len(steps)))
    )
    with one_thread():  # the products are small, and threads would wait for one another
        for part in steps:
            passages, places = np.unique(chosen[part], return_inverse=True)
            goal = torch.from_numpy(places.reshape(len(part), -1))
            queries = rows[part]
            scores = model(given.queries, queries) @ model(given.passages, passages).T / student.temperature
            if not in_batch:
                loss = cross_entropy(scores.gather(1, goal), torch.zeros(len(part), dtype=torch.long))
            else:
                if mining.mask is not None:
                    scores = scores.masked_fill(masked(given, queries, passages, goal, mining.mask), -torch.inf)
                loss = cross_entropy(scores, goal[:, 0])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model, len(rows)


def masked(
    given: Collection, queries: IdArray, passages: IdArray, own: torch.Tensor, percentage: float
) -> torch.Tensor:
    """Which passages of a batch are left out: at or over the ceiling by the teacher, and not the row's own."""
    known = given.vectors[0][torch.from_numpy(queries)] @ given.vectors[1][torch.from_numpy(passages)].T
    positive = known.gather(1, own[:, :1])
    out = known >= positive - positive.abs() * (1 - percentage)
    return out.scatter(1, own, value=False)


def ndcg_of(model: _Head | _Bag, given: Collection) -> FloatArray:
    """NDCG at 10 of each test query, float64; every relevant passage counts alike."""
    with torch.no_grad():
        passages = torch.cat([model(given.passages, part) for part in _parts(np.arange(len(given.vectors[1])), BLOCK)])
        return ndcg_at_10(model(given.tests, np.arange(len(given.relevant))), passages, given.relevant)


def _parts(ids: IdArray, size: int) -> list[IdArray]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _tokens(model: str, texts: list[str]) -> Ragged:
    """The token ids of texts, without special ones; a text without any is one unknown token."""
    tokenizer: Any = _opened(model).tokenizer
    tokens: list[list[int]] = []
    for start in range(0, len(texts), BLOCK):
        found = tokenizer(texts[start : start + BLOCK], add_special_tokens=False, truncation=True, max_length=TOKENS)
        tokens += [one or [tokenizer.unk_token_id] for one in found["input_ids"]]
    return Ragged(offsets_of_counts(np.array([len(one) for one in tokens])), (np.concatenate(tokens),))


@cache
def _opened(model: str) -> SentenceTransformer:
    return SentenceTransformer(place_of(model), device=best_device())


@cache
def _bare_token_vectors(model: str) -> torch.Tensor:
    """The model's output for every token alone, its principal components. Shape (vocabulary, WIDTH)."""
    opened = _opened(model)
    network: Any = opened[0].auto_model
    tokenizer: Any = opened.tokenizer
    parts = []
    with torch.no_grad():
        for ids_of_part in _parts(np.arange(network.config.vocab_size), 2048):
            part = torch.from_numpy(ids_of_part)
            ends = [torch.full_like(part, one) for one in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
            ids = torch.stack([ends[0], part, ends[1]], dim=1).to(network.device)
            parts.append(network(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(1).cpu())
    outputs = torch.cat(parts)
    vectors: torch.Tensor = outputs - outputs.mean(0)
    _, axes = torch.linalg.eigh(vectors.T @ vectors)
    projected: torch.Tensor = vectors @ axes[:, -WIDTH:]
    return projected


def _token_vectors(model: str, seen: IdArray) -> torch.Tensor:
    """The same, rare tokens weighing more, by how often each stands in a corpus."""
    vectors = _bare_token_vectors(model)
    shares = np.bincount(seen, minlength=len(vectors)) / len(seen)
    return vectors.mul(torch.from_numpy(RARE / (RARE + shares)).float()[:, None])
