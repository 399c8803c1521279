"""What json_schema, regex and grammar share: a place in a grammar for every row, and its mask."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from decodekit import CallContext, EmptySupportError, History, Laws, ParameterError, StatefulProcessor
from numpy.typing import NDArray
from torch import Tensor

from decodekit_processors._completion import closers, completion, way_after
from decodekit_processors._matchers import Matcher

__all__ = ["LAWS", "Cursor", "Structured", "read_text"]

LAWS = Laws(
    shift_invariant=True,
    keeps_order=True,
    keeps_ratios=True,
    idempotent=True,
    commutes_with_temperature=True,
    may_empty=True,
)
_NEAR = 64
_MARGIN = 8
_CANDIDATES = 32
"""Near the end of a row, how many of the likeliest tokens are asked whether they leave room to finish."""


def read_text(name: str, given: Any) -> Any:
    """The content of a file where ``given`` is a path or ``@path``; else what was given.

    Raises:
        ParameterError: the file can't be read.
    """
    if isinstance(given, str) and given.startswith("@"):
        given = Path(given[1:])
    if not isinstance(given, Path):
        return given
    try:
        return given.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{name}=@{given} can't be read: {error}"
        raise ParameterError(message) from error


@attrs.define(eq=False)
class Cursor:
    """The state of a row: where it stands in the grammar. It never changes, but for what it remembers.

    Attributes:
        matcher: the place; None behind a token that was ruled out, where nothing is any more.
        ended: an EOS was the last token.
        way: a short way to a complete text, once it was looked for.
        ahead: the places behind tokens that were tried.
    """

    matcher: Matcher | None
    ended: bool = False
    way: list[int] | None = None
    ahead: "dict[int, Cursor]" = attrs.field(factory=dict, repr=False)
    _bits: NDArray[np.uint8] | None = attrs.field(default=None, repr=False)

    def __deepcopy__(self, memo: Any) -> "Cursor":
        return self

    @property
    def bits(self) -> NDArray[np.uint8] | None:
        """The tokens that may come next, a bit each; what it says of EOS is the engine's."""
        if self._bits is None and self.matcher is not None:
            self._bits = self.matcher.bits()
        return self._bits

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return self.ended or (self.matcher is not None and self.matcher.is_complete())


@attrs.frozen
class _Bound:
    """What a processor knows in a call."""

    context: CallContext
    start: Cursor
    alphabet: Sequence[int]

    @property
    def usual(self) -> int:
        """Tokens of a short text, as a measure of what a single token can open."""
        return len(self.start.way or ())


