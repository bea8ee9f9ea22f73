"""Embedding models behind an OpenAI-compatible API."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.arguments import with_arguments_of
from hf_negmine.base.errors import TeacherError, require, require_choice, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, Similarity
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.teachers.endpoint import BadAnswer, Endpoint, ServerSettings, read_json

if TYPE_CHECKING:
    from typing_extensions import Unpack

BYTES_A_TOKEN = 3
"""Bytes of UTF-8: English has about four, Chinese three. Guessed low, so that a request is too small, not too large."""

Vectors = tuple[IdArray, FloatArray]


@with_arguments_of(Endpoint)
class APITeacher:
    """An embedding model behind an OpenAI-compatible API, as a `protocols.StreamingTeacher`.

    Every answer is checked: one vector per text, by its ``index``; all of one width; finite. An answer that fails the
    check is requested again. A text that is longer than the model reads is a server error, see ``max_characters``.

    Args:
        model: the server's name for the model.
        dimensions: width of the vectors, for models that can shorten them; None keeps the model's own.
        query_prompt: text put before every query.
        passage_prompt: the same for passages.
        similarity: ``"cosine"`` or ``"dot"``.
        max_tokens_a_request: most tokens per request, estimated from the texts' bytes.
        texts_a_request: most texts per request.
        max_characters: characters that a text is cut to before the prompt is added; None sends texts whole.
        name: the teacher's name in summaries; None takes the model's.
        version: part of the fingerprint. A client cannot see that a server has changed the model behind a name: give
            another version when it has.
        server: its address, the key, and how it is asked, see `endpoint.Endpoint`.

    Raises:
        InputError: an argument is invalid.
    """

    def __init__(
        self,
        model: str,
        *,
        dimensions: int | None = None,
        query_prompt: str = "",
        passage_prompt: str = "",
        similarity: Similarity = "cosine",
        max_tokens_a_request: int = 200_000,
        texts_a_request: int = 256,
        max_characters: int | None = None,
        name: str | None = None,
        version: str | None = None,
        **server: Unpack[ServerSettings],
    ) -> None:
        require_choice(similarity, ("cosine", "dot"), argument="similarity")
        require_whole(max_tokens_a_request, "max_tokens_a_request", at_least=1)
        require_whole(texts_a_request, "texts_a_request", at_least=1)
        for value, argument in ((dimensions, "dimensions"), (max_characters, "max_characters")):
            if value is not None:
                require_whole(value, argument, at_least=1)
        for prompt, argument in ((query_prompt, "query_prompt"), (passage_prompt, "passage_prompt")):
            require(isinstance(prompt, str), f"{argument}: a text, which may be empty, got {prompt!r}")
        self._endpoint = Endpoint(model, **server)
        self._dimensions = dimensions
        self._prompts: dict[str, str] = {"query": query_prompt, "passage": passage_prompt}
        self.similarity: Similarity = similarity
        self._max_tokens_a_request = max_tokens_a_request
        self._texts_a_request = texts_a_request
        self._max_characters = max_characters
        require(version is None or isinstance(version, str), f"version: a text such as '1', got {version!r}")
        self._name, self._version = name, version

    def __repr__(self) -> str:
        return f"APITeacher({self._endpoint.model!r}, base_url={self._endpoint.address!r})"

    @property
    def name(self) -> str:
        """The given name, or the model's."""
        return self._name if self._name is not None else self._endpoint.model

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this teacher, given a key; part of the provenance.

        The variable that holds the key is not among them: settings may come from somebody else, who could name another
        variable, and their own server to send its value to.
        """
        return {
            "kind": "api",
            "model": self._endpoint.model,
            "base_url": self._endpoint.address,
            "dimensions": self._dimensions,
            "query_prompt": self._prompts["query"],
            "passage_prompt": self._prompts["passage"],
            "similarity": self.similarity,
            "max_characters": self._max_characters,
        }

    def fingerprint(self, role: Role) -> str:
        """Digest of model, version, address, dimensions, prompt and length limit (see `protocols.Teacher`)."""
        model, address = [self._endpoint.model, self._version], self._endpoint.address
        return digest_of("api", model, address, self._dimensions, self._prompts[role], self._max_characters)

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        """Vectors of ``texts``, shape (len(texts), width), float32, as the server gives them (not normalized)."""
        vectors: FloatArray | None = None
        for positions, part in self.encode_parts(texts, role):
            if vectors is None:
                vectors = np.empty((len(texts), part.shape[1]), dtype=np.float32)
            vectors[positions] = part
        return np.empty((0, self._dimensions or 0), dtype=np.float32) if vectors is None else vectors

    def encode_parts(self, texts: Sequence[str], role: Role) -> Iterator[Vectors]:
        """Positions in ``texts`` and their vectors, as answers arrive (see `protocols.StreamingTeacher`).

        Raises:
            TeacherError: the server refused a request, or gave no usable answer after all retries.
        """
        widths: dict[str, int] = {}  # `setdefault` is atomic, so that all threads compare with the same answer

        def call(client: Any, batch: tuple[range, list[str]]) -> Vectors:
            places, inputs = batch
            wanted = {} if self._dimensions is None else {"dimensions": self._dimensions}
            raw = client.embeddings.with_raw_response.create(
                model=self._endpoint.model, input=inputs, encoding_format="base64", **wanted
            )
            vectors = _vectors(read_json(raw), len(inputs))
            if self._dimensions not in (None, vectors.shape[1]):
                raise TeacherError(
                    f"{self.name}: the server does not shorten vectors: dimensions is {self._dimensions}, it gave "
                    f"{vectors.shape[1]}"
                )
            if (first := widths.setdefault("first", vectors.shape[1])) != vectors.shape[1]:
                raise BadAnswer(f"vectors of width {vectors.shape[1]}, earlier ones had {first}")
            return np.arange(places.start, places.stop, dtype=np.int64), vectors

        return self._endpoint.run(self._batches(texts, self._prompts[role]), call)

    def _batches(self, texts: Sequence[str], prompt: str) -> Iterator[tuple[range, list[str]]]:
        """The positions and texts of each request. A text that is too long for a shared request goes alone."""
        start, tokens = 0, 0
        batch: list[str] = []
        for position, text in enumerate(texts):
            sent = prompt + text[: self._max_characters]
            costs = -(-len(sent.encode()) // BYTES_A_TOKEN)
            if batch and (tokens + costs > self._max_tokens_a_request or len(batch) == self._texts_a_request):
                yield range(start, position), batch
                start, tokens, batch = position, 0, []
            batch.append(sent)
            tokens += costs
        if batch:
            yield range(start, start + len(batch)), batch


def _vectors(content: dict[str, Any], n_texts: int) -> FloatArray:
    """The vectors of an answer, in the order of their texts, shape (n_texts, width).

    Raises:
        BadAnswer: too few vectors, too many, a duplicate, several widths, or a value that is not finite.
    """
    items = content.get("data")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadAnswer(f"expected a list of vectors under 'data', got {content!r}")
    if len(items) != n_texts:
        raise BadAnswer(f"{len(items)} vectors for {n_texts} texts")
    places = [item.get("index") for item in items]
    if not all(type(place) is int for place in places) or sorted(places) != list(range(n_texts)):
        raise BadAnswer(f"expected every index from 0 to {n_texts - 1} once, got {places}")
    rows = [row for _, row in sorted(zip(places, map(_vector, items), strict=True), key=lambda pair: pair[0])]
    widths = {len(row) for row in rows}
    if len(widths) > 1 or 0 in widths:
        raise BadAnswer(f"expected vectors of one width, got {sorted(widths)}")
    vectors = np.stack(rows)
    if not np.isfinite(vectors).all():
        raise BadAnswer(f"{int((~np.isfinite(vectors)).any(axis=1).sum())} of {n_texts} vectors are not finite")
    return vectors


def _vector(item: dict[str, Any]) -> FloatArray:
    """One vector: base64, as requested, or numbers from a server that does not know base64."""
    given = item.get("embedding")
    try:
        if isinstance(given, str):
            return np.frombuffer(base64.b64decode(given, validate=True), dtype="<f4").astype(np.float32)
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which is refused later
            vector = np.array(given, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        vector = np.array(0, dtype=np.float32)
    if vector.ndim != 1:
        raise BadAnswer(f"expected a vector, got {given!r}")
    return vector
