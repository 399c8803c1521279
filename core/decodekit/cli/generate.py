"""``decodekit generate``: stream the continuation of a prompt, and tell what it took."""

import inspect
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from transformers import GenerationConfig
from transformers.utils import logging
from typer.core import TyperCommand

from decodekit import chats
from decodekit.chain import Chain
from decodekit.chain_text import is_text
from decodekit.cli.answer import Answer, follow
from decodekit.cli.arguments import read_prompt, read_settings, read_spec
from decodekit.cli.tables import plugin_table
from decodekit.custom_generate import strategy_of
from decodekit.default_model import MODEL_NAME
from decodekit.errors import ParameterError, nearest
from decodekit.generate import generate as generate_in_python
from decodekit.load import load, model_bytes
from decodekit.params import params_of
from decodekit.processor import Processor
from decodekit.registry import registry
from decodekit.stream import stream

__all__ = ["WithPlugins", "check_settings", "custom_strategy", "generate", "whole_chain"]

_SPEC = "NAME:KEY=VALUE,..."

PromptText = Annotated[
    str | None, typer.Argument(help="The prompt; - reads standard input.", show_default=False)
]
PromptFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Read the prompt from a file.")
]
Model = Annotated[
    str | None,
    typer.Option(metavar="DIR_OR_ID", help=f"A folder or a hub id; left out, the embedded {MODEL_NAME}."),
]
StrategyName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The decoding strategy; left out, greedy or sample by do_sample."),
]
CustomGenerate = Annotated[
    str | None,
    typer.Option(metavar="MODULE[:CLASS]", help="A strategy of a module, in this folder or installed."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="An argument of generate or of the strategy; repeatable."
    ),
]
Processors = Annotated[
    list[str] | None,
    typer.Option(
        metavar=_SPEC, help="A logits processor; repeated, they are the whole chain, in this order."
    ),
]
ChainText = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="The whole chain, e.g. 'temperature=0.8 > top_k=50 > min_p=0.05'."),
]
Quant = Annotated[str, typer.Option(metavar=_SPEC, help="The quantization backend.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto: the model's own.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda:0, auto, ...; left out, the first GPU or the CPU.")
]
Seed = Annotated[int | None, typer.Option(help="Makes the draws reproducible.")]
Length = Annotated[int, typer.Option(min=0, help="The most tokens to generate.")]
System = Annotated[str | None, typer.Option(help="The system message of the chat.")]
Chat = Annotated[
    bool, typer.Option("--chat/--no-chat", help="Use the chat template, or continue the prompt as it is.")
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Run steps as compiled kernels: the first start compiles them, about half a minute."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead of the text.")]


class WithPlugins(TyperCommand):
    """A command whose help ends with the installed plugins."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help; the tables come from the classes of the plugins."""
        super().format_help(ctx, formatter)
        console = Console()
        console.print(plugin_table("strategies", "Strategies (--strategy NAME --set key=value)"), "")
        drafters = "Drafters (--strategy assisted --set drafter=NAME)"
        console.print(plugin_table("drafters", drafters), "")
        console.print(plugin_table("processors", f"Processors (--processor {_SPEC})"), "")
        console.print(plugin_table("quant_backends", f"Quantization backends (--quant {_SPEC})"))


def generate(
    prompt: PromptText = None,
    file: PromptFile = None,
    model: Model = None,
    strategy: StrategyName = None,
    custom_generate: CustomGenerate = None,
    settings: Settings = None,
    processor: Processors = None,
    chain: ChainText = None,
    quant: Quant = "none",
    dtype: Dtype = "auto",
    device: Device = None,
    seed: Seed = None,
    max_new_tokens: Length = 256,
    system: System = None,
    chat: Chat = True,
    compile: Compile = False,
    as_json: AsJson = False,
) -> None:
    """Generate text, streamed to standard output; the figures go to standard error."""
    messages = _messages(read_prompt(prompt, file), system, chat)
    chosen = custom_strategy(custom_generate, strategy) if custom_generate is not None else strategy
    arguments: dict[str, Any] = _checked(read_settings(settings or ()), chosen)
    resolve = registry().resolve
    if processor or chain is not None:
        arguments["processors"] = whole_chain(processor or [], chain)
    backend = resolve("quant_backends", read_spec(quant))
    if not sys.stderr.isatty():  # a bar of the weights is for people, not for logs
        logging.disable_progress_bar()
    loaded, tokenizer = load(model, quant=backend, device_map=device, dtype=dtype, compile=compile)
    if chat and not tokenizer.chat_template:
        message = "the tokenizer of this model has no chat template: add --no-chat"
        raise ParameterError(message)
    events = stream(
        loaded, tokenizer, messages, strategy=chosen, seed=seed, max_new_tokens=max_new_tokens, **arguments
    )
    answer = follow(events, (lambda text: None) if as_json else _show)
    figures = {"model": model or MODEL_NAME, "model_bytes": model_bytes(loaded), "backend": backend.NAME}
    _report(answer, answer.figures() | figures | {"seed": seed}, as_json)
    if answer.interrupted:
        raise KeyboardInterrupt  # which is exit code 130


