"""Removes keys, tokens and passwords from everything that is printed, logged, stored or sent.

Texts pick them up unnoticed: a server's answer repeats a URL with its token, a proxy's error its password, a library's
warning an API key. So every text is redacted where it leaves the process: see output.py, files.py, mirror_process.py.
"""

import os
import re
from functools import cache

HIDDEN = "***"
MIN_SECRET_LENGTH = 8  # characters; a shorter value of a variable may be any word
_NAME = r"token|key|secret|passw(?:or)?d|passwd|pwd|auth|credential|signature|\bsig\b"
_VARIABLE = re.compile(r"(?:TOKEN|KEY|SECRET|PASSW(?:OR)?D|PASSWD|CREDENTIAL)S?$")  # how such a variable's name ends
# All patterns match in linear time: a server may answer with anything.
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#'\"<>]*@")  # https://user:password@host
_PARAMETER = re.compile(r"([?&;])([\w.-]+)=([^\s&;#'\"<>]+)")
_OF_PARAMETER = re.compile(rf"{_NAME}|^x-(?:amz|goog)-", re.IGNORECASE)
_HEADER = re.compile(r"\b((?:Bearer|Basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_KNOWN = re.compile(
    r"\b(?:wandb_v\d+_\w{16,}|(?:local|api)-[0-9a-f]{40,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16})"
)
# W&B's older keys look like commits, so they count as keys only after a word such as `key`.
_NAMED = re.compile(
    rf"((?:{_NAME})[\w.-]{{0,64}}[\"']?\s{{0,8}}[=: ]\s{{0,8}}[\"']?)([0-9a-f]{{40,}})\b", re.IGNORECASE
)
_QUICK = re.compile(r"[@?&]|\w{20}|bearer|basic", re.IGNORECASE)  # a text without any of these holds no secret


def redact(text: str, *, environment: bool = True) -> str:
    """Return the text with *** in place of credentials in URLs, keys of known forms, and secrets of the environment.

    Args:
        environment: whether values of environment variables such as DB_PASSWORD are secrets. Not for stored fields: a
            password may be a common word, and its replacement would change a path or a class name.
    """
    for secret in _environment_secrets() if environment else ():
        text = text.replace(secret, HIDDEN)
    if not _QUICK.search(text):
        return text
    text = _IN_ADDRESS.sub(f"{HIDDEN}@", text)
    text = _PARAMETER.sub(_without_value, text)
    text = _HEADER.sub(rf"\g<1>{HIDDEN}", text)
    text = _NAMED.sub(rf"\g<1>{HIDDEN}", text)
    return _KNOWN.sub(HIDDEN, text)


def _without_value(parameter: re.Match[str]) -> str:
    """Return a parameter of a URL without its value, if its name is that of a secret."""
    before, name, _ = parameter.groups()
    return f"{before}{name}={HIDDEN}" if _OF_PARAMETER.search(name) else parameter[0]


def without_login(address: str) -> str:
    """Return a URL without user and password; it can still be opened."""
    return _IN_ADDRESS.sub("", address)


def redact_values(value: object, *, environment: bool = True) -> object:
    """Return plain, possibly nested values with `redact` applied to every text in them."""
    if isinstance(value, str):
        return redact(value, environment=environment)
    if isinstance(value, dict):
        return {name: redact_values(inner, environment=environment) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(inner, environment=environment) for inner in value]
    return value


def reload_environment_secrets() -> None:
    """Make the next `redact` read the environment again; it is cached, as a run may log a million lines."""
    _environment_secrets.cache_clear()


@cache
def _environment_secrets() -> list[str]:
    """Return the secrets in environment variables, the longest first, so that no part of one remains."""
    found = {value for name, value in os.environ.items() if _VARIABLE.search(name.upper())}
    for name, value in os.environ.items():
        if name.lower().endswith(("_proxy", "_url")) and (match := _IN_ADDRESS.search(value)):
            found |= set(match[0].rstrip("@").split(":", 1)[1:])
    return sorted(
        (secret for secret in found if len(secret) >= MIN_SECRET_LENGTH and not secret.isdigit()), key=len, reverse=True
    )
