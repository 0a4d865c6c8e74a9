"""Mistakes in the words of a command line, told as every other mistake: in one line, with what to do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from edgecnn.errors import UserError


def refuse_empty_words(words: Sequence[str]) -> None:
    """UserError for a word of no characters: as a path it would be read as the working folder."""
    for place, word in enumerate(words):
        if not word or (word.startswith("--") and word.endswith("=")):
            where = f"after {words[place - 1]!r}" if place and not word else f"in {word!r}" if word else "first"
            raise UserError(f"an empty word was given ({where}), perhaps of a variable without a value: name one")


def mistake_of(error: Exception) -> str | None:
    """What is wrong with the words, in one line; None of any other error.

    The exceptions are of typer's own click, which gives them no public name in the oldest version that is taken.
    """
    words = getattr(error, "format_message", None)
    if words is None:
        return None
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    command = context.command_path if context else " ".join(["edgecnn", *sys.argv[1:2]])
    verb = command.removeprefix("edgecnn").strip()
    message = words().rstrip(".")
    told = f"{message[0].lower()}{message[1:]}"
    came = _given_to(parameter)
    if came is not None:
        told = f"{told} (came {came!r})"
    elif parameter is not None and parameter.help:
        told = f"{told} ({parameter.help.rstrip('.')})"
    elif context and not context.parent and not hasattr(error, "option_name"):
        told = f"{told} (there are {', '.join(context.command.commands)})"
    return f"{f'{verb}: ' if verb else ''}{told}: `{command} --help` shows what it takes"


def _given_to(parameter: Any) -> str | None:
    """What an option was given on the command line; None where it is none, or was not given."""
    for option in getattr(parameter, "opts", ()):
        for word, following in pairwise([*sys.argv, ""]):
            if word == option:
                return following
            if word.startswith(f"{option}="):
                return word.partition("=")[2]
    return None
