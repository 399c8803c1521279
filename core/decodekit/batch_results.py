"""What comes out for the prompts of a list."""

from typing import Any

import attrs

__all__ = ["Completion", "PromptResult"]


@attrs.frozen(kw_only=True)
class Completion:
    """A text that was generated for a prompt.

    Attributes:
        text: the new text.
        tokens: the new token ids, with the EOS that ended them.
        finish_reason: "eos", "length", "stop_string", "time" or "criterion"; "exhausted" where a search found
            fewer texts than were asked for.
        token_logprobs: log-probability of each of ``tokens`` under the processed distribution, if asked for.
    """

    text: str
    tokens: list[int]
    finish_reason: str
    token_logprobs: list[float] | None = None


@attrs.frozen(kw_only=True)
class PromptResult:
    """What came out for one prompt of a list.

    ``text``, ``tokens``, ``finish_reason`` and ``token_logprobs`` are those of its first completion; where it
    failed, they raise the error.

    Attributes:
        index: its place in the list.
        id: what its object calls it.
        prompt_tokens: how many tokens it has; 0 where it could not be read.
        seed: what its draws came from; None where nothing was drawn.
        completions: ``num_return_sequences`` of them, best first where the strategy ranks them; none when the
            prompt failed.
        error: why it failed.
    """

    index: int
    id: Any = None
    prompt_tokens: int = 0
    seed: int | None = None
    completions: tuple[Completion, ...] = ()
    error: Exception | None = None

    @property
    def _first(self) -> Completion:
        if self.error is not None:
            raise self.error
        return self.completions[0]

    @property
    def text(self) -> str:
        """The new text."""
        return self._first.text

    @property
    def tokens(self) -> list[int]:
        """The new token ids."""
        return self._first.tokens

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return self._first.finish_reason

    @property
    def token_logprobs(self) -> list[float] | None:
        """Log-probabilities of the new tokens, when asked for."""
        return self._first.token_logprobs
