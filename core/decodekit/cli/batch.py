"""``decodekit batch``: a file of prompts in, a file of results out; what was killed goes on."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from transformers.utils import logging

from decodekit import chats
from decodekit.batch_results import PromptResult
from decodekit.cli.arguments import read_settings, read_spec
from decodekit.cli.generate import (
    ChainText,
    Compile,
    CustomGenerate,
    Device,
    Dtype,
    Length,
    Model,
    Processors,
    Quant,
    Seed,
    Settings,
    StrategyName,
    System,
    check_settings,
    custom_strategy,
    whole_chain,
)
from decodekit.cli.meter import Meter
from decodekit.cli.records import Records, open_records
from decodekit.errors import ParameterError
from decodekit.generate_batch import stream_batch
from decodekit.load import load
from decodekit.registry import registry

__all__ = ["batch"]

SOME_FAILED = 1

Source = Annotated[Path, typer.Argument(metavar="IN", help="The prompts, a JSON value a line.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="The results, a JSON object a line.")]
Size = Annotated[int, typer.Option(min=1, help="The most prompts at a time.")]
Chat = Annotated[
    bool, typer.Option("--chat/--no-chat", help="Put every prompt that is a text through the chat template.")
]
Logprobs = Annotated[bool, typer.Option("--logprobs", help="Keep the log-probability of every new token.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start anew, whatever OUT holds.")]
Progress = Annotated[
    bool | None,
    typer.Option(help="Show how far it is; left out, when standard error is a terminal.", show_default=False),
]


def batch(
    source: Source,
    target: Target,
    model: Model = None,
    batch_size: Size = 16,
    strategy: StrategyName = None,
    custom_generate: CustomGenerate = None,
    settings: Settings = None,
    processor: Processors = None,
    chain: ChainText = None,
    quant: Quant = "none",
    dtype: Dtype = "auto",
    device: Device = None,
    compile: Compile = False,
    seed: Seed = None,
    max_new_tokens: Length = 256,
    chat: Chat = False,
    system: System = None,
    logprobs: Logprobs = False,
    overwrite: Overwrite = False,
    progress: Progress = None,
) -> None:
    """Decode every line of a file; a run that was stopped goes on where it was.

    A line of IN is a text, or an object with "prompt" (a text or token ids)
    or "messages" (a chat), and if it likes "id", "seed" and values of its
    own: {"prompt": "Hi", "temperature": 0.5, "max_new_tokens": 8}.

    A line of OUT has "line" (the number of the line of IN), "id", "text",
    "tokens", "finish_reason", "prompt_tokens" and "seed"; or "error". Lines
    come in the order in which prompts end. A line that can't be decoded is
    an error of its own, and the rest is done.

    Given again, the command does the lines that are missing.

    Exit codes: 0 all is done, 1 some lines have errors, 2 refused, 130
    stopped by Ctrl-C.
    """
    lines = _lines(source, target)
    values, unread = _read(lines)
    _check_ids(values)
    chosen = custom_strategy(custom_generate, strategy) if custom_generate is not None else strategy
    arguments: dict[str, Any] = read_settings(settings or ())
    check_settings(arguments, chosen)
    if system is not None and not chat:
        message = "--system has no place without the chat template: add --chat, or leave it out"
        raise ParameterError(message)
    noted: dict[str, Any] = {"model": model, "quant": quant, "dtype": dtype, "strategy": strategy}
    noted |= {"custom_generate": custom_generate, "set": dict(arguments), "processor": processor}
    noted |= {"chain": chain, "seed": seed, "max_new_tokens": max_new_tokens, "chat": chat, "system": system}
    noted |= {"logprobs": logprobs}
    if processor or chain is not None:
        arguments["processors"] = whole_chain(processor or [], chain)
    backend = registry().resolve("quant_backends", read_spec(quant))
    console = Console(stderr=True)
    with open_records(target, noted, source.read_bytes(), overwrite=overwrite) as records:
        if not lines.keys() - records.done.keys():
            wrong = f", {records.failed} with errors" if records.failed else ""
            _say(console, f"nothing is left to do: {target} has all {len(lines)} lines{wrong}")
            raise typer.Exit(SOME_FAILED if records.failed else 0)
        if not sys.stderr.isatty():  # a bar of the weights is for people, not for logs
            logging.disable_progress_bar()
        loaded, tokenizer = load(model, quant=backend, device_map=device, dtype=dtype, compile=compile)
        unread = {number: error for number, error in unread.items() if number not in records.done}
        prompts = {number: value for number, value in values.items() if number not in records.done}
        if chat:
            prompts = {number: _as_chat(value, system) for number, value in prompts.items()}
        results = stream_batch(
            loaded,
            tokenizer,
            list(prompts.values()),
            batch_size=batch_size,
            strategy=chosen,
            seed=seed,
            max_new_tokens=max_new_tokens,
            token_logprobs=logprobs,
            errors="keep",
            **arguments,
        )
        meter = Meter(console, len(lines), len(records.done), progress)
        _write(records, meter, unread, list(prompts), results)
        if records.failed:
            raise typer.Exit(SOME_FAILED)


def _lines(source: Path, target: Path) -> dict[int, bytes]:
    """The lines of the input by their numbers, without the blank ones."""
    if not source.is_file():
        what = "is a folder" if source.is_dir() else "is missing"
        message = f"the input {source} {what}: give a file with a JSON value a line"
        raise ParameterError(message)
    if target.is_dir():
        message = f"the output {target} is a folder: give the name of a file"
        raise ParameterError(message)
    if not target.absolute().parent.is_dir():
        message = f"the output's folder {target.parent} is missing: make it, or choose another"
        raise ParameterError(message)
    if target.exists() and target.samefile(source):
        message = f"{source} can't be both input and output: choose another output"
        raise ParameterError(message)
    found = source.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    lines = {number: line for number, line in enumerate(found, start=1) if line.strip()}
    if not lines:
        message = f"the input {source} is empty: give it a JSON value a line"
        raise ParameterError(message)
    return lines


def _read(lines: Mapping[int, bytes]) -> tuple[dict[int, Any], dict[int, ParameterError]]:
    """The values of the lines, and of those that are no JSON why."""
    values: dict[int, Any] = {}
    wrong: dict[int, ParameterError] = {}
    for number, line in lines.items():
        try:
            values[number] = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            wrong[number] = ParameterError(f"the line is not UTF-8: {error.reason} at byte {error.start}")
        except json.JSONDecodeError as error:
            wrong[number] = ParameterError(f"the line is not JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            wrong[number] = ParameterError("the line is not JSON that can be read: it is nested too deeply")
    return values, wrong


def _check_ids(values: Mapping[int, Any]) -> None:
    """Refuse an id that two lines have: who joins results and prompts by it would join wrong ones."""
    first: dict[str, int] = {}
    for number, value in values.items():
        own = value.get("id") if isinstance(value, Mapping) else None
        if own is None:
            continue
        other = first.setdefault(json.dumps(own, sort_keys=True), number)
        if other != number:
            message = (
                f"lines {other} and {number} of the input have the same id, {own!r}: give each line its own, "
                'or leave ids out, as every result has the number of its "line"'
            )
            raise ParameterError(message)


def _as_chat(value: Any, system: str | None) -> Any:
    """A text as the user's message of a chat; anything else as it is."""
    text = value.get("prompt") if isinstance(value, Mapping) else value
    if not isinstance(text, str) or not text:
        return value
    rest = (
        {name: own for name, own in value.items() if name != "prompt"} if isinstance(value, Mapping) else {}
    )
    return {"messages": chats.messages(text, system), **rest}


