"""The verbs: one file each, found by listing this folder. A verb parses, calls one function, prints."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import typer


@dataclass(frozen=True)
class Verb:
    """A verb of the command line."""

    command: Callable[..., None]
    """Its arguments and options are the function's; its help is the docstring. Heavy imports happen inside."""
    after: str | None
    """The verb that people use before it; None: the first."""
    example: str
    """Printed below the options."""
    extras: tuple[str, ...] = ()
    """That it needs; none where the base install is enough."""
    engines: bool = False
    """Whether it also needs the engine of each variant."""

    @property
    def name(self) -> str:
        return self.command.__name__.replace("_", "-")


def names() -> list[str]:
    """Every verb there is, without importing one."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Verb:
    """The verb of that name. ModuleNotFoundError where there is none."""
    found: Verb = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").VERB
    return found


def in_order() -> list[Verb]:
    """Every verb, in the order of the flow: each after the one that it names."""
    followers: dict[str | None, list[Verb]] = {}
    for name in names():
        verb = get(name)
        followers.setdefault(verb.after, []).append(verb)

    def from_(after: str | None) -> list[Verb]:
        return [one for verb in followers.get(after, ()) for one in (verb, *from_(verb.name))]

    return from_(None)


def register(app: typer.Typer, verb: Verb) -> None:
    """Add a verb to the command line."""
    app.command(verb.name, epilog=verb.example)(verb.command)