def whole_chain(processors: list[str], chain: str | None) -> list[Processor]:
    """The chain of --chain, or of --processor in its order; both can have the text form."""
    if processors and chain is not None:
        message = "--chain and --processor are both the whole chain: leave one of them out"
        raise ParameterError(message)
    found: list[Processor] = []
    for text in processors if chain is None else [chain]:
        if chain is not None or (is_text(text) and ":" not in text):
            found += Chain.parse(text).processors
        else:
            found.append(registry().resolve("processors", read_spec(text)))
    return found


def custom_strategy(spec: str, strategy: str | None) -> Any:
    """The strategy of a module; what has a loop of its own can't be streamed."""
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    return strategy_of(spec, strategy=strategy)


_OBJECTS = {*inspect.signature(generate_in_python).parameters, "input_ids", "attention_mask"}


def check_settings(settings: dict[str, Any], strategy: Any) -> None:
    """Raise where nobody knows a name: a misspelt one should not wait for the model."""
    cls = registry().entry("strategies", strategy).cls if isinstance(strategy, str) else strategy
    own = params_of(cls if isinstance(cls, type) else type(cls)) if cls is not None else {}
    known = {*GenerationConfig().to_dict(), *own}
    for name in settings:
        if name in _OBJECTS:
            message = f"--set {name} is not allowed: it is an object; decodekit.generate takes it"
            raise ParameterError(message)
        if name not in known:
            message = f"--set {name} is an argument of neither generate nor the strategy."
            raise ParameterError(message + nearest(name, sorted(known)))


def _checked(settings: dict[str, Any], strategy: Any) -> dict[str, Any]:
    """The settings, where the command can show what they ask for."""
    check_settings(settings, strategy)
    if settings.get("num_return_sequences") not in (None, 1):
        message = (
            f"--set num_return_sequences={settings['num_return_sequences']} is not allowed: the command "
            "shows one answer; run it again with another --seed, or use decodekit.generate in Python"
        )
        raise ParameterError(message)
    return settings


def _messages(prompt: str, system: str | None, chat: bool) -> str | list[dict[str, str]]:
    if chat and not prompt.strip():
        message = "the prompt is empty: give it some text, or add --no-chat to start from nothing"
        raise ParameterError(message)
    if not chat:
        if system is not None:
            message = "--system has no place without the chat template: leave out --no-chat or --system"
            raise ParameterError(message)
        return prompt
    return chats.messages(prompt, system)


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _report(answer: Answer, figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        whole = {"text": answer.text, "tokens": answer.tokens, "finish_reason": answer.finish_reason}
        typer.echo(json.dumps(whole | figures, ensure_ascii=False))
        return
    typer.echo()
    count = figures["new_tokens"]
    parts = ["1 token" if count == 1 else f"{count} tokens"]
    if figures["tokens_per_second"] is not None:
        parts.append(f"{figures['tokens_per_second']:.1f} tokens/s")
    if answer.first_token_seconds is not None:
        parts.append(f"first token after {answer.first_token_seconds:.2f} s")
    parts += [f"model {figures['model_bytes'] / 1e6:.1f} MB", f"backend {figures['backend']}"]
    if answer.stats is not None:
        chain = " | ".join(answer.stats.chains) or "none"
        parts += [f"strategy {answer.stats.strategy}", f"chain {chain}"]
    parts.append(f"ended by {answer.finish_reason}" if not answer.interrupted else "interrupted")
    Console(stderr=True).print(", ".join(parts), style="dim", markup=False, highlight=False, soft_wrap=True)
