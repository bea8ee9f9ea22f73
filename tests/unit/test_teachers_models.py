"""Cross-encoders, sparse encoders and late interaction as teachers, against Sentence Transformers' own scores."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Pooling, Router, StaticEmbedding, Transformer

from hf_negmine.base.errors import InputError, TeacherError
from hf_negmine.base.protocols import PairTeacher, Role, SparseTeacher, SparseVectors, TokenTeacher, TokenVectors
from hf_negmine.teachers import BM25Teacher, DenseTeacher, resolve_teacher, settings_of, sparse, teacher_of_settings
from hf_negmine.teachers.cross_encoder import CrossEncoderTeacher
from hf_negmine.teachers.late_interaction import LateInteractionTeacher
from hf_negmine.teachers.model_digest import model_digest
from hf_negmine.teachers.sparse import SparseEncoderTeacher
from tests.tiny_models import WIDTH, make_cross, make_sparse, make_tokens
from tests.train.helpers import load_model

Kind = Callable[..., Any]
KINDS: list[tuple[Kind, str]] = [
    (CrossEncoderTeacher, "cross"),
    (SparseEncoderTeacher, "sparse"),
    (LateInteractionTeacher, "tokens"),
]
kinds = pytest.mark.parametrize(("kind", "stored"), KINDS, ids=[stored for _, stored in KINDS])


def ragged(seed: int, n: int) -> list[str]:
    """Texts of 1 to 40 words, longest neither first nor last."""
    random = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in random.integers(0, 120, length)) for length in random.integers(1, 41, n)]


QUERIES = ragged(0, 25)
PASSAGES = ragged(1, 40)


def named(kind: Kind, models: Path, stored: str, **settings: Any) -> Any:
    return kind(models / stored, **{"dtype": "float32", "device": "cpu", **settings})


def use(teacher: Any, texts: list[str], role: Role = "passage") -> Any:
    """What it makes of texts, as one array."""
    if isinstance(teacher, CrossEncoderTeacher):
        return teacher.score(texts, texts[::-1])
    if isinstance(teacher, SparseEncoderTeacher):
        return dense_rows(teacher.encode_sparse(texts, role))
    return teacher.encode_tokens(texts, role).vectors


def dense_rows(vectors: SparseVectors, width: int = 131) -> np.ndarray[Any, Any]:
    rows = np.zeros((len(vectors.offsets) - 1, width), dtype=np.float32)
    rows[np.repeat(np.arange(len(rows)), np.diff(vectors.offsets)), vectors.terms] = vectors.weights
    return rows


def texts_of(vectors: TokenVectors) -> list[np.ndarray[Any, Any]]:
    return np.split(vectors.vectors, vectors.offsets[1:-1])


def late_scores(queries: TokenVectors, passages: TokenVectors) -> np.ndarray[Any, Any]:
    """The sum over query tokens of the best passage token, by hand."""
    return np.array([[(q @ p.T).max(axis=1).sum() for p in texts_of(passages)] for q in texts_of(queries)])


# What all three share


def test_they_keep_their_protocols(models: Path) -> None:
    assert isinstance(named(CrossEncoderTeacher, models, "cross"), PairTeacher)
    assert isinstance(named(SparseEncoderTeacher, models, "sparse"), SparseTeacher)
    assert isinstance(named(LateInteractionTeacher, models, "tokens"), TokenTeacher)


@kinds
def test_a_folder_and_the_model_loaded_from_it_are_one_teacher(kind: Kind, stored: str, models: Path) -> None:
    teacher = named(kind, models, stored)
    loaded = kind(teacher.model)
    assert teacher.name == loaded.name == stored
    assert named(kind, models, stored, name="mine").name == "mine"
    assert loaded.fingerprint("query") == teacher.fingerprint("query")
    np.testing.assert_array_equal(use(loaded, QUERIES), use(teacher, QUERIES))


@kinds
def test_settings_make_the_same_teacher_again(kind: Kind, stored: str, models: Path) -> None:
    given = {"max_length": 9}
    given |= {"activation": "identity", "candidates": 7} if stored == "cross" else {"query_prompt": "ask "}
    given |= {"max_active_dims": 5} if stored == "sparse" else {}
    teacher = named(kind, models, stored, **given)
    settings = teacher.settings
    assert settings.pop("kind") == {"cross": "cross-encoder", "sparse": "sparse", "tokens": "late-interaction"}[stored]
    assert settings.items() >= {**given, "model": stored, "dtype": "float32"}.items()
    assert "first_stage" not in settings
    again = kind(models / settings.pop("model"), **settings, device="cpu")
    for role in ("query", "passage"):
        assert again.fingerprint(role) == teacher.fingerprint(role)


def dense(models: Path) -> SentenceTransformer:
    model = load_model(models)
    model.max_seq_length, model.similarity_fn_name, model.truncate_dim = 9, "dot", 8  # type: ignore[assignment]
    return model


def cross(models: Path) -> CrossEncoder:
    model = make_cross(models, activation_fn=torch.nn.Identity())
    model.max_seq_length = 9
    return model


def with_few_terms(models: Path) -> SparseEncoder:
    model = make_sparse(models, max_active_dims=5)
    model.max_seq_length = 9
    return model


def tokens(models: Path) -> MultiVectorEncoder:
    model = make_tokens(models)
    model[0].document_length = 9
    return model


@pytest.mark.parametrize(
    ("make", "stored", "changed"),
    [
        (dense, "dense", {"max_length": 9, "similarity": "dot", "truncate_dim": 8}),
        (cross, "cross", {"max_length": 9, "activation": "identity"}),
        (with_few_terms, "sparse", {"max_length": 9, "max_active_dims": 5}),
        (tokens, "tokens", {"max_length": 9}),
    ],
)
def test_settings_say_what_is_set_on_a_model_that_was_passed(
    make: Callable[[Path], Any], stored: str, changed: dict[str, Any], models: Path
) -> None:
    teacher: Any = resolve_teacher(make(models))
    settings = settings_of(teacher)
    assert settings is not None
    assert {name: settings[name] for name in changed} == changed
    again: Any = teacher_of_settings({**settings, "model": str(models / stored)})
    for role in ("query", "passage"):
        assert again.fingerprint(role) == teacher.fingerprint(role)
    if make is dense:
        assert again.similarity == "dot"
        np.testing.assert_array_equal(again.encode(PASSAGES, "passage"), teacher.encode(PASSAGES, "passage"))
    else:
        np.testing.assert_array_equal(use(again, PASSAGES), use(teacher, PASSAGES))
    own = resolve_teacher(models / stored) if make is dense else type(teacher)(models / stored, device="cpu")
    assert {(settings_of(own) or {})[name] for name in changed} == {None}, "of one that is named only what was given"


def test_a_limit_that_cannot_be_set_again_is_not_in_the_settings(models: Path) -> None:
    static = StaticEmbedding(load_model(models).tokenizer, embedding_dim=4)
    assert DenseTeacher(SentenceTransformer(modules=[static], device="cpu")).settings["max_length"] is None
    short, long = ([Transformer(str(models / "bert")), Pooling(32)] for _ in range(2))
    short[0].max_seq_length = 9  # type: ignore[union-attr]
    routed = SentenceTransformer(modules=[Router.for_query_document(short, long)], device="cpu")
    assert DenseTeacher(routed).settings["max_length"] is None
    routed.max_seq_length = 7
    assert DenseTeacher(routed).settings["max_length"] == 7


@kinds
def test_using_a_model_leaves_its_fingerprint_alone(kind: Kind, stored: str, models: Path) -> None:
    made = {"cross": make_cross, "sparse": make_sparse, "tokens": make_tokens}[stored](models)
    before = {role: kind(made).fingerprint(role) for role in ("query", "passage")}
    for role in ("query", "passage"):
        use(kind(made), QUERIES, role)
    assert {role: kind(made).fingerprint(role) for role in ("query", "passage")} == before


@kinds
def test_every_setting_that_changes_the_outcome_changes_the_fingerprint(kind: Kind, stored: str, models: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"max_length": 9}, {"dtype": "bfloat16"}]
    if stored == "cross":
        changes += [{"activation": "identity"}]
    else:
        changes += [{"query_prompt": "ask "}, {"query_prompt": ""}]
    if stored == "sparse":
        changes += [{"max_active_dims": 5}]
    teachers = [named(kind, models, stored, **change) for change in changes]
    prints = [teacher.fingerprint("query") for teacher in teachers]
    assert len(set(prints)) == len(prints)
    same = [{"batch_size": 3}, {"name": "mine"}]
    same += [] if stored == "sparse" else [{"first_stage": "random", "candidates": 3}]
    assert {named(kind, models, stored, **change).fingerprint("query") for change in same} == {prints[0]}


@pytest.mark.parametrize(("kind", "stored"), KINDS[1:], ids=["sparse", "tokens"])
def test_the_prompt_of_one_role_is_for_that_role(kind: Kind, stored: str, models: Path) -> None:
    plain = named(kind, models, stored)
    prompted = named(kind, models, stored, query_prompt="ask w7 ")
    np.testing.assert_array_equal(use(prompted, PASSAGES), use(plain, PASSAGES))
    assert prompted.fingerprint("passage") == plain.fingerprint("passage")
    asked = [f"ask w7 {query}" for query in QUERIES]
    np.testing.assert_array_equal(use(prompted, QUERIES, "query"), use(plain, asked, "query"))
    assert not np.array_equal(use(prompted, QUERIES, "query"), use(plain, QUERIES, "query"))


@kinds
def test_one_changed_weight_changes_the_fingerprint(kind: Kind, stored: str, models: Path) -> None:
    teacher = named(kind, models, stored)
    before = teacher.fingerprint("query")
    with torch.no_grad():
        weight = next(teacher.model.parameters()).view(-1)
        weight[3] = torch.nextafter(weight[3], torch.tensor(torch.inf))
    assert kind(teacher.model).fingerprint("query") != before


def test_attention_that_was_made_bidirectional_after_loading_changes_the_fingerprint(models: Path) -> None:
    model = load_model(models)
    prints = []
    for is_causal in (None, True, False):
        model[0].auto_model.config.is_causal = is_causal
        prints.append(DenseTeacher(model).fingerprint("query"))
    assert len(set(prints)) == 3


@kinds
def test_a_named_model_is_pickled_by_its_name_and_a_loaded_one_stays(kind: Kind, stored: str, models: Path) -> None:
    teacher = named(kind, models, stored)
    before = use(teacher, QUERIES)
    pickled = pickle.dumps(teacher)
    assert len(pickled) < 2000, "never the weights"
    copy = pickle.loads(pickled)
    assert copy.fingerprint("query") == teacher.fingerprint("query")
    np.testing.assert_array_equal(use(copy, QUERIES), before)
    copy = pickle.loads(pickle.dumps(kind(teacher.model)))
    with pytest.raises(InputError, match="name the model by id or folder"):
        use(copy, QUERIES)


@kinds
def test_what_belongs_to_loading_is_refused_with_a_loaded_model(kind: Kind, stored: str, models: Path) -> None:
    model = named(kind, models, stored).model
    for setting in ({"max_length": 10}, {"dtype": "float32"}, {"revision": "main"}):
        with pytest.raises(InputError, match="belong to loading"):
            kind(model, **setting)


@kinds
def test_a_wrong_setting_is_refused_before_anything_is_loaded(kind: Kind, stored: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"dtype": "int8"}, "dtype: 'int8' is not among"),
        ({"batch_size": 0}, "batch_size: a whole number, at least 1, got 0"),
    ]
    if stored == "sparse":
        wrong += [({"max_active_dims": 0}, "max_active_dims: a whole number, at least 1, got 0")]
    else:
        wrong += [({"candidates": 0}, "candidates: a whole number, at least 1, got 0")]
    if stored == "cross":
        wrong += [({"activation": "tanh"}, "activation: 'tanh' is not among")]
    for settings, message in wrong:
        with pytest.raises(InputError, match=message):
            kind("any/model", **settings)


@kinds
def test_a_folder_without_a_model_is_an_input_error(kind: Kind, stored: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="could not be loaded"):
        use(kind(tmp_path / "empty", device="cpu"), QUERIES)


@pytest.mark.parametrize(
    ("kind", "stored", "holds"),
    [
        (CrossEncoderTeacher, "dense", "SentenceTransformer"),
        (CrossEncoderTeacher, "bert", "BertModel"),
        (CrossEncoderTeacher, "mlm", "BertForMaskedLM"),
        (SparseEncoderTeacher, "dense", "SentenceTransformer"),
        (SparseEncoderTeacher, "cross", "BertForSequenceClassification"),
        (LateInteractionTeacher, "dense", "SentenceTransformer"),
        (LateInteractionTeacher, "bert", "BertModel"),
    ],
)
def test_a_model_that_would_get_random_weights_is_refused(kind: Kind, stored: str, holds: str, models: Path) -> None:
    with pytest.raises(InputError, match=rf"{stored}' holds a {holds}, expected a \w+: .* random weights"):
        _ = kind(models / stored, device="cpu").model


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [(CrossEncoderTeacher, "BertForSequenceClassification"), (SparseEncoderTeacher, "BertForMaskedLM")],
)
def test_what_a_model_was_saved_as_outweighs_its_architecture(
    kind: Kind, architecture: str, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "dense", tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    (tmp_path / "dense" / "config.json").write_text(json.dumps({**config, "architectures": [architecture]}))
    with pytest.raises(InputError, match="dense' holds a SentenceTransformer, expected a"):
        _ = kind(tmp_path / "dense", device="cpu").model


def test_a_masked_language_model_is_splade_as_it_is(models: Path) -> None:
    assert use(named(SparseEncoderTeacher, models, "mlm"), QUERIES).any()


def test_the_first_stage_is_kept_as_given() -> None:
    assert CrossEncoderTeacher("any/model").first_stage == "bm25"
    assert LateInteractionTeacher("any/model").first_stage is None
    stage = BM25Teacher("german")
    for kind in (CrossEncoderTeacher, LateInteractionTeacher):
        teacher = kind("any/model", first_stage=stage, candidates=7)
        assert teacher.first_stage is stage
        assert teacher.candidates == 7


# Cross-encoders


def pairs() -> list[tuple[str, str]]:
    return [(query, passage) for query in QUERIES for passage in PASSAGES[:4]]


@pytest.mark.parametrize(
    ("activation", "function"), [(None, None), ("identity", torch.nn.Identity()), ("sigmoid", torch.nn.Sigmoid())]
)
@pytest.mark.parametrize("own", [torch.nn.Sigmoid(), torch.nn.Identity(), torch.nn.Tanh()], ids=str)
def test_scores_are_those_of_predict_in_the_order_given(activation: Any, function: Any, own: Any, models: Path) -> None:
    model = make_cross(models, activation_fn=own)
    teacher = CrossEncoderTeacher(model, activation=activation, batch_size=7)
    queries, passages = zip(*pairs(), strict=True)
    found = teacher.score(queries, passages)
    assert found.dtype == np.float32
    assert found.shape == (100,)
    one_by_one = np.array([model.predict([pair], activation_fn=function)[0] for pair in pairs()])
    np.testing.assert_allclose(found, one_by_one, atol=1e-6)
    assert np.ptp(found) > 0.01, "a score that does not tell pairs apart shows no order"
    assert model.activation_fn is own
    if activation == "sigmoid":
        assert (found > 0).all()
        assert (found < 1).all()


def test_an_activation_that_is_the_models_own_is_the_same_teacher(models: Path) -> None:
    given = {
        (str(own), activation): CrossEncoderTeacher(make_cross(models, activation_fn=own), activation=activation)
        for own in (torch.nn.Sigmoid(), torch.nn.Identity())
        for activation in (None, "sigmoid", "identity")
    }
    prints = {key: teacher.fingerprint("query") for key, teacher in given.items()}
    assert prints["Sigmoid()", None] == prints["Sigmoid()", "sigmoid"] == prints["Identity()", "sigmoid"]
    assert prints["Identity()", None] == prints["Identity()", "identity"] == prints["Sigmoid()", "identity"]
    assert len(set(prints.values())) == 2


def test_a_given_activation_does_not_stay_where_predict_keeps_it(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_cross(models)
    own, predict = model.activation_fn, model.predict

    def of_version_5(inputs: Any, activation_fn: Any = None, **settings: Any) -> Any:
        model.activation_fn = activation_fn or model.activation_fn
        return predict(inputs, **settings)

    expected = CrossEncoderTeacher(model, activation="identity").score(QUERIES, QUERIES)
    monkeypatch.setattr(model, "predict", of_version_5)
    np.testing.assert_array_equal(CrossEncoderTeacher(model, activation="identity").score(QUERIES, QUERIES), expected)
    assert model.activation_fn is own


def test_cross_encoder_prompts_change_the_fingerprint(models: Path) -> None:
    given: list[dict[str, Any]] = [
        {},
        {"prompts": {"q": "ask "}, "default_prompt_name": "q"},
        {"prompts": {"q": "find "}, "default_prompt_name": "q"},
        {"prompts": {"q": "ask "}},
    ]
    prints = {CrossEncoderTeacher(make_cross(models, **prompts)).fingerprint("query") for prompts in given}
    assert len(prints) == len(given)


def test_a_cross_encoder_has_its_own_number_format_unless_told_otherwise(models: Path) -> None:
    assert CrossEncoderTeacher(models / "cross", device="cpu").settings["dtype"] == "float32"
    half = named(CrossEncoderTeacher, models, "cross", dtype="bfloat16")
    assert half.settings["dtype"] == "bfloat16"
    assert half.score(QUERIES, QUERIES).dtype == np.float32


def test_pairs_are_cut_to_max_length(models: Path) -> None:
    short, long = ["w1 w2"], ["w1 w2 w3"]
    whole, cut = (named(CrossEncoderTeacher, models, "cross", max_length=length) for length in (None, 7))
    np.testing.assert_allclose(cut.score(short, short), whole.score(short, short), atol=1e-6)
    assert abs(cut.score(long, long) - whole.score(long, long)) > 1e-5


def test_a_cross_encoder_with_several_labels_is_refused(models: Path) -> None:
    message = r"labels gives 3 scores per pair \(num_labels\), a teacher needs a model with 1"
    with pytest.raises(InputError, match=message):
        named(CrossEncoderTeacher, models, "labels").score(["w1"], ["w2"])
    with pytest.raises(InputError, match=message):
        CrossEncoderTeacher(CrossEncoder(str(models / "labels"), device="cpu"))


def test_no_pairs_have_no_scores_and_lists_must_match(models: Path) -> None:
    teacher = named(CrossEncoderTeacher, models, "cross")
    assert teacher.score([], []).shape == (0,)
    with pytest.raises(InputError, match="score: 2 queries, but 1 passages"):
        teacher.score(["w1", "w2"], ["w3"])


def test_scores_that_are_no_scores_are_a_teacher_error(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_cross(models)
    teacher = CrossEncoderTeacher(model)
    with torch.no_grad():
        model.model.classifier.bias.fill_(torch.nan)
    with pytest.raises(
        TeacherError, match=r"scores of shape \(25,\), 25 of them not finite, expected one finite score"
    ):
        teacher.score(QUERIES, QUERIES)
    monkeypatch.setattr(model, "predict", lambda inputs, **_: np.zeros((len(inputs), 2)))
    with pytest.raises(TeacherError, match=r"shape \(25, 2\), 0 of them not finite, .* each of 25 pairs"):
        teacher.score(QUERIES, QUERIES)


# Sparse encoders


def test_sparse_vectors_give_the_models_own_similarity(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "TEXTS_A_STEP", 11)
    teacher = named(SparseEncoderTeacher, models, "sparse", batch_size=4)
    model = teacher.model
    queries, passages = teacher.encode_sparse(QUERIES, "query"), teacher.encode_sparse(PASSAGES, "passage")
    expected = model.similarity(model.encode_query(QUERIES), model.encode_document(PASSAGES))
    np.testing.assert_allclose(dense_rows(queries) @ dense_rows(passages).T, expected, rtol=1e-4)
    np.testing.assert_allclose(dense_rows(passages), model.encode_document(PASSAGES).to_dense(), atol=1e-5)


def test_sparse_vectors_are_csr_with_rising_terms_and_no_zeros(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "TEXTS_A_STEP", 11)
    found = named(SparseEncoderTeacher, models, "sparse", batch_size=4).encode_sparse(PASSAGES, "passage")
    assert (found.offsets.dtype, found.terms.dtype, found.weights.dtype) == (np.int64, np.int32, np.float32)
    assert found.offsets.shape == (len(PASSAGES) + 1,)
    assert found.offsets[-1] == len(found.terms) == len(found.weights)
    assert (found.weights > 0).all()
    for start, end in zip(found.offsets[:-1], found.offsets[1:], strict=True):
        assert (np.diff(found.terms[start:end]) > 0).all()
        assert 0 < end - start < 131


def test_no_texts_and_texts_without_a_term(models: Path) -> None:
    teacher = SparseEncoderTeacher(make_sparse(models))
    nothing = teacher.encode_sparse([], "query")
    assert nothing.offsets.tolist() == [0]
    assert (nothing.terms.dtype, nothing.weights.dtype) == (np.int32, np.float32)
    with torch.no_grad():
        teacher.model[0].auto_model.cls.predictions.bias.fill_(-1000.0)
    for similarity in ("dot", "cosine"):
        teacher.model.similarity_fn_name = similarity
        assert teacher.encode_sparse(["w1", "w2 w3"], "query").offsets.tolist() == [0, 0, 0]


def test_a_weight_of_zero_is_left_out(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (np.array([0, 0, 1]), np.array([4, 9, 2]), np.array([0.0, 2.0, 3.0], dtype=np.float32))
    teacher = SparseEncoderTeacher(make_sparse(models))
    monkeypatch.setattr(teacher, "_encode", lambda texts, role: entries)
    found = teacher.encode_sparse(["w1", "w2"], "query")
    assert (found.offsets.tolist(), found.terms.tolist(), found.weights.tolist()) == ([0, 1, 2], [9, 2], [2.0, 3.0])


def test_a_cosine_model_gives_sparse_vectors_of_length_one(models: Path) -> None:
    teacher = SparseEncoderTeacher(make_sparse(models, similarity_fn_name="cosine"))
    model = teacher.model
    queries, passages = (dense_rows(teacher.encode_sparse(texts, "query")) for texts in (QUERIES, PASSAGES))
    expected = model.similarity(model.encode(QUERIES).to_dense(), model.encode(PASSAGES).to_dense())
    np.testing.assert_allclose(queries @ passages.T, expected, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(passages, axis=1), 1, atol=1e-6)
    assert teacher.fingerprint("query") != SparseEncoderTeacher(make_sparse(models)).fingerprint("query")


def test_a_sparse_model_that_measures_distance_is_refused(models: Path) -> None:
    with pytest.raises(InputError, match="compares vectors by 'euclidean', supported are 'cosine' and 'dot'"):
        SparseEncoderTeacher(make_sparse(models, similarity_fn_name="euclidean"))


def test_only_the_heaviest_terms_are_kept(models: Path) -> None:
    whole = use(named(SparseEncoderTeacher, models, "sparse"), PASSAGES)
    for teacher in (
        named(SparseEncoderTeacher, models, "sparse", max_active_dims=3),
        SparseEncoderTeacher(make_sparse(models, max_active_dims=3)),
    ):
        found = teacher.encode_sparse(PASSAGES, "passage")
        assert (np.diff(found.offsets) == 3).all()
        kept = np.where(whole >= np.sort(whole, axis=1)[:, -3:-2], whole, 0)
        np.testing.assert_allclose(dense_rows(found), kept, atol=1e-5)
    assert teacher.fingerprint("query") != SparseEncoderTeacher(make_sparse(models)).fingerprint("query")


def test_sparse_texts_are_cut_to_max_length(models: Path) -> None:
    teacher = named(SparseEncoderTeacher, models, "sparse", max_length=4)
    found = use(teacher, ["w1 w2 w3 w4", "w1 w2"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_sparse_weights_come_out_as_float32_from_bfloat16(models: Path) -> None:
    half = use(named(SparseEncoderTeacher, models, "sparse", dtype="bfloat16"), PASSAGES)
    whole = use(named(SparseEncoderTeacher, models, "sparse"), PASSAGES)
    assert not np.array_equal(half, whole)
    np.testing.assert_allclose(half, whole, atol=0.1)


def test_sparse_weights_that_are_not_finite_are_a_teacher_error(models: Path) -> None:
    model: SparseEncoder = make_sparse(models)
    with torch.no_grad():
        model[0].auto_model.cls.predictions.bias[7] = torch.inf
    with pytest.raises(TeacherError, match=r"gave 2 weights that are not finite, the first one to 'w1'"):
        SparseEncoderTeacher(model).encode_sparse(["w1", "w2 w3"], "passage")


# Late interaction


@pytest.mark.parametrize("similarity", ["maxsim", "meanmaxsim"])
def test_token_vectors_give_the_models_own_similarity(models: Path, similarity: str) -> None:
    model = make_tokens(models, similarity_fn_name=similarity)
    teacher = LateInteractionTeacher(model, batch_size=7)
    queries, passages = teacher.encode_tokens(QUERIES, "query"), teacher.encode_tokens(PASSAGES, "passage")
    expected = model.similarity(model.encode_query(QUERIES), model.encode_document(PASSAGES))
    np.testing.assert_allclose(late_scores(queries, passages), expected, rtol=1e-5, atol=1e-5)
    lengths = np.linalg.norm(passages.vectors, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_the_mean_is_another_teacher_than_the_sum(models: Path) -> None:
    prints = {
        LateInteractionTeacher(make_tokens(models, similarity_fn_name=name)).fingerprint("query")
        for name in ("maxsim", "meanmaxsim")
    }
    assert len(prints) == 2


def test_token_vectors_are_csr_of_the_tokens_that_count(models: Path) -> None:
    teacher = named(LateInteractionTeacher, models, "tokens", batch_size=2)
    found = teacher.encode_tokens(["w5 w6 w7", "d w5 w1", "w5 " * 40, ""], "passage")
    assert (found.offsets.dtype, found.vectors.dtype) == (np.int64, np.float32)
    assert np.diff(found.offsets).tolist() == [5, 3, 24, 2], "with [CLS] and [SEP], without padding, d and w1"
    assert found.vectors.shape == (34, WIDTH)
    assert np.abs(found.vectors).max(axis=1).all(), "no row of padding"
    expanded = teacher.encode_tokens(["w5", "d w1 w6"], "query")
    assert np.diff(expanded.offsets).tolist() == [12, 12]
    alone = teacher.encode_tokens(["d w1 w6"], "query")
    np.testing.assert_allclose(expanded.vectors[12:], alone.vectors, atol=1e-5)


def test_no_texts_have_no_token_vectors(models: Path) -> None:
    nothing = named(LateInteractionTeacher, models, "tokens").encode_tokens([], "query")
    assert nothing.offsets.tolist() == [0]
    assert nothing.vectors.shape == (0, WIDTH)
    assert nothing.vectors.dtype == np.float32


def test_a_text_without_a_token_that_counts_has_one_vector_of_zeros(models: Path) -> None:
    model = make_tokens(models, skip=("[CLS]", "[SEP]", "d"))
    found = LateInteractionTeacher(model).encode_tokens(["w5", "d d", "w6 w7"], "passage")
    assert np.diff(found.offsets).tolist() == [1, 1, 2]
    assert (found.vectors == 0).all(axis=1).tolist() == [False, True, False, False]


def test_skipped_words_and_query_expansion_are_in_the_fingerprint(models: Path) -> None:
    model = make_tokens(models)
    prints = [LateInteractionTeacher(made).fingerprint("query") for made in (model, make_tokens(models, skip=("w1",)))]
    model[0].query_expansion = {"strategy": "fixed", "attend": True, "length": 12}
    prints.append(LateInteractionTeacher(model).fingerprint("query"))
    assert len(set(prints)) == 3


def test_passages_are_cut_to_max_length_and_queries_as_the_model_wants_them(models: Path) -> None:
    teacher = named(LateInteractionTeacher, models, "tokens", max_length=30)
    assert np.diff(teacher.encode_tokens(["w5 " * 40, "w6"], "passage").offsets).tolist() == [30, 3]
    plain = named(LateInteractionTeacher, models, "tokens")
    np.testing.assert_array_equal(use(teacher, QUERIES, "query"), use(plain, QUERIES, "query"))


def test_a_model_that_scores_only_images_is_refused(models: Path) -> None:
    with pytest.raises(InputError, match=r"image patches and no words of a passage \(keep_only_token_ids\)"):
        LateInteractionTeacher(make_tokens(models, keep=[3]))


def test_token_vectors_that_are_not_finite_are_a_teacher_error(models: Path) -> None:
    model = make_tokens(models)
    with torch.no_grad():
        model[1].linear.weight[0, 0] = torch.nan
    with pytest.raises(TeacherError, match="gave 3 of 3 vectors that are not finite to 'w5'"):
        LateInteractionTeacher(model).encode_tokens(["w5", "w6 w7"], "passage")


def test_an_older_sentence_transformers_is_named(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sentence_transformers, "MultiVectorEncoder")
    monkeypatch.setitem(sys.modules, "sentence_transformers.MultiVectorEncoder", None)
    with pytest.raises(InputError, match=r"needs sentence-transformers 6\.0 or newer, installed is \d+\.\d+"):
        named(LateInteractionTeacher, models, "tokens").encode_tokens(["w1"], "query")


def test_the_digest_knows_every_kind(models: Path) -> None:
    made = [load_model(models), make_cross(models), make_sparse(models), make_tokens(models)]
    assert len({model_digest(model) for model in made}) == 4
