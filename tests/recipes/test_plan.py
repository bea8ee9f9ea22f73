"""What a run takes: the plan in the README is the plan that is computed, and its arithmetic holds.

After a change that is meant, write the README's plan and tables again: ``python -m tests.recipes.test_plan``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recipes.common.command import in_hours
from recipes.common.config import load_recipe
from recipes.common.sets import SETS, table_of_sources
from recipes.nv_retriever_v1.plan import Plan
from recipes.nv_retriever_v1.recipe import NVRetriever
from recipes.nv_retriever_v1.run import app

FOLDER = Path(__file__).parents[2] / "recipes" / "nv_retriever_v1"
RECIPE, README = FOLDER / "recipe.yaml", FOLDER / "README.md"
PLAN = re.compile(r"(?<=<!-- plan -->\n```\n).*?(?=\n```\n<!-- /plan -->)", re.DOTALL)
SOURCES = re.compile(r"(?<=<!-- sources -->\n).*?(?=\n<!-- /sources -->)", re.DOTALL)
NOTES = re.compile(r"(?<=<!-- notes -->\n).*?(?=\n<!-- /notes -->)", re.DOTALL)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(load_recipe(RECIPE, NVRetriever))


def test_the_readme_shows_the_plan(plan: Plan) -> None:
    shown = PLAN.search(README.read_text(encoding="utf-8"))
    assert shown is not None
    assert shown[0] == str(plan)


def test_the_command_prints_it(plan: Plan) -> None:
    result = CliRunner().invoke(app, ["--dry-run"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{plan}\n"


def test_steps_of_the_paper(plan: Plan) -> None:
    first, second = plan.stages
    assert first.rows == 728_160
    assert [reading.rows for reading in first.readings] == [128, 256, 1024]
    assert [reading.mixed for reading in first.readings] == [5688, 2844, 711]
    assert first.nearest == first.readings[1]
    assert first.nearest.off_by(2844) == 0
    assert second.rows == 956_215
    assert [reading.rows for reading in second.readings] == [128, 64, 1024]
    assert second.nearest == second.readings[2]
    assert 829 not in {steps for reading in second.readings for steps in reading.steps}
    assert "The paper's 829 comes out under no reading" in str(plan)


def test_steps_keep_their_sets_apart(plan: Plan) -> None:
    for stage in plan.stages:
        for reading in stage.readings:
            sets = len(stage.sets)
            assert reading.apart <= reading.mixed <= reading.apart_kept
            assert reading.apart_kept - reading.apart <= sets
    stage = plan.stages[0]
    batches = sum(one.samples // 32 for one in stage.sets)
    assert stage.steps == -(-batches // (8 * 4)) == 711


def test_the_adapter_is_the_one_that_peft_makes(plan: Plan) -> None:
    import peft
    import torch
    from transformers import MistralConfig, MistralModel

    shape = plan.recipe.base.architecture
    config = MistralConfig(
        num_hidden_layers=1, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        vocab_size=8, num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    with torch.device("meta"):
        lora = peft.LoraConfig(r=plan.recipe.lora.r, target_modules=list(plan.recipe.lora.target_modules))
        model = peft.inject_adapter_in_model(lora, MistralModel(config))
    trained = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    assert trained * shape.layers == plan.adapter_parameters == 41_943_040


def test_hours_by_hand(plan: Plan) -> None:
    first = plan.stages[0]
    tokens = 728_160 * (192 + 2 * 512)
    assert first.tokens(longest=True) == tokens
    operations = 6 * 7_110_660_096 * tokens * 12
    assert first.hours(longest=True) == pytest.approx(operations / (8 * 312e12 * 0.4) / 3600)
    assert first.hours() < first.hours(longest=True)
    assert first.hours(rows=first.rows / 2) == pytest.approx(first.hours() / 2)


def test_memory_grows_where_it_should(plan: Plan) -> None:
    recipe, stage = plan.recipe, plan.recipe.stages[1]
    training = replace(stage.training, activation_checkpointing=False)
    without = Plan(replace(recipe, stages=(replace(stage, training=training),)))
    assert without.stages[0].activations > 10 * plan.stages[1].activations / 2
    assert "DOES NOT FIT" in str(without)
    assert "4 operations per weight and token" in str(without)
    whole = Plan(replace(recipe, base=replace(recipe.base, dtype="float32")))
    assert whole.fixed_memory > 1.9 * plan.fixed_memory


def test_a_recipe_of_other_sets_is_planned_as_well(plan: Plan) -> None:
    recipe = plan.recipe
    stage = replace(recipe.stages[0], kinds=("sts",), leave_out=("STS22",), paper_steps=None)
    small = Plan(replace(recipe, stages=(stage,)))
    assert [one.name for one in small.recipe.sets] == ["STS12", "STSBenchmark"]
    assert "The paper's 15 retrieval sets have 728,160." in str(small)
    assert "paper's rows" not in str(small)
    mixed = replace(stage, homogeneous_batches=False, training=replace(stage.training, dataloader_drop_last=False))
    assert Plan(replace(recipe, stages=(mixed,))).stages[0].steps == 5  # 147 batches, 19 a GPU, 4 an update


def write_readme() -> None:
    text = README.read_text(encoding="utf-8")
    notes = "\n".join(f"- **{one.name}**: {one.note}" for one in SETS.values() if one.note)
    for part, content in (
        (PLAN, str(Plan(load_recipe(RECIPE, NVRetriever)))),
        (SOURCES, table_of_sources()),
        (NOTES, notes),
    ):
        assert part.search(text)
        text = part.sub(lambda _, content=content: content, text)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_readme()


@pytest.mark.parametrize(
    ("hours", "digits", "shown"),
    [(1258.3, 0, "1,258 h"), (0.6, 0, "1 h"), (0.49, 0, "29 min"), (0.0801, 0, "4.8 min"), (0.06, 1, "0.1 h"),
     (0.01, 1, "0.6 min")],
)  # fmt: skip
def test_hours_that_would_round_to_0_are_minutes(hours: float, digits: int, shown: str) -> None:
    assert in_hours(hours, digits, " h") == shown
