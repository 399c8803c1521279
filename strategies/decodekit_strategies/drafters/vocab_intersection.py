"""A draft model with another tokenizer, over the tokens that both vocabularies have."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import attrs
import torch
from decodekit import Batch, CallContext, Draft, Drafter, DrafterLaws, ParameterError, Pick, param
from torch import Tensor

from decodekit_strategies.drafters._autoregressive import decode_drafts
from decodekit_strategies.drafters._translation import Translator

__all__ = ["VocabIntersection"]


class _Shared(NamedTuple):
    """The tokens that two vocabularies share, in the ids of both, int64 [S]."""

    assistant: Tensor
    target: Tensor


_KNOWN: "weakref.WeakKeyDictionary[Any, weakref.WeakKeyDictionary[Any, _Shared]]" = (
    weakref.WeakKeyDictionary()
)
"""What two tokenizers share, as long as both are in use."""


@attrs.frozen
class VocabIntersection(Drafter):
    """A model with another tokenizer drafts those tokens that the target's vocabulary has as well.

    Its logits over the shared tokens, in the target's ids, go through the target's chain; every other
    token has probability 0.

    Source: Timor et al. (2025), arXiv 2502.05202, section 3.3 (token-level intersection).
    Range: confidence_threshold in [0, 1]; target_lookbehind in [1, inf).
    Shape: one forward of the assistant a drafted token, for all rows at once.
    Law: reports q, the processed distribution over shared tokens. The assistant stays as it is.
    Raises: ParameterError when the call has no tokenizer, or the vocabularies share nothing.
    """

    NAME: ClassVar[str] = "vocab_intersection"
    LAWS: ClassVar[DrafterLaws] = DrafterLaws(reports_q=True)

    model: Any = param(help="A smaller model of transformers, of any vocabulary.")
    tokenizer: Any = param(help="Its tokenizer.")
    confidence_threshold: float = param(
        0.4, range="[0, 1]", help="A draft ends with a token that the model gives less than this."
    )
    target_lookbehind: int = param(
        10, range="[1, inf)", help="The row's last tokens that are encoded for it again."
    )
    _translator: Any = attrs.field(default=None, repr=False, eq=False)
    _shared: Any = attrs.field(default=None, repr=False, eq=False)
    _ids: Mapping[int, int] = attrs.field(factory=dict, repr=False, eq=False)
    _vocab_size: int = attrs.field(default=0, repr=False, eq=False)

    @property
    def foreign_models(self) -> Mapping[str, Any]:
        """The assistant."""
        return {self.NAME: self.model}

    def bind(self, model: Any, context: CallContext) -> "VocabIntersection":
        """Find the shared tokens."""
        translator = Translator.of(self.NAME, context, self.tokenizer, self.target_lookbehind)
        shared = _shared(self.tokenizer, context.tokenizer)
        own_size = self.model.config.get_text_config().vocab_size
        inside = (shared.assistant < own_size) & (shared.target < context.vocab_size)
        shared = _Shared(shared.assistant[inside], shared.target[inside])
        if not len(shared.target):
            message = "the two vocabularies share no token: choose another assistant, or drafter='universal'"
            raise ParameterError(message)
        ids = dict(zip(shared.target.tolist(), shared.assistant.tolist(), strict=True))
        return attrs.evolve(
            self, translator=translator, shared=shared, ids=ids, vocab_size=context.vocab_size
        )

    def draft(self, batch: Batch, lengths: Sequence[int], pick: Pick) -> Draft:
        """Decode a few shared tokens."""
        before = [self._translator.tokens_of(row) for row in batch.rows]

        def logits_after(drafts: list[list[int]]) -> Tensor:
            pairs = zip(before, drafts, strict=True)
            sequences = [[*tokens, *(self._ids[token] for token in draft)] for tokens, draft in pairs]
            own = batch.own_logits(sequences, session=self.NAME)
            logits = own.new_full((len(own), self._vocab_size), -torch.inf)
            target, assistant = (ids.to(own.device) for ids in (self._shared.target, self._shared.assistant))
            logits[:, target] = own[:, assistant]
            return logits

        return decode_drafts(batch, lengths, pick, self.confidence_threshold, logits_after)


def _shared(assistant: Any, target: Any) -> _Shared:
    """The tokens with equal spelling, where each tokenizer has its own sign for a space."""
    known = _KNOWN.setdefault(assistant, weakref.WeakKeyDictionary())
    if target not in known:
        theirs, ours = _spelled(assistant), _spelled(target)
        pairs = [(own, ours[text]) for text, own in theirs.items() if text in ours]
        ids = torch.tensor(pairs, dtype=torch.long).view(-1, 2)
        known[target] = _Shared(ids[:, 0], ids[:, 1])
    return known[target]


def _spelled(tokenizer: Any) -> dict[str, int]:
    """Token -> id, with a plain space for the tokenizer's sign of one."""
    space = tokenizer(" ", add_special_tokens=False)["input_ids"]
    sign = (tokenizer.convert_ids_to_tokens(space) or [" "])[0][:1]
    return {token.replace(sign, " ") if sign else token: own for token, own in tokenizer.get_vocab().items()}
