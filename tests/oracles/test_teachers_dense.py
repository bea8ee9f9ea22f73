"""Dense teachers against Sentence Transformers itself, with all-MiniLM-L6-v2."""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import InputError
from hf_negmine.teachers import DenseTeacher, resolve_teacher, vector_store
from tests.reference import text_set

TEXTS = ["What is the capital of France?", "Paris.", "A much longer text " * 60, "日本の首都は東京です。", "🙂"]


@pytest.fixture(scope="module")
def model(minilm: str) -> SentenceTransformer:
    return SentenceTransformer(minilm, device="cpu")


def test_float32_vectors_equal_those_of_sentence_transformers(minilm: str, model: SentenceTransformer) -> None:
    teacher = DenseTeacher(minilm, dtype="float32", device="cpu")
    np.testing.assert_array_equal(teacher.encode(TEXTS, "passage"), model.encode(TEXTS))
    np.testing.assert_array_equal(teacher.encode(TEXTS, "query"), model.encode_query(TEXTS))
    assert teacher.similarity == "cosine"
    assert teacher.name == Path(minilm).resolve().name


def mixed_texts(count: int) -> list[str]:
    """Texts of none to over a hundred tokens, with more characters per token in some than in others."""
    draw = np.random.default_rng(5)
    words = np.array(["tea", "negative", "🙂", "日本", "x7#", "internationalization", " "])
    return ["", " ", *(" ".join(draw.choice(words, int(draw.integers(1, 2 + count)))) for count in range(count - 2))]


def test_texts_of_any_length_get_the_vectors_of_sentence_transformers(minilm: str, model: SentenceTransformer) -> None:
    texts = [*mixed_texts(40), "internationalization " * 300]
    teacher = DenseTeacher(minilm, dtype="float32", device="cpu", batch_size=4, query_prompt="query: ")
    for found, expected in (
        (teacher.encode(texts, "passage"), model.encode(texts)),
        (teacher.encode(texts, "query"), model.encode(texts, prompt="query: ")),
    ):
        cosines = (found.astype(np.float64) * expected).sum(axis=1)  # of the same text: the order is theirs
        assert cosines.min() >= 0.999999
    assert teacher.encode([], "query").size == 0


