"""A text set of any rows, against dictionaries."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.reference import text_set
from tests.thorough import examples

words = st.text(min_size=1, max_size=4).filter(lambda text: bool(text.strip()))
few_words = st.sampled_from(["a", "b", "ä", "c c", "日本", "🙂"])
rows = st.lists(st.tuples(few_words | words, few_words | words), min_size=1, max_size=12)


@examples(60)
@given(rows=rows, corpus=st.none() | st.lists(few_words | words, max_size=12), order=st.randoms(use_true_random=False))
def test_a_text_set_is_what_dictionaries_say(
    rows: list[tuple[str, str]], corpus: list[str] | None, order: random.Random
) -> None:
    shuffled = rows.copy()
    order.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as folder:
        texts = text_set(Path(folder), [query for query, _ in rows], [positive for _, positive in rows], corpus)
        again = text_set(Path(folder), [query for query, _ in shuffled], [positive for _, positive in shuffled], corpus)
        queries, passages = texts.queries.texts.to_pylist(), texts.corpus.texts.to_pylist()
        assert queries == list(dict.fromkeys(query for query, _ in rows))
        given_passages = list(dict.fromkeys(corpus or []))
        assert passages[: len(given_passages)] == given_passages
        assert set(passages) == {positive for _, positive in rows} | set(given_passages)
        assert len(passages) == len(set(passages))
        assert again.corpus.texts.to_pylist() == passages

        offsets, excluded = texts.excluded()
        for row, query in enumerate(queries):
            found = texts.positive_ids[texts.positive_offsets[row] : texts.positive_offsets[row + 1]].tolist()
            assert found == sorted(found)
            positives = {positive for other, positive in rows if other == query}
            assert {passages[passage] for passage in found} == positives
            assert len(found) == len(positives)
            own = {query} if query in passages else set()
            assert {passages[passage] for passage in excluded[offsets[row] : offsets[row + 1]]} == positives | own
            assert texts.own_text[row] == (passages.index(query) if own else -1)
