"""Write docs/laws.md: which laws each processor of decodekit keeps, as tests of the kit find it.

``python docs/laws.py`` searches for a counter-example to every law on every processor, which takes some
minutes. A law that a processor declares is in the table because the kit has not broken it; ``no`` means
that the kit found an input that breaks it.
"""

import itertools
from pathlib import Path
from typing import Any

import decodekit as dk
from decodekit.testing import order_witness
from decodekit.testing.check import run_check
from decodekit.testing.processor_laws import CHECKS
from decodekit.testing.processor_subject import ProcessorSubject
from decodekit.testing.report import Outcome

PAGE = Path(__file__).parent / "laws.md"
SEARCHED = [check for check in CHECKS if check.law is not None]
EXAMPLES = 40
"""Inputs for a law that is declared; one that is not is tried on five times as many."""
VALUES: dict[str, list[dict[str, Any]]] = {
    "bad_words_ids": [{"bad_words_ids": [[1], [0, 1]]}, {"bad_words_ids": [[1, 0], [0, 0]]}],
    "begin_suppress_tokens": [{"begin_suppress_tokens": [1]}, {"begin_suppress_tokens": [0, 2]}],
    "epsilon_cutoff": [{"epsilon_cutoff": value} for value in (0.02, 0.1, 0.3)],
    "exponential_decay_length_penalty": [{"exponential_decay_length_penalty": (0, 1.5)}],
    "forced_bos_token_id": [{"forced_bos_token_id": 1}],
    "forced_eos_token_id": [{"forced_eos_token_id": [1]}, {"forced_eos_token_id": [0, 1]}],
    "logit_bias": [{"logit_bias": {1: 2.0}}, {"logit_bias": {0: -3.0, 1: 1.0}}],
    "sequence_bias": [{"sequence_bias": [[[1], 2.0], [[0, 1], -3.0]]}],
    "synthid": [{"keys": [1, 2, 3], "sampling_table_size": 64}],
    "suppress_tokens": [{"suppress_tokens": [1]}, {"suppress_tokens": [0, 2]}],
}
"""Parameters of the processors whose ranges do not tell which to try."""
OUTSIDE = {"grammar", "json_schema", "regex"}
"""Masks of a text that need a tokenizer; the catalogue has what they declare, and their tests check it."""
ORDERED = [
    "repetition_penalty",
    "frequency_penalty",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "xtc",
]
"""The processors of which every pair is tried in both orders."""
WORDS = {Outcome.PASSED: "yes", Outcome.SKIPPED: "no", Outcome.HINT: "open", Outcome.FAILED: "broken"}
HEAD = """<!-- Written by docs/laws.py, which tries every law on every processor. -->

# Laws of the processors

What may be relied on when processors are put into an order. `yes`: declared, and no input of the kit breaks
it. `no`: the kit has found an input that does. `open`: neither declared nor broken. What each law means is
in the [catalogue](catalogue.md#laws-of-processors). The masks of `json_schema`, `regex` and `grammar`
depend on a tokenizer and are not tried here.

"""
ORDER = """`yes`: the kit has found a row on which it does; `decodekit.testing.order_witness` prints it.
`no`: it has found none. Where a class promises it in `commutes_with`, P32 checks it.
"""


def ours() -> list[dk.Processor]:
    """The classes of our own package, by name."""
    entries = dk.processors().values()
    ours = [entry for entry in entries if entry.distribution == "decodekit-processors"]
    return [entry.cls for entry in ours if entry.name not in OUTSIDE]


def found(cls: Any) -> list[str]:
    """For each law what the kit finds of a processor."""
    subject = ProcessorSubject(cls, examples=VALUES.get(cls.NAME, ()))
    return [WORDS[run_check(check, subject, EXAMPLES).outcome] for check in SEARCHED]


def _matters(one: str, other: str) -> bool:
    """Whether the kit finds a row on which their order makes a difference, in either of two searches."""
    pair = [dk.processors()[name].cls for name in (one, other)]
    return any(order_witness(*names, profile="thorough") for names in itertools.permutations(pair))


def orders() -> list[str]:
    """A table of pairs: whether the order makes a difference."""
    names = [f"`{name}`" for name in ORDERED]
    lines = ["", "## Does their order make a difference?", "", ORDER]
    lines += [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    words = {
        frozenset(pair): "yes" if _matters(*pair) else "no" for pair in itertools.combinations(ORDERED, 2)
    }
    for name in ORDERED:
        cells = [words.get(frozenset({name, other}), "") for other in ORDERED]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def page() -> str:
    """The whole of docs/laws.md."""
    names = [f"`{check.law}`" for check in SEARCHED]
    lines = [f"| processor | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for cls in ours():
        lines.append(f"| [`{cls.NAME}`](catalogue.md#{cls.NAME}) | {' | '.join(found(cls))} |")
    return HEAD + "\n".join([*lines, *orders()]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