@attrs.frozen
class Structured(StatefulProcessor[Cursor]):
    """A processor that leaves the tokens with which a text can still follow its grammar."""

    _bound: _Bound | None = attrs.field(default=None, init=False, eq=False, repr=False)

    @property
    def text(self) -> str:
        """The grammar as the engine reads it."""
        message = f"{type(self).__name__} must define text"
        raise TypeError(message)

    def compile(self, context: CallContext) -> Matcher:
        """The place before the first token."""
        message = f"{type(self).__name__} must define compile(self, context)"
        raise TypeError(message)

    def bind(self, context: CallContext) -> "Structured":
        """Compile the grammar, and see that it has a text that is short enough."""
        if context.tokenizer is None:
            message = f"{self.NAME} needs the model's tokenizer: pass tokenizer=..."
            raise ParameterError(message)
        if not context.eos_token_ids:
            message = f"{self.NAME} needs an EOS token, or a text could not end: pass eos_token_id=..."
            raise ParameterError(message)
        matcher, alphabet = self.compile(context), closers(context.tokenizer)
        way = None
        if context.max_new_tokens is not None:
            way = self._shortest(matcher, alphabet, context.max_new_tokens)
        bound = attrs.evolve(self)
        object.__setattr__(bound, "_bound", _Bound(context, Cursor(matcher, way=way), alphabet))
        return bound

    def _shortest(self, start: Matcher, alphabet: Sequence[int], limit: int) -> list[int] | None:
        way = completion(start, alphabet, limit)
        if way is None and (longer := completion(start, alphabet, 4 * limit + _NEAR)) is not None:
            message = (
                f"{self.NAME} can't be satisfied within max_new_tokens={limit}: the shortest text that was "
                f"found has {len(longer)} tokens; raise max_new_tokens"
            )
            raise ParameterError(message)
        return way

    @property
    def _call(self) -> _Bound:
        if self._bound is None:
            message = f"{self.NAME} is not bound to a call: use it in a chain of generate"
            raise ParameterError(message)
        return self._bound

    def init(self, prompt: list[int]) -> Cursor:
        """Return the place before the first token."""
        return self._call.start

    def advance(self, state: Cursor, token: int, logits: Tensor) -> Cursor:
        """Return the place after the token."""
        if state.ended or state.matcher is None:
            return state
        return Cursor(None) if float(logits[token]) == -torch.inf else self._after(state, token)

    def _after(self, place: Cursor, token: int) -> Cursor:
        if token in place.ahead or place.matcher is None:
            return place.ahead.get(token, place)
        if token in self._call.context.eos_token_ids:
            return Cursor(place.matcher if place.is_complete else None, ended=place.is_complete)
        rest = place.way[1:] if place.way and place.way[0] == token else None
        return Cursor(place.matcher.after(token), way=rest)

    def process(self, logits: Tensor, history: History, states: list[Cursor]) -> Tensor:
        """Return the logits with -inf where a token leaves the grammar, or no room to finish it."""
        allowed = self._allowed(states, logits.shape[1]).to(logits.device)
        masked = logits.masked_fill(~allowed, float("-inf"))
        limit = self._call.context.max_new_tokens
        if limit is None:
            return masked
        for row, (place, count) in enumerate(zip(states, history.new_lengths.tolist(), strict=True)):
            kept = self._finishing(place, masked[row], limit - count)
            if kept is not None:
                only = torch.full_like(masked[row], float("-inf"))
                only[kept] = masked[row, kept]
                masked[row] = only
        return masked

    def _allowed(self, states: Sequence[Cursor], width: int) -> Tensor:
        """bool [B, V]: what the grammar allows, unpacked from the engine's bits."""
        everything = np.full(-(-width // 8), 255, dtype=np.uint8)
        packed = [everything if (bits := state.bits) is None else bits for state in states]
        size = min(map(len, packed))
        bits = np.unpackbits(np.stack([row[:size] for row in packed]), axis=1, bitorder="little")
        allowed = torch.zeros(len(states), width, dtype=torch.bool)
        allowed[:, : 8 * size] = torch.from_numpy(bits[:, :width]).bool()
        ends = [token for token in self._call.context.eos_token_ids if token < width]
        for row, state in enumerate(states):
            if state.ended:
                allowed[row] = False
            if state.matcher is not None:
                allowed[row, ends] = state.is_complete
        return allowed

    def _finishing(self, place: Cursor, logits: Tensor, room: int) -> list[int] | None:
        """The tokens after which ``room - 1`` further ones can complete the text; None where all can.

        All can as long as there is plenty of room. Then only the likeliest are looked at, EOS, and the next
        token of a way that is known to be short enough.
        """
        call = self._call
        if place.matcher is None or place.ended or not 0 < room <= _NEAR + 4 * call.usual:
            return None
        way = self._way(place, room)
        if room > len(way) + _MARGIN + call.usual:
            return None
        best = logits.topk(min(_CANDIDATES, len(logits))).indices.tolist()
        safe = [token for token in (*way[:1], *call.context.eos_token_ids) if token < len(logits)]
        best = list(dict.fromkeys([*best, *safe]))
        possible = (logits[best] > -torch.inf).tolist()
        left = [token for token, is_possible in zip(best, possible, strict=True) if is_possible]
        if len(left) == 1:
            return None
        known: dict[bytes, list[int] | None] = {}
        return [token for token in left if self._fits(place, token, known, way, room - 1)]

    def _way(self, place: Cursor, room: int) -> list[int]:
        if (place.way is None or len(place.way) > room) and place.matcher is not None:
            place.way = completion(place.matcher, self._call.alphabet, room)
        if place.way is None:
            message = (
                f"{self.NAME} can't be satisfied any more: no complete text was found within the {room} "
                f"tokens that max_new_tokens={self._call.context.max_new_tokens} leaves; raise it"
            )
            raise EmptySupportError(message)
        return place.way

    def _fits(
        self, place: Cursor, token: int, known: dict[bytes, list[int] | None], way: list[int], room: int
    ) -> bool:
        """Whether ``room`` tokens after this one are enough; if so, the place behind it is kept.

        Places before the same choice of tokens have mostly the same way (in ``known``), or none.
        """
        child = self._after(place, token)
        if child.ended or child.matcher is None or child.bits is None:
            return child.ended
        if child.way is None or len(child.way) > room:
            alike = child.bits.tobytes()
            last = known.get(alike, way)
            tried = [item for item in (last, way, way[1:]) if item is not None]
            child.way = None if last is None else way_after(child.matcher, tried, self._call.alphabet, room)
            known[alike] = child.way
        if child.way is not None:
            place.ahead[token] = child
        return child.way is not None

    def forced(self, state: Cursor) -> list[int]:
        """Return the text that must come next, as tokens."""
        return state.matcher.forced() if state.matcher is not None and not state.ended else []

    def describe(self) -> str:
        """The processor in short, with the beginning of its grammar."""
        text = " ".join(self.text.split())
        return f"{self.NAME}({text if len(text) <= 60 else text[:57] + '...'})"
