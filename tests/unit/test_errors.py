"""Exceptions hold both facts and can be caught as one family or by their usual Python kind."""

from __future__ import annotations

import pickle

import pytest

from hf_negmine.base import errors


@pytest.mark.parametrize(
    ("kind", "python_kind"),
    [
        (errors.InputError, ValueError),
        (errors.ColumnError, ValueError),
        (errors.TeacherError, ValueError),
        (errors.ShallowPoolError, RuntimeError),
        (errors.StorageError, OSError),
    ],
)
def test_every_exception_is_of_the_family(kind: type[Exception], python_kind: type[Exception]) -> None:
    assert issubclass(kind, errors.NegmineError)
    assert issubclass(kind, python_kind)


def test_a_wrong_column_names_those_there_are() -> None:
    error = errors.ColumnError("querry", ["query", "answer"], argument="query_column")
    assert str(error) == "query_column: column 'querry' is not among ['query', 'answer']"


def test_errors_reach_other_processes_as_they_are() -> None:
    """Else ``map(num_proc=2)`` would wait forever for the process that raised it."""
    for error in (errors.ColumnError("a", ["b"], argument="map"), errors.StorageError("the disk is full")):
        other = pickle.loads(pickle.dumps(error))
        assert (type(other), str(other)) == (type(error), str(error))


def test_a_wrong_choice_names_the_choices() -> None:
    errors.require_choice("min", ["min", "each"], argument="positive_score")
    with pytest.raises(errors.InputError, match=r"positive_score: 'max' is not among \['min', 'each'\]"):
        errors.require_choice("max", ["min", "each"], argument="positive_score")
