"""`ApproximateTeacher`: the same by every door, and in everything that looks at a teacher's vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hf_negmine import ApproximateTeacher, DenseTeacher, MiningConfig, NearDuplicates, ScoreFunction, Veto
from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import Role
from hf_negmine.base.schema import FloatArray
from hf_negmine.teachers import identity_of, parse_call, resolve_teacher, settings_of, stages_of
from hf_negmine.teachers.approximate import CANDIDATES, IndexSpec
from tests.tiny_models import write_tiny_models
from tests.unit.test_miner import CORPUS, ROWS, WordTeacher, miner_in

pytest.importorskip("faiss", reason="needs the package faiss-cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_models(folder)
    return folder / "dense"


def over(index: str, teacher: Any = None, **settings: Any) -> ApproximateTeacher:
    return ApproximateTeacher(teacher or WordTeacher(), index, **settings)


def count_indexes(folder: Path) -> int:
    return len(list(folder.glob("indexes/*.faiss")))


# ---- doors -----------------------------------------------------------------------------------------------------------


def test_a_spec_of_an_index_is_read_and_said() -> None:
    spec = IndexSpec.parse("IVF256,PQ32@nprobe=8, k_factor_rf=12345678")
    assert (spec.factory, spec.parameters) == ("IVF256,PQ32", {"nprobe": 8, "k_factor_rf": 12345678})
    assert str(spec) == "IVF256,PQ32@k_factor_rf=12345678,nprobe=8"
    assert IndexSpec.parse(str(spec)) == spec
    assert str(IndexSpec.parse(" Flat ")) == "Flat"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "index: a FAISS factory such as"),
        (7, "index: a FAISS factory such as 'IVF1024,Flat', got 7"),
        ("Flat@", r"index: '' in 'Flat@' is not a setting such as"),
        ("IVF4,Flat@nprobe=0", "is not a setting"),
        ("IVF4,Flat@nprobe=0.5", "'nprobe=0.5' in .* is not a setting such as 'nprobe=32', a whole number from 1 to"),
        ("IVF4,Flat@nprobe=1.5", "a whole number from 1 to 2147483647"),
        ("HNSW4@efSearch=2147483648", "a whole number from 1 to 2147483647"),
        ("HNSW4@efSearch=" + "9" * 5000, "a whole number from 1 to 2147483647"),
        ("IVF4,Flat@nprobe", "is not a setting"),
    ],
)
def test_an_index_that_is_none_is_an_error(index: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        over(index)


@pytest.mark.parametrize("candidates", [0, -1, 2.5, "9"])
def test_candidates_are_a_whole_number(candidates: Any) -> None:
    with pytest.raises(InputError, match="candidates: a whole number, at least 1, got"):
        over("Flat", candidates=candidates)


def test_every_door_leads_to_the_same_teacher(model: Path) -> None:
    teacher = ApproximateTeacher(DenseTeacher(model), "HNSW8@efSearch=64", candidates=20)
    assert teacher.name == "faiss:HNSW8@efSearch=64:dense"
    by_spec = resolve_teacher(f"faiss:HNSW8@efSearch=64:{model}", options={"faiss": {"candidates": 20}})
    config = MiningConfig(teacher, cache_dir=model)
    recorded = json.loads(json.dumps(config.to_dict()))
    assert recorded["teacher_settings"] | {"stages": []} == {
        "kind": "faiss", "index": "HNSW8@efSearch=64", "candidates": 20, "stages": [],
    }  # fmt: skip
    recorded["teacher_settings"]["stages"][0]["model"] = str(model)
    again = MiningConfig.from_dict(recorded, cache_dir=model).teacher
    for other in (by_spec, again):
        assert isinstance(other, ApproximateTeacher)
        assert identity_of(other) == identity_of(teacher)
        assert settings_of(other) == settings_of(teacher)
    assert stages_of(teacher) == (teacher.teacher,)


def test_whatever_changes_what_is_found_changes_the_identity() -> None:
    teachers = [over("HNSW8"), over("HNSW8@efSearch=9"), over("Flat"), over("HNSW8", candidates=9)]
    identities = [json.dumps(identity_of(one)) for one in (*teachers, over("HNSW8", WordTeacher("2")))]
    assert len(set(identities)) == 5
    assert len({one.fingerprint("passage") for one in teachers}) == 3  # candidates are recorded beside it
    assert identity_of(over("HNSW8")) == identity_of(over("HNSW8", candidates=CANDIDATES))


def test_a_named_model_is_not_loaded_before_it_is_needed() -> None:
    teacher = resolve_teacher("faiss:IVF4,Flat:there-is/no-such-model", device="cpu")
    assert teacher.name == "faiss:IVF4,Flat:there-is/no-such-model"


def test_commas_of_a_factory_separate_nothing() -> None:
    spec = "sum(faiss:IVF4,PQ8@nprobe=2,k=3:a/b, rrf(faiss:IVF9,Flat:c, bm25), bm25)"
    found = ["faiss:IVF4,PQ8@nprobe=2,k=3:a/b", "rrf(faiss:IVF9,Flat:c, bm25)", "bm25"]
    assert parse_call(spec, ["sum"]) == ("sum", found)


# ---- mining ----------------------------------------------------------------------------------------------------------


class Elsewhere(WordTeacher):
    """Another dense teacher, in whose vectors texts lie elsewhere."""

    name = "elsewhere"

    def encode(self, texts: Any, role: Role) -> FloatArray:
        return super().encode([text[::-1] for text in texts], role)


@pytest.mark.parametrize("method", ["perc_pos:0.95", "naive", "band:3-20"])
def test_an_index_of_everything_mines_what_the_exact_search_mines(tmp_path: Path, method: str) -> None:
    """The pool stores two candidates per query; the others are searched for when they are needed."""
    settings: dict[str, Any] = {"method": method, "pool_depth": 2, "on_exhausted": "keep", "include_scores": True}
    exact = miner_in(tmp_path / "exact", **settings)
    near = miner_in(tmp_path / "near", teacher=over("Flat", candidates=len(CORPUS)), **settings)
    assert list(near.mine(ROWS)) == list(exact.mine(ROWS))
    assert near.summary.recall == {"faiss:Flat:words": 1.0}
    assert exact.summary.recall is None


def test_a_pool_stores_only_as_many_candidates_as_it_is_asked_for(tmp_path: Path) -> None:
    miner = miner_in(tmp_path, teacher=over("Flat", candidates=30), method="naive", pool_depth=5)
    pool = miner.fit(ROWS).pool
    assert len(pool.lists.passages) == 5 * pool.n_queries
    assert set(pool.select("band:27-40", n=5).counts.tolist()) == {3}  # ranks 27 to 29, counted from 0


def test_fewer_candidates_than_negatives_are_refused(tmp_path: Path) -> None:
    few = over("Flat", candidates=3)
    message = "candidates: faiss:Flat:words ranks 3 passage.s. per query, too few for 4 negatives; set candidates to at"
    for teacher in (few, ScoreFunction(lambda queries, passages: [0.0] * len(queries), first_stage=few, version="1")):
        with pytest.raises(InputError, match=message):
            MiningConfig(teacher, num_negatives=4, cache_dir=tmp_path)
        MiningConfig(teacher, num_negatives=3, cache_dir=tmp_path)


def test_near_duplicates_are_found_by_the_dense_teachers_vectors(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": "naive", "on_exhausted": "keep"}
    exact = miner_in(tmp_path / "a", filters=[NearDuplicates(0.7)], **settings).mine(ROWS)
    for duplicates in (NearDuplicates(0.7), NearDuplicates(0.7, teacher=over("HNSW8"))):
        teacher = over("Flat", candidates=len(CORPUS))
        near = miner_in(tmp_path / "b", teacher=teacher, filters=[duplicates], **settings)
        assert list(near.mine(ROWS)) == list(exact)
        assert sum(near.summary.removed.values()) > len(ROWS)


def test_an_index_is_built_once_and_not_for_scores_of_pairs(tmp_path: Path) -> None:
    vetoed = miner_in(
        tmp_path / "vetoed", filters=[Veto(over("HNSW8", Elsewhere()), "perc_pos:0.5")], on_exhausted="keep"
    )
    vetoed.mine(ROWS)
    assert vetoed.summary.removed["veto by faiss:HNSW8:elsewhere (perc_pos:0.5)"] > 0
    assert (vetoed.summary.recall, count_indexes(tmp_path / "vetoed")) == (None, 0)
    for spec in ("HNSW8", "HNSW8@efSearch=9"):
        miner_in(tmp_path / "plain", teacher=over(spec), on_exhausted="keep").fit(ROWS)
    assert count_indexes(tmp_path / "plain") == 1
    # Without rows it is built at fit(), too, and not in every process that maps.
    miner_in(tmp_path / "alone", teacher=over("HNSW8")).fit(corpus=CORPUS)
    assert count_indexes(tmp_path / "alone") == 1


def test_a_corpus_that_is_too_small_for_the_index_is_one_sentence(tmp_path: Path) -> None:
    message = r"index: 'IVF300,Flat' trains 300 clusters, which needs as many vectors; the corpus holds \d+"
    with pytest.raises(InputError, match=message):
        miner_in(tmp_path, teacher=over("IVF300,Flat")).fit(ROWS)
