"""Options against the signatures that they come from, which are read here by importing them."""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from typer.testing import CliRunner

from hf_negmine import page
from hf_negmine.auditing import audit as audit_rows
from hf_negmine.base.arguments import descriptions
from hf_negmine.commands import audit, mine, report, share, sweep, train
from hf_negmine.commands.cli import app
from hf_negmine.commands.output import open_mined
from hf_negmine.commands.signatures import Option, Panels, Parameter, Signature, option, parameters, takes
from hf_negmine.config import MiningConfig
from hf_negmine.hub.load import load_mined
from hf_negmine.hub.push import push_dataset
from hf_negmine.hub.reproducing import reproduce
from hf_negmine.miner import NegativeMiner
from hf_negmine.page.serving import served
from hf_negmine.pool.list_files import open_lists_at
from hf_negmine.select.chat_judge import ChatJudge
from hf_negmine.select.filters import Consistency
from hf_negmine.select.judge import Judge
from hf_negmine.select.judgements import Judgements
from hf_negmine.teachers import MODEL_KINDS, CrossEncoderTeacher, DenseTeacher
from hf_negmine.teachers.encoders import EncoderTeacher, ModelSettings
from hf_negmine.teachers.endpoint import Endpoint, ServerSettings
from hf_negmine.teachers.text_encoders import TextEncoderSettings, TextEncoderTeacher
from hf_negmine.train.data import TrainingData
from hf_negmine.train.losses import CachedPositiveAwareMNRL, PositiveAwareMNRL
from hf_negmine.train.settings import TrainingSettings
from hf_negmine.train.softmax import LossSettings, SoftmaxSettings
from hf_negmine.trial import try_settings

TEACHERS = [DenseTeacher, *MODEL_KINDS.values()]
PANELS: dict[str, Panels] = {
    "mine": mine.OPTIONS,
    "sweep": sweep.OPTIONS,
    "audit": audit.OPTIONS,
    "train": train.OPTIONS,
    "report": report.REPORT,
    "explore": report.EXPLORE,
    "push": share.PUSH,
    "reproduce": share.REPRODUCE,
}
SET_BY: dict[str, dict[str, Sequence[Callable[..., Any]]]] = {
    "mine": {
        "part": [NegativeMiner.mine],
        "candidates": [open_lists_at],
        "loading": TEACHERS,
        "mining": [MiningConfig],
        "consistency": [Consistency],
        "judging": [Judge],
        "judged": [Judgements],
        "server": [ChatJudge],
    },
    "sweep": {
        "part": [NegativeMiner.fit],
        "loading": TEACHERS,
        "swept": [NegativeMiner.sweep],
        "mining": [MiningConfig],
        "consistency": [Consistency],
        "trying": [try_settings],
    },
    "audit": {
        "part": [audit_rows],
        "loading": TEACHERS,
        "mining": [MiningConfig],
        "judging": [Judge],
        "judged": [Judgements],
        "server": [ChatJudge],
    },
    "train": {
        "part": [NegativeMiner.fit, TrainingData.to_be_mined, TrainingData.of_mined, open_mined],
        "loading": TEACHERS,
        "training": [TrainingSettings],
        "mining": [MiningConfig],
    },
    "report": {"source": [load_mined], "settings": [page.write_report]},
    "explore": {"source": [load_mined], "settings": [served]},
    "push": {"settings": [push_dataset]},
    "reproduce": {"settings": [reproduce, load_mined]},
}
"""What is called with each mapping that a command is given."""
EVERYWHERE = {"part", "training", "mining", "settings"}
"""Mappings of which every option must fit all that is called with them and has such a parameter."""
OPTIONS = [
    pytest.param(command, one, id=f"{command} {one.name}")
    for command, panels in PANELS.items()
    for group in panels.values()
    for one in group
    if one.into is not None and one.name != "cache_dir"  # a folder has a check of its own
]


class Names(dict[str, Any]):
    """The names of a module, for annotations; what is imported for type checkers alone may be anything."""

    def __missing__(self, name: str) -> Any:
        return {"Read": Given}.get(name, getattr(builtins, name, Any))


class Given:
    """`config.Read`: the type that may be given."""

    def __class_getitem__(cls, types: tuple[Any, Any]) -> Any:
        return types[0]


def types_of(target: Callable[..., Any], key: str) -> list[Any]:
    """The types of a parameter's annotation, those of a union one by one."""
    annotation = inspect.signature(target).parameters[key].annotation
    names = Names()
    for one in getattr(target, "__mro__", [target]):  # a class may show the arguments of its base
        names = Names(vars(sys.modules[one.__module__]) | names)
    hint = eval(annotation, {}, names)
    return [hint] if get_origin(hint) in (None, Literal) or hint is Any else [hint, *get_args(hint)]


def agrees(one: Option, target: Callable[..., Any]) -> bool:
    default = inspect.signature(target).parameters[one.key].default
    types = types_of(target, one.key)
    several = [Sequence[each] for each in get_args(one.type)]  # type: ignore[valid-type]
    # Sequence[Method | str] takes a list of texts, too
    types += [Sequence[each] for hint in types if get_origin(hint) is Sequence for each in get_args(get_args(hint)[0])]  # type: ignore[valid-type]
    typed = one.type in types or Any in types or any(each in types for each in several)
    return typed and (one.default == default or (one.default is None and default in ((), inspect.Parameter.empty)))