def _write(
    records: Records,
    meter: Meter,
    unread: Mapping[int, ParameterError],
    numbers: list[int],
    results: Iterable[PromptResult],
) -> None:
    """Write every result as it comes, and show how far it is."""
    try:
        with meter:
            for number, error in unread.items():
                records.add({"line": number, "error": _told(error)})
                meter.failure(number, error)
            for result in results:
                number = numbers[result.index]
                records.add(_record(number, result))
                if result.error is not None:
                    meter.failure(number, result.error)
                else:
                    meter.success(sum(len(one.tokens) for one in result.completions))
    except KeyboardInterrupt:
        meter.interrupted(records.path)
        raise  # which is exit code 130
    meter.finished(records.path)


def _record(number: int, result: PromptResult) -> dict[str, Any]:
    head = {"line": number} | ({"id": result.id} if result.id is not None else {})
    if result.error is not None:
        return head | {"error": _told(result.error)}
    texts = []
    for one in result.completions:
        text = {"text": one.text, "tokens": one.tokens, "finish_reason": one.finish_reason}
        texts.append(
            text | ({"token_logprobs": one.token_logprobs} if one.token_logprobs is not None else {})
        )
    body = texts[0] if len(texts) == 1 else {"completions": texts}
    tail = {"seed": result.seed} if result.seed is not None else {}
    return head | body | {"prompt_tokens": result.prompt_tokens} | tail


def _told(error: Exception) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}


def _say(console: Console, text: str) -> None:
    console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
