"""What a teacher's fingerprint costs: reading the model, encoding a few texts, and how often a fit asks for it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

from common import dense_teacher, machine, median, open_squad, parser, prepare, print_table

from hf_negmine import NegativeMiner
from hf_negmine.teachers import DenseTeacher
from hf_negmine.teachers.model_digest import model_digest
from hf_negmine.teachers.probes import one_thread

PASSAGES = 200
ROWS = 100


def timed(repeats: int, call: Callable[[], object]) -> float:
    """Median CPU seconds of a call."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return median(found)


def asked_by_a_fit(teacher: DenseTeacher) -> int:
    """How often fitting and mining a few rows asks for a fingerprint."""
    asked, own = [], DenseTeacher.fingerprint
    rows = open_squad(ARGUMENTS).rows.select(range(ROWS))

    def fingerprint(self: DenseTeacher, role: str) -> str:
        asked.append(role)
        return own(self, role)  # type: ignore[arg-type]

    DenseTeacher.fingerprint = fingerprint  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory() as folder:
        NegativeMiner(teacher, num_negatives=1, method="naive", cache_dir=folder, progress=False).mine(rows)
    DenseTeacher.fingerprint = own  # type: ignore[method-assign]
    return len(asked)


if __name__ == "__main__":
    assert __doc__
    ARGUMENTS = parser(__doc__.splitlines()[0], repeats=15).parse_args()
    prepare(ARGUMENTS)
    teacher = dense_teacher(ARGUMENTS)
    teacher.fingerprint("query")  # the first one loads the model, and checks whether using it changes it
    passages = open_squad(ARGUMENTS).corpus.slice(0, PASSAGES).to_pylist()

    def probe() -> None:
        with one_thread():
            teacher._probe("passage")

    print(machine(), "\n")
    rows = [
        ["read the model", timed(ARGUMENTS.repeats, lambda: model_digest(teacher.model))],
        ["probe it", timed(ARGUMENTS.repeats, probe)],
        ["a fingerprint", timed(ARGUMENTS.repeats, lambda: teacher.fingerprint("passage"))],
        [f"encode {PASSAGES} passages", timed(1, lambda: teacher.encode(passages, "passage"))],
    ]
    print_table(["CPU milliseconds, median", "ms"], [[str(name), f"{1000 * float(took):,.0f}"] for name, took in rows])
    print(f"A fit with its rows asks {asked_by_a_fit(teacher)} times.")
