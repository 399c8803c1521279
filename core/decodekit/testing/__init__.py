"""The conformance kit: what decodekit's own tests run over every plugin, for everybody's plugins.

`check_processor` and `processor_checks` check a processor, `check_strategy` and `strategy_checks` a
decoding strategy, `check_drafter` and `drafter_checks` a drafter, `check_quant_backend` and
`quant_checks` a quantization backend; `check_plugin` checks whatever it is given, and `parametrize`
makes tests of the checks. `generators` holds the Hypothesis strategies behind them, and
`decodekit.testing.models` small models with known answers.
"""

import importlib.util

from decodekit.errors import MissingLibraryError

if importlib.util.find_spec("hypothesis") is None:
    message = "decodekit.testing needs the library hypothesis: pip install 'decodekit-core[testing]'"
    raise MissingLibraryError(message)

from decodekit.testing.check import PROFILES
from decodekit.testing.conformance import check_plugin, parametrize, plugin_checks, plugins_of, replay
from decodekit.testing.drafter_checks import check_drafter, drafter_checks
from decodekit.testing.processor_chains import order_witness
from decodekit.testing.processor_checks import check_processor, processor_checks
from decodekit.testing.processor_subject import OracleRow
from decodekit.testing.quant_checks import QuantReport, check_quant_backend, quant_checks
from decodekit.testing.report import ConformanceError, Outcome, Report, Result
from decodekit.testing.reproduce import drafter_case_of, processor_case, strategy_case_of
from decodekit.testing.strategy_checks import check_strategy, strategy_checks

__all__ = [
    "PROFILES",
    "ConformanceError",
    "OracleRow",
    "Outcome",
    "QuantReport",
    "Report",
    "Result",
    "check_drafter",
    "check_plugin",
    "check_processor",
    "check_quant_backend",
    "check_strategy",
    "drafter_case_of",
    "drafter_checks",
    "order_witness",
    "parametrize",
    "plugin_checks",
    "plugins_of",
    "processor_case",
    "processor_checks",
    "quant_checks",
    "replay",
    "strategy_case_of",
    "strategy_checks",
]
