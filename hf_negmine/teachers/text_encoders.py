"""A model that encodes queries and passages each by itself as a teacher: its prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hf_negmine.base.arguments import with_arguments_of
from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import Role
from hf_negmine.base.schema import IdArray
from hf_negmine.teachers.encoders import EncoderTeacher, Model, ModelSettings
from hf_negmine.teachers.lengths import count_tokens

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TextEncoderSettings(ModelSettings, total=False):
    """The keyword arguments of `TextEncoderTeacher`."""

    query_prompt: str | None
    passage_prompt: str | None


@with_arguments_of(EncoderTeacher)
class TextEncoderTeacher(EncoderTeacher[Model]):
    """The base of all teachers whose model encodes a text without the other one of its pair.

    Args:
        model: a model id, a folder, or a loaded model.
        query_prompt: text put before every query; None takes the model's own, if it has one.
        passage_prompt: text put before every passage; None takes the model's own, if it has one.
        loading: how the model is opened and named, see `EncoderTeacher`.
    """

    methods = ("encode_query", "encode_document")

    def __init__(
        self,
        model: str | Path | Model,
        *,
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
        **loading: Unpack[ModelSettings],
    ) -> None:
        self._prompts: dict[Role, str | None] = {"query": query_prompt, "passage": passage_prompt}
        for role, prompt in self._prompts.items():
            require_prompt(prompt, f"{role}_prompt")
        super().__init__(model, **loading)

    def _accept(self, model: Any) -> None:
        super()._accept(model)
        for role, prompt in self._prompts.items():
            require_prompt(prompt, f"{role}_prompt", getattr(model, "prompts", None) or {})

    def _loaded(self) -> dict[str, Any]:
        return {**super()._loaded(), **{f"{role}_prompt": prompt for role, prompt in self._prompts.items()}}

    def _prompting(self, role: Role) -> dict[str, Any]:
        """Everything that decides the text put before the user's: the given prompt, and the model's own."""
        model: Any = self.model
        own = {"own_prompts": dict(model.prompts), "default_prompt_name": model.default_prompt_name}
        return {"prompt": self._prompts[role], **own}

    def _encode_texts(self, texts: Sequence[str], role: Role, **options: Any) -> Any:
        """What the model's own method for the role returns."""
        model: Any = self.model
        encode = model.encode_query if role == "query" else model.encode_document
        given = {"prompt": self._prompts[role], "batch_size": self._batch_size, "show_progress_bar": False}
        return encode(list(texts), **given | options)

    def count_tokens(self, texts: Sequence[str], role: Role) -> tuple[IdArray, int | None]:
        """See `protocols.CountsTokens`."""
        return count_tokens(self.model, texts, role, self._prompts[role])


def require_prompt(prompt: Any, argument: str, names: Mapping[str, str | None] = MappingProxyType({})) -> None:
    """Raise `InputError` unless a prompt is None, or text to put before other texts.

    Args:
        prompt: the value given as ``argument``.
        names: the model's prompts by name, as a name may be given by mistake.
    """
    if prompt is None:
        return
    if not isinstance(prompt, str):
        raise InputError(
            f"{argument}: expected the text to put before others, such as 'query: ', got {prompt!r} "
            f"({type(prompt).__name__})"
        )
    named = names.get(prompt, prompt)
    if named != prompt:
        raise InputError(
            f"{argument}: {prompt!r} would be put before every text literally, but it is the name of the model's "
            f"prompt {named!r}; give {argument}={named!r} for that prompt, or {f'{prompt} '!r} if the word itself is "
            "meant"
        )
