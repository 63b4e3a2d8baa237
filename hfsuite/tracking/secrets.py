"""Texts without passwords, tokens and keys, as they may be recorded. Pure functions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

SECRET_NAME = (
    r"(?:passwords?|passwd|pass|pwd|passphrase|secrets?(?:[_-]?(?:access[_-]?)?key)?|api[_-]?keys?|private[_-]?key"
    r"|credentials?|(?<!pad_)(?<!eos_)(?<!bos_)(?<!unk_)(?<!sep_)(?<!cls_)(?<!mask_)token)"  # a tokenizer's are none
)
SECRETS = re.compile(  # an option, or an assignment, perhaps in quotes and brackets, perhaps with a type
    rf"(?i)(--[\w-]*{SECRET_NAME}\b[= ]\s*|(?<!-)\b[\w.-]*?(?:\b|_|-){SECRET_NAME}\b[\"'\]]*\s*(?::\s*\w+\s*=|[=:])\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s,)}\"']+)"
)
QUOTED_SECRETS = re.compile(SECRETS.pattern.replace(r"|[^\s,)}\"']+)", ")"))  # in code, anything else is an expression
BEARERS = re.compile(r"(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}")
SECRET_SETTINGS = re.compile(
    r"(?i)(.*[._])?(password|passwd|secret|api_?key|(hf|hub|access|auth|api)_token|credentials?)"
)
KEYS = re.compile(r"\b(hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA|dapi)[\w-]{12,}")  # as hubs hand them out
HIDDEN = "..."
NUMBER = re.compile(r"[-+.\deE]+|[Tt]rue|[Ff]alse")  # no secret, whatever it is called


def source_without_secrets(text: str) -> str:
    """Python code without the texts that look like a password, token or key. What is computed is no secret."""
    for pattern, hidden in ((QUOTED_SECRETS, repr(HIDDEN)), (BEARERS, HIDDEN), (KEYS, HIDDEN)):
        text = pattern.sub(rf"\1{hidden}", text)
    return without_credentials(text)


def without_credentials(text: str) -> str:
    """A text without the user names, passwords and query values of addresses in it."""

    def clean(found: re.Match[str]) -> str:
        scheme, _, rest = found[0].partition("://")
        rest, mark, query = rest.partition("?")
        server, slash, path = rest.partition("/")
        if re.search(rf"(?i){SECRET_NAME}=", query):
            query = re.sub(r"=[^&]*", f"={HIDDEN}", query)
        return f"{scheme}://{server.rpartition('@')[2]}{slash}{path}{mark}{query}"

    return re.sub(r"\w[\w+.-]*://[^\s'\"]+", clean, text)


def without_secrets(text: str) -> str:
    """A text without what looks like a password, token or key, by its name or by its form."""
    for pattern in (SECRETS, BEARERS, KEYS):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return without_credentials(text)


def as_parameter(name: str, text: str) -> str:
    """The value of a setting as it may be recorded; a `pad_token` is no secret."""
    if SECRET_SETTINGS.fullmatch(name):
        return HIDDEN
    return KEYS.sub(rf"\1{HIDDEN}", without_credentials(text))


def arguments(given: Sequence[str]) -> list[str]:
    """The arguments of a program, each by itself; `HIDDEN` for one that may be a secret by its form or its option."""
    shown = []
    for before, each in itertools.pairwise(["", *given]):
        option, sign, value = each.partition("=")
        named = before if before.startswith("-") and "=" not in before and not each.startswith("-") else ""
        named, value = (option, value) if sign and option.startswith("-") else (named, each)
        by_name = named and re.search(rf"(?i)(^|[-_]){SECRET_NAME}$", named) and not NUMBER.fullmatch(value)
        shown.append(HIDDEN if by_name or value != without_secrets(value) else each)
    return shown


def argument(text: str) -> str:
    """An argument of the command, without the value of a setting that is a secret."""
    name, sign, _ = text.partition("=")
    return f"{name}={HIDDEN}" if sign and re.search(rf"(?i){SECRET_NAME}$", name) else text
