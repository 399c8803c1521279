"""Registers the strategies of this package, as any third party's plugin would."""

from decodekit import Drafter, Strategy, hookimpl

from decodekit_strategies.assisted import Assisted
from decodekit_strategies.beam import Beam
from decodekit_strategies.drafters.draft_model import DraftModel
from decodekit_strategies.drafters.early_exit import EarlyExit
from decodekit_strategies.drafters.multi_token import MultiToken
from decodekit_strategies.drafters.prompt_lookup import PromptLookup
from decodekit_strategies.drafters.quantized import Quantized
from decodekit_strategies.drafters.suffix_automaton import SuffixAutomaton
from decodekit_strategies.drafters.universal import Universal
from decodekit_strategies.drafters.vocab_intersection import VocabIntersection
from decodekit_strategies.greedy import Greedy
from decodekit_strategies.sample import Sample


@hookimpl
def register_strategies() -> list[type[Strategy]]:
    """The built-in strategies, in the order of their names."""
    return [Assisted, Beam, Greedy, Sample]


@hookimpl
def register_drafters() -> list[type[Drafter]]:
    """The built-in drafters, in the order of their names."""
    return [
        DraftModel,
        EarlyExit,
        MultiToken,
        PromptLookup,
        Quantized,
        SuffixAutomaton,
        Universal,
        VocabIntersection,
    ]
