"""The card of a trained model: its section about negatives, and a workaround for nulls in the rows it is made from."""

from __future__ import annotations

from functools import partial
from typing import Any

import datasets

from hf_negmine.base.wording import counted
from hf_negmine.train.data import TrainingData
from hf_negmine.train.settings import TrainingSettings

HEADING = "## Negatives"
RULES = {
    "student": "searched again with the model itself before every epoch except the first, under the same ceiling",
    "easy": "those that the model found easy were replaced by the next in the teacher's ranking before every epoch "
    "except the first",
}


def negatives_section(
    data: TrainingData,
    settings: TrainingSettings,
    *,
    masked: float | None,
    refreshes: int,
    resumed_at: int | None,
    evaluated: tuple[str, float, float] | None,
) -> str:
    """Markdown that tells how the negatives were mined and used, and what training with them achieved.

    Args:
        data, settings: what was trained on, and how.
        masked: share of the in-batch passages that the loss left out; None for a loss that leaves out none.
        refreshes: how often the negatives were refreshed.
        resumed_at: the step at which an interrupted run continued.
        evaluated: name of the data set, NDCG at 10 before and after.
    """
    summary, n, sampler = data.summary, data.num_negatives, data.collating.get("sampler")
    left_out = f"; {data.left_out:,} left out for lack of negatives" if data.left_out else ""
    lines = [f"- **Rows:** {len(data.rows):,}, {counted(n, 'negative')} each{left_out}"]
    if summary is None:
        lines.append("- **Mining:** the rows came with their negatives; how those were mined is not recorded")
    else:
        mining = summary.settings
        similarity = f" ({mining['similarity']})" if mining.get("similarity") else ""
        lines += [
            f"- **Teacher:** {mining['teacher']}{similarity}",
            f"- **Method:** `{mining['method']}`",
            f"- **Sampler:** `{mining['sampler']}`, seed {mining['seed']}",
            f"- **Searched:** {summary.queries:,} queries in a corpus of {summary.passages:,} passages",
            f"- **Mined with:** hf_negmine {mining['library_version']}",
        ]
    if data.miner is not None or sampler is not None:
        lines.append("- **Every epoch:** redrawn" + (f" by `{sampler}` from the mined ones" if sampler else ""))
    if settings.refresh is not None:
        lines.append(f"- **Refreshed:** {counted(refreshes, 'time')}; {RULES[settings.refresh]}")
    if not settings.in_batch_negatives:
        lines.append("- **In the batch:** a query is compared with its own negatives only")
    elif masked is not None:
        share = f"counting repeats, {masked:.2%}"
        lines.append(f"- **In the batch:** {share} of the passages were left out as likely false negatives")
    if resumed_at is not None:
        lines.append(
            f"- **Interrupted:** training continued at step {resumed_at:,}; logs, time and shares cover the part after"
        )
    if evaluated is not None:
        name, before, after = evaluated
        lines.append(f"- **NDCG@10** on {name}: {before:.4f} before training, {after:.4f} after")
    return "\n".join([HEADING, "", *lines, ""])


def let_card_read_mined_rows(model: Any) -> None:
    """Let the card of ``model`` be made from short rows, which have nulls, and from rows of ids, which have no text.

    When a Sentence Transformers trainer is created, it measures its data sets for the card, and fails at a null in a
    column of texts or lists. The card is shown an empty text or list instead, and no other column that holds nulls. The
    trainer also fails to find examples in a selection of rows that have no text.
    """
    card: Any = getattr(model, "model_card_data", None)
    if hasattr(card, "extract_dataset_metadata"):
        card.extract_dataset_metadata = partial(_measured, card)
        card.set_widget_examples = partial(_shown, card)


def _measured(card: Any, dataset: Any, *args: Any, **kwargs: Any) -> Any:
    return type(card).extract_dataset_metadata(card, _without_nulls(dataset), *args, **kwargs)


def _shown(card: Any, dataset: Any) -> None:
    sets = dataset if isinstance(dataset, datasets.DatasetDict) else {"dataset": dataset}
    with_text = {
        name: _without_nulls(rows)
        for name, rows in sets.items()
        if isinstance(rows, datasets.Dataset) and any(map(_is_text, rows.features.values()))
    }
    if with_text:
        type(card).set_widget_examples(card, datasets.DatasetDict(with_text))


def _is_text(kind: Any) -> bool:
    return getattr(kind, "dtype", None) in ("string", "large_string")


def _without_nulls(dataset: Any) -> Any:
    if isinstance(dataset, datasets.DatasetDict):
        return datasets.DatasetDict({name: _without_nulls(rows) for name, rows in dataset.items()})
    if not isinstance(dataset, datasets.Dataset):
        return dataset
    nulls = {name for name in dataset.column_names if dataset.data[name].null_count}
    if not nulls:
        return dataset
    empty: dict[str, Any] = {}
    for name in nulls:
        if isinstance(dataset.features[name], datasets.List | list):
            empty[name] = []
        elif _is_text(dataset.features[name]):
            empty[name] = ""
    # The trainer may already have set a transform, which adds the data set's name.
    before = dataset.format["format_kwargs"].get("transform") if dataset.format["type"] == "custom" else None
    return dataset.with_transform(partial(_filled, before, empty, nulls - set(empty)))


def _filled(
    before: Any, empty: dict[str, Any], left_out: set[str], batch: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    batch = batch if before is None else before(batch)
    return {
        name: [empty[name] if value is None else value for value in values] if name in empty else values
        for name, values in batch.items()
        if name not in left_out
    }
