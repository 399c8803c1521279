"""A strategy under test, and the calls that its checks draw."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import attrs
from hypothesis import strategies as st

from decodekit.params import params_of
from decodekit.strategy import Strategy, StrategyLaws
from decodekit.testing import generators
from decodekit.testing.strategy_case import Case
from decodekit.testing.strategy_models import KINDS, KitModel, random_model
from decodekit.testing.strategy_toys import random_chain

__all__ = ["StrategySubject", "with_parameters", "without_draws"]


@attrs.frozen
class StrategySubject:
    """A strategy class under test.

    Attributes:
        cls: the class.
        fixed: the only instance to look at, when the author gave one.
        examples: parameter values to choose from; empty when they come from the declared ranges.
        models: the only models to decode from; empty when they are made.
    """

    cls: type[Strategy]
    fixed: Strategy | None = None
    examples: Sequence[Mapping[str, Any]] = ()
    models: Sequence[KitModel] = ()

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"strategy {self.cls.NAME or self.cls.__name__}"

    @property
    def samples(self) -> bool:
        """Whether it draws tokens, with whatever parameters."""
        return self.fixed.samples if self.fixed is not None else self.cls.SAMPLES

    @property
    def laws(self) -> StrategyLaws:
        """What it promises: the instance, or the class."""
        return self.fixed.laws if self.fixed is not None else self.cls.LAWS

    def declares(self, law: str) -> bool:
        """Whether its LAWS hold this promise."""
        return bool(getattr(self.laws, law))

    def strategies(self) -> st.SearchStrategy[Strategy]:
        """Instances with parameters from the examples or the declared ranges."""
        return generators.instances(self.cls, self.name, self.fixed, self.examples)

    def cases(
        self,
        kinds: Sequence[str] = KINDS,
        *,
        largest: int = 9,
        least_prompts: int = 1,
        least_processors: int = 0,
    ) -> st.SearchStrategy[Case]:
        """Calls of all sizes, with 2 to ``largest`` tokens and ``least_prompts`` to four ragged prompts."""
        return st.builds(
            _case,
            self.strategies(),
            st.sampled_from(_SIZES),
            st.integers(0, 99_999).map(Random),
            kinds=st.just(kinds),
            largest=st.just(largest),
            least_prompts=st.just(least_prompts),
            least_processors=st.just(least_processors),
            models=st.just(self.models),
        )


def without_draws(subject: StrategySubject) -> str | None:
    """Why a check of draws does not apply to a strategy that makes none."""
    return None if subject.samples else "it does not sample (SAMPLES)"


def with_parameters(strategy: Strategy, **values: Any) -> Strategy:
    """A new instance with other values of these parameters."""
    cls = type(strategy)
    kept = {name: getattr(strategy, name) for name in params_of(cls)}
    made: Strategy = cls(**{**kept, **values})
    return made


@attrs.frozen
class _Size:
    """How much of everything a call has at most."""

    tokens: int
    prompts: int
    prompt: int
    new: int
    processors: int


_SMALL, _MIDDLE, _LARGE = _Size(3, 1, 2, 2, 1), _Size(5, 3, 3, 5, 2), _Size(9, 4, 5, 12, 3)
_SIZES = (_SMALL, _LARGE, _MIDDLE, _LARGE, _LARGE)
"""Mostly large, as errors add up, and small first, as counter-examples should be."""


def _case(
    strategy: Strategy,
    size: _Size,
    random: Random,
    kinds: Sequence[str],
    largest: int,
    least_prompts: int,
    least_processors: int,
    models: Sequence[KitModel],
) -> Case:
    """A call of which all but the size comes from one seed, so that no two examples are alike."""
    model = random.choice(models) if models else random_model(random, kinds, min(size.tokens, largest))
    ids = range(model.vocab_size)
    count = random.randint(least_prompts, max(least_prompts, size.prompts))
    several = min(3, strategy.rows_per_prompt(3)) if strategy.samples else 1
    return Case(
        strategy=strategy,
        model=model,
        prompts=[random.choices(ids, k=random.randint(1, size.prompt)) for _ in range(count)],
        seeds=random.choices(range(10), k=count),
        max_new_tokens=random.choice([random.randint(1, size.new), size.new]),
        eos=tuple(random.sample(ids, random.choice([0, 0, 1, 2]))),
        pad=random.choice(ids),
        processors=random_chain(random, least_processors, size.processors),
        copies=random.randint(1, several),
    )
