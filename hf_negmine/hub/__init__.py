"""The Hub: mined data sets and trained models, shared with their provenance. Only `push` writes to the network."""

from __future__ import annotations

from hf_negmine.hub.load import HubData, load_mined
from hf_negmine.hub.network import HubError
from hf_negmine.hub.push import push_dataset
from hf_negmine.hub.push_models import prepare_card, push_model
from hf_negmine.hub.reproducing import reproduce

__all__ = ["HubData", "HubError", "load_mined", "prepare_card", "push_dataset", "push_model", "reproduce"]