def test_a_batch_keeps_to_its_tokens(minilm: str) -> None:
    teacher = DenseTeacher(minilm, dtype="float32", device="cpu", batch_size=2)
    shapes: list[tuple[int, int]] = []
    teacher.model.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0]["input_ids"].shape)))
    teacher.encode(["tea " * 2000] * 5 + ["tea " * 100] * 5 + ["tea"] * 100, "passage")
    assert shapes[:5] == [(1, 256)] * 5, "a text is never split"
    assert all(texts * tokens <= 2 * 128 for texts, tokens in shapes[5:])
    assert max(texts for texts, _ in shapes) > 50, "of short texts a batch takes more"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_that_was_killed_ends_with_the_bytes_of_a_whole_one(
    minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    monkeypatch.setattr(vector_store, "TEXTS_A_SHARD", 16)
    teacher = DenseTeacher(minilm, dtype=dtype, device="cpu", batch_size=1)
    passages = text_set(tmp_path, ["q"], ["tea"], mixed_texts(38)[2:]).corpus
    contents = []
    for stop in (None, 2):
        store, kept = vector_store.VectorStore(tmp_path / str(stop), progress=False), teacher.encode
        answers = [kept] * (stop or 9)

        def encode(texts: Any, role: Any, answers: list[Any] = answers) -> Any:
            return answers.pop()(texts, role)  # an IndexError where the run is killed

        with monkeypatch.context() as patched:
            patched.setattr(teacher, "encode", encode)
            with nullcontext() if stop is None else pytest.raises(IndexError):
                store.vectors(teacher, passages, "passage")
        store.vectors(teacher, passages, "passage")
        files = (path for path in sorted((tmp_path / str(stop)).rglob("*")) if path.is_file())
        contents.append({path.relative_to(tmp_path / str(stop)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert len([path for path in contents[0] if path.name == "vectors.npy"]) == 3


def test_bfloat16_vectors_come_out_as_float32_and_near(minilm: str, model: SentenceTransformer) -> None:
    found = DenseTeacher(minilm, dtype="bfloat16", device="cpu").encode(TEXTS, "passage")
    expected = model.encode(TEXTS)
    assert found.dtype == np.float32
    cosines = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert (cosines > 0.99).all()
    assert not np.array_equal(found, expected)


def test_prompts_are_put_before_the_texts_of_their_role(minilm: str, model: SentenceTransformer) -> None:
    teacher = DenseTeacher(minilm, dtype="float32", device="cpu", query_prompt="query: ", passage_prompt="passage: ")
    np.testing.assert_array_equal(teacher.encode(TEXTS, "query"), model.encode(["query: " + text for text in TEXTS]))
    np.testing.assert_array_equal(
        teacher.encode(TEXTS, "passage"), model.encode(["passage: " + text for text in TEXTS])
    )


def test_length_and_dimensions_are_cut(minilm: str, model: SentenceTransformer) -> None:
    short = DenseTeacher(minilm, dtype="float32", device="cpu", max_length=16, truncate_dim=64).encode(TEXTS, "passage")
    assert short.shape == (len(TEXTS), 64)
    whole = model.encode(TEXTS, truncate_dim=64)
    np.testing.assert_allclose(short[1], whole[1], atol=1e-5)
    assert np.abs(short[2] - whole[2]).max() > 1e-3, "the long text was cut"


@pytest.mark.filterwarnings("ignore")
def test_a_loaded_model_is_a_teacher(model: SentenceTransformer) -> None:
    teacher = resolve_teacher(model)
    assert isinstance(teacher, DenseTeacher)
    np.testing.assert_array_equal(teacher.encode(TEXTS, "passage"), model.encode(TEXTS))
    for setting in ({"max_length": 10}, {"dtype": "float32"}, {"revision": "main"}):
        with pytest.raises(InputError, match="belong to loading"):
            DenseTeacher(model, **setting)
    copy = pickle.loads(pickle.dumps(teacher))
    with pytest.raises(InputError, match="name the model by id or folder"):
        copy.encode(TEXTS, "query")


def test_a_named_model_is_pickled_by_its_name_and_loaded_again(minilm: str) -> None:
    teacher = DenseTeacher(minilm, dtype="float32", device="cpu")
    vectors = teacher.encode(TEXTS[:2], "query")
    pickled = pickle.dumps(teacher)
    assert len(pickled) < 2000, "never the weights"
    copy = pickle.loads(pickled)
    assert copy.fingerprint("query") == teacher.fingerprint("query")
    np.testing.assert_array_equal(copy.encode(TEXTS[:2], "query"), vectors)


@pytest.fixture(scope="module")
def fingerprint(minilm: str) -> str:
    return DenseTeacher(minilm, dtype="float32", device="cpu").fingerprint("query")


def test_a_folder_and_the_model_loaded_from_it_have_one_fingerprint(
    fingerprint: str, model: SentenceTransformer
) -> None:
    assert DenseTeacher(model).fingerprint("query") == fingerprint


@pytest.mark.parametrize(
    "setting", [{"query_prompt": "query: "}, {"max_length": 64}, {"truncate_dim": 64}, {"dtype": "bfloat16"}], ids=str
)
def test_a_setting_that_changes_the_vectors_changes_the_fingerprint(
    minilm: str, fingerprint: str, setting: dict[str, Any]
) -> None:
    teacher = DenseTeacher(minilm, device="cpu", **{"dtype": "float32", **setting})
    assert teacher.fingerprint("query") != fingerprint


def test_the_prompt_of_one_role_leaves_the_other_alone(minilm: str) -> None:
    plain = DenseTeacher(minilm, dtype="float32", device="cpu")
    prompted = DenseTeacher(minilm, dtype="float32", device="cpu", query_prompt="query: ")
    assert prompted.fingerprint("query") != plain.fingerprint("query")
    assert prompted.fingerprint("passage") == plain.fingerprint("passage")


def test_batch_size_and_place_leave_the_fingerprint_alone(minilm: str, fingerprint: str) -> None:
    assert DenseTeacher(minilm, dtype="float32", device="cpu", batch_size=3).fingerprint("query") == fingerprint


def test_one_changed_weight_changes_the_fingerprint(minilm: str, fingerprint: str) -> None:
    changed = SentenceTransformer(minilm, device="cpu")
    with torch.no_grad():
        weight = dict(changed.named_parameters())[sorted(dict(changed.named_parameters()))[0]].view(-1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(torch.inf))
    assert DenseTeacher(changed).fingerprint("query") != fingerprint


def test_a_distance_is_refused_unless_a_similarity_is_chosen(minilm: str) -> None:
    euclidean = SentenceTransformer(minilm, device="cpu", similarity_fn_name="euclidean")
    with pytest.raises(InputError, match="compares vectors by 'euclidean', supported are 'cosine' and 'dot'"):
        _ = DenseTeacher(euclidean).similarity
    assert DenseTeacher(euclidean, similarity="dot").similarity == "dot"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "dtype: 'int8' is not among"),
        ({"similarity": "euclidean"}, "similarity: 'euclidean' is not among"),
        ({"batch_size": 0}, "batch_size: a whole number, at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_loaded(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DenseTeacher("any/model", **settings)
