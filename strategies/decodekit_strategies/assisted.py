"""Assisted decoding: a draft is verified in one forward pass, and changes the speed only."""

from typing import Any, ClassVar, Literal

import attrs
from decodekit import Batch, Capability, ParameterError, Row, Strategy, StrategyLaws, param

from decodekit_strategies._drafters import DRAFT, Drafter, DraftModel, PromptLookup

__all__ = ["Assisted"]


@attrs.frozen
class Assisted(Strategy):
    """Draft the next tokens of every row, score them at once, and keep the draft as far as it is right.

    A drafted token is right when it is the one that plain decoding takes at that position: the argmax, or
    with do_sample the draw of the position's own noise, which the draft model shares. Each row accepts as
    many tokens as it can, and gets one more from the same forward pass.

    Source: Stern et al. (2018), arXiv 1811.03115, section 3; Leviathan et al. (2023), arXiv 2211.17192;
        prompt lookup after Saxena (2023); the coupling by shared noise after Daliri et al. (2024),
        arXiv 2408.07978.
    Range: num_assistant_tokens, prompt_lookup_num_tokens in [1, inf); a draft model or prompt lookup.
    Shape: one forward of K + 1 positions a row and step; rows may draft and accept different numbers.
    Law: lossless; under a seed, and without sampling, the tokens are those of plain decoding.
    Raises: ParameterError when nothing drafts, or the draft model has another vocabulary.
    """

    NAME: ClassVar[str] = "assisted"
    NEEDS: ClassVar[frozenset[Capability]] = frozenset({Capability.ROLLBACK, Capability.POSITIONS})
    LAWS: ClassVar[StrategyLaws] = StrategyLaws(greedy_limit=True, lossless=True)
    POSITIONAL: ClassVar[bool] = True

    assistant_model: Any = param(None, help="A smaller model of transformers with the same vocabulary.")
    prompt_lookup_num_tokens: int | None = param(
        None, range="[1, inf)", help="Draft this many tokens from where the text stood before."
    )
    max_matching_ngram_size: int = param(2, range="[1, inf)", help="Tokens that must agree for a look-up.")
    num_assistant_tokens: int = param(20, range="[1, inf)", help="The most tokens that the model drafts.")
    num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] = param(
        "constant",
        choices=("constant", "heuristic", "heuristic_transient"),
        help="Heuristic: a row drafts two more after a draft that was right, and one less after another.",
    )
    assistant_confidence_threshold: float = param(
        0.4, range="[0, 1]", help="The model's draft ends with a token that it gives less than this."
    )
    do_sample: bool = param(False, help="Draw tokens instead of taking the most probable.")

    def __attrs_post_init__(self) -> None:
        if (self.assistant_model is None) == (self.prompt_lookup_num_tokens is None):
            message = (
                "strategy 'assisted' needs something that drafts: give assistant_model=<a smaller model>, or "
                "prompt_lookup_num_tokens=<how many>, and not both"
            )
            raise ParameterError(message)

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        return self.do_sample

    @property
    def models(self) -> dict[str, Any]:
        """The draft model, if there is one."""
        return {} if self.assistant_model is None else {DRAFT: self.assistant_model}

    @property
    def lookahead(self) -> int:
        """The longest draft."""
        return self.prompt_lookup_num_tokens or self.num_assistant_tokens

    def _drafter(self) -> Drafter:
        if self.prompt_lookup_num_tokens is not None:
            return PromptLookup(self.max_matching_ngram_size)
        return DraftModel(self.assistant_confidence_threshold, self.do_sample)

    def step(self, batch: Batch) -> None:
        """Draft, verify, commit."""
        room = [batch.stops.max_new_tokens - len(row.tokens) - 1 for row in batch.rows]
        lengths = [min(self._length(row), most) for row, most in zip(batch.rows, room, strict=True)]
        drafts = self._drafter().draft(batch, lengths)
        p = batch.dist(batch.logits(drafts), drafts)
        x = batch.draw(p) if self.do_sample else p.argmax()
        blocks = []
        for row, draft, tokens in zip(batch.rows, drafts, x.tolist(), strict=True):
            n = next((k for k, token in enumerate(draft) if token != tokens[k]), len(draft))
            blocks.append(tokens[: n + 1])
            row.drafted += len(draft)
            row.accepted += n
            row.memo["right"] = row.memo.get("right", 0) + (2 if n == len(draft) else -1)
        batch.commit(blocks, p)

    def _length(self, row: Row) -> int:
        """How many tokens to draft for a row; what it is changes the speed only."""
        if self.num_assistant_tokens_schedule == "constant":
            return self.lookahead
        return max(1, min(self.lookahead, 5 + int(row.memo.get("right", 0))))