@pytest.mark.parametrize(("command", "one"), OPTIONS)
def test_an_option_agrees_with_what_it_sets(command: str, one: Option) -> None:
    assert one.into is not None
    targets = [target for target in SET_BY[command][one.into] if one.key in inspect.signature(target).parameters]
    assert targets
    fits = [agrees(one, target) for target in targets]
    if command == "train" and one.into == "mining":
        fits = fits[:1]
    assert all(fits) if one.into in EVERYWHERE else any(fits)


def test_choices_are_those_of_the_library() -> None:
    choices = [(command, one) for command, one in (case.values for case in OPTIONS) if get_origin(one.type) is Literal]
    assert {one.name for _, one in choices} >= {"dtype", "positive_score", "on_exhausted", "format", "loss", "refresh"}
    for command, one in choices:
        done = CliRunner().invoke(app, [command, f"--{one.name.replace('_', '-')}", "none-of-them"])
        assert done.exit_code == 2
        said = " ".join(done.output.replace("│", " ").split())
        assert all(f"'{word}'" in said for word in get_args(one.type)), said


def test_every_option_has_a_sentence_of_help() -> None:
    group: Any = typer.main.get_command(app)
    commands = {**group.commands, **group.commands["cache"].commands}
    for name, command in commands.items():
        for one in command.params:
            told = getattr(one, "help", None) or ""
            assert len(told.split()) > 2, (name, one.name)
            assert told.endswith("."), (name, one.name, told)
            assert not {"`", "None"} & set(told.replace("`", " ` ").split()), (name, one.name, told)


def test_a_description_becomes_help() -> None:
    text = "where ``cpu`` [it] runs, see `place`; None takes ``$X``, or ``~/x.y``. Then ``more``. And more."
    found = Parameter(str, None, text)
    assert found.help() == r"Where [cyan]cpu[/] \[it] runs, see place."
    assert found.help(2) == r"Where [cyan]cpu[/] \[it] runs, see place. Then [cyan]more[/]."
    assert found.help(None).endswith("And more.")
    assert found.without == "$X, or ~/x.y"
    assert Parameter(bool, False, "whether to stop.").help() == "Stop."
    assert Parameter(str, None, "none.").without is None


@pytest.mark.parametrize(
    ("typed", "source"),
    [
        (ModelSettings, EncoderTeacher),
        (TextEncoderSettings, TextEncoderTeacher),
        (ServerSettings, Endpoint),
        (LossSettings, SoftmaxSettings),
    ],
)
def test_type_checkers_know_the_arguments_that_are_passed_on(typed: Any, source: Any) -> None:
    shown = inspect.signature(source).parameters.values()
    known = {name: hint.__forward_arg__ for name, hint in typed.__annotations__.items()}
    assert known == {one.name: one.annotation for one in shown if one.kind is one.KEYWORD_ONLY}


@pytest.mark.parametrize("kind", [*TEACHERS, ChatJudge, PositiveAwareMNRL, CachedPositiveAwareMNRL])
def test_arguments_that_are_passed_on_are_shown_and_described(kind: Any) -> None:
    shown = inspect.signature(kind).parameters
    assert all(one.kind is not one.VAR_KEYWORD for one in shown.values())
    described = descriptions(inspect.getdoc(kind) or "")
    assert {name for names in described for name in names.split(", ")} == set(shown)
    read = parameters(kind.__module__.removeprefix("hf_negmine."), kind.__name__)
    for names, text in described.items():
        assert {read[name].text for name in names.split(", ")} == {" ".join(text.removeprefix(f"{names}: ").split())}
    with pytest.raises(TypeError, match="'no_such_argument'"):
        kind("model", **({"collator": None} if "collator" in shown else {}), no_such_argument=1)


def test_the_description_of_an_argument_may_be_a_class_s_own() -> None:
    assert "128 tokens" in parameters("teachers.dense", "DenseTeacher")["batch_size"].text
    assert "128 tokens" not in parameters("teachers.sparse", "SparseEncoderTeacher")["batch_size"].text
    with pytest.raises(TypeError, match="'query_prompt'"):
        CrossEncoderTeacher("model", query_prompt="query: ")  # type: ignore[call-arg]


def test_signatures_of_functions_methods_classes_and_fields() -> None:
    assert parameters("hub.load", "load_mined")["split"] == Parameter(str, "train", "which split of that part.")
    assert parameters("miner", "NegativeMiner.fit")["split"].type is str
    assert parameters("teachers.dense", "DenseTeacher")["batch_size"].default == 32
    assert parameters("config", "MiningConfig")["pool_depth"].default == MiningConfig("random").pool_depth


def test_only_what_the_user_gave_is_passed_on() -> None:
    given: dict[str, Any] = {}
    mining = Signature("mining", "config", "MiningConfig")
    small = typer.Typer()

    @small.command()
    @takes(
        {"Panel": [mining("num_negatives", "-n"), mining("format"), option("loud", bool, "Be loud.", default=False)]}
    )
    def run(**values: Any) -> None:
        given.update(values)

    for words, expected in (
        ([], {"mining": {}, "loud": False}),
        (["-n", "4", "--loud"], {"mining": {"num_negatives": 4}, "loud": True}),
        (["--format", "ids"], {"mining": {"format": "ids"}, "loud": False}),
    ):
        assert CliRunner().invoke(small, words).exit_code == 0
        assert given == expected
    assert CliRunner().invoke(small, ["--format", "list"]).exit_code == 2
