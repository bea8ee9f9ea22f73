"""Pushing a trained model in one commit, with a card that says how its negatives were mined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import datasets
from sentence_transformers import SentenceTransformer

from hf_negmine.base.files import default_cache_dir
from hf_negmine.base.naming import public_name
from hf_negmine.hub.material import Material
from hf_negmine.hub.models import negatives_section, set_card_template, stale_weights, write_model
from hf_negmine.hub.provenance import check_repo_id
from hf_negmine.hub.repository import Repository
from hf_negmine.hub.staging import PushResult, paths_in, push_folder
from hf_negmine.miner import NegativeMiner
from hf_negmine.report.summary import MiningSummary


def push_model(
    model: SentenceTransformer,
    repo_id: str,
    *,
    mined: datasets.Dataset | NegativeMiner | MiningSummary | None = None,
    data_id: str | None = None,
    data_ids: Sequence[str] = (),
    evaluation: Mapping[str, tuple[float, float]] | None = None,
    base: str | None = None,
    prompts: Mapping[str, str] | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> PushResult:
    """Push a trained model with a card that says how its negatives were mined, in one commit.

    LoRA adapters are merged into a copy. The saved model is loaded again and compared before anything is sent.

    Args:
        model: a Sentence Transformers model.
        repo_id: ``user/name``.
        mined: the rows it was trained on, or the miner, or its summary.
        data_id: the mined data set, if it is on the Hub.
        data_ids: other data sets on the Hub that it was trained on.
        evaluation: metrics before and after training, such as ``{"nfcorpus NDCG@10": (0.30, 0.33)}``.
        base: the base model; None takes it from the model's card data.
        prompts: the prompts it was trained with, ``{"query": …, "document": …}``; they become the model's own.
        private: whether a new repository is private; None takes the account's default.
        revision: the branch, created if it does not exist. None is the main one.
        token: a Hub token; None takes that of the current login.
        dry_run: whether to write all files to a folder (``PushResult.folder``), and send nothing.

    Raises:
        InputError: the model needs code from the Hub, or how the rows were mined is not recorded.
        NegmineError: read back, the model gives different vectors.
        HubError: the Hub refused, or the connection broke. Nothing has changed there; a second call continues.
    """
    check_repo_id(repo_id)
    for name, prompt in (prompts or {}).items():
        model.prompts[name] = prompt
    there = Repository(repo_id, "model", revision=revision, token=token, dry_run=dry_run)
    section = negatives_section(
        repo_id,
        _summary_of(mined),
        data_id=data_id,
        data_ids=data_ids,
        evaluation=evaluation,
        base=base or model.model_card_data.base_model,
        prompts=model.prompts,
    )
    with push_folder() as folder:
        model.model_card_data.set_model_id(repo_id)
        if model.model_card_data.base_model:
            model.model_card_data.base_model = public_name(model.model_card_data.base_model)
        trained_on = [*([data_id] if data_id else []), *data_ids]
        write_model(model, folder, section, existing=there.card, data_ids=trained_on)
        stale = stale_weights(there.files, paths_in(folder))
        return there.send(folder, stale, "A model and its card", private=private)


def prepare_card(
    model: SentenceTransformer,
    repo_id: str,
    *,
    mined: datasets.Dataset | NegativeMiner | MiningSummary | None = None,
    data_id: str | None = None,
    data_ids: Sequence[str] = (),
    base: str | None = None,
) -> None:
    """Make the trainer write our card: with ``push_to_hub=True`` in its arguments, every card it pushes is ours.

    Args:
        model: the model to be trained.
        repo_id: where it will be pushed.
        mined, data_id, data_ids, base: see `push_model`.
    """
    section = negatives_section(
        check_repo_id(repo_id),
        _summary_of(mined),
        data_id=data_id,
        data_ids=data_ids,
        base=base or model.model_card_data.base_model,
        prompts=model.prompts,
    )
    set_card_template(model, section, default_cache_dir())


def _summary_of(mined: datasets.Dataset | NegativeMiner | MiningSummary | None) -> MiningSummary | None:
    if mined is None or isinstance(mined, MiningSummary):
        return mined
    return mined.summary if isinstance(mined, NegativeMiner) else Material.find(mined, None).summary
