"""Keys, tokens and passwords are taken out of what is printed, logged, stored or sent.

They get into texts by themselves: a server's answer repeats an address with its token, a proxy's error its password, a
library's warning an API key. So this is applied where texts leave: see output.py, files.py and mirror_process.py.
"""

import os
import re
from functools import cache

HIDDEN = "***"
MIN_SECRET_LENGTH = 8  # characters; what is shorter is no secret, and may be any word
_NAME = r"token|key|secret|passw(?:or)?d|passwd|pwd|auth|credential|signature|\bsig\b"
_VARIABLE = re.compile(r"(?:TOKEN|KEY|SECRET|PASSW(?:OR)?D|PASSWD|CREDENTIAL)S?$")  # how such a variable's name ends
# Each in time that grows with the text and not with its square: a server may answer with anything.
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#'\"<>]*@")  # https://user:password@host
_PARAMETER = re.compile(r"([?&;])([\w.-]+)=([^\s&;#'\"<>]+)")
_OF_PARAMETER = re.compile(rf"{_NAME}|^x-(?:amz|goog)-", re.IGNORECASE)
_HEADER = re.compile(r"\b((?:Bearer|Basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_KNOWN = re.compile(
    r"\b(?:wandb_v\d+_\w{16,}|(?:local|api)-[0-9a-f]{40,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16})"
)
# A key of W&B's first kind looks like a commit, so it is one only where a word says so.
_NAMED = re.compile(
    rf"((?:{_NAME})[\w.-]{{0,64}}[\"']?\s{{0,8}}[=: ]\s{{0,8}}[\"']?)([0-9a-f]{{40,}})\b", re.IGNORECASE
)
_QUICK = re.compile(r"[@?&]|\w{20}|bearer|basic", re.IGNORECASE)  # without any of these there is nothing to look for


def redact(text: str) -> str:
    """Return the text with *** in place of secrets: those of the environment, of addresses, and of known forms."""
    for secret in _of_environment():
        text = text.replace(secret, HIDDEN)
    if not _QUICK.search(text):
        return text
    text = _IN_ADDRESS.sub(f"{HIDDEN}@", text)
    text = _PARAMETER.sub(_without_value, text)
    text = _HEADER.sub(rf"\g<1>{HIDDEN}", text)
    text = _NAMED.sub(rf"\g<1>{HIDDEN}", text)
    return _KNOWN.sub(HIDDEN, text)


def _without_value(parameter: re.Match[str]) -> str:
    """Return a parameter of an address without its value, if its name speaks of a secret."""
    before, name, _ = parameter.groups()
    return f"{before}{name}={HIDDEN}" if _OF_PARAMETER.search(name) else parameter[0]


def without_login(address: str) -> str:
    """Return an address without user and password, so that it can be kept, shown and still opened."""
    return _IN_ADDRESS.sub("", address)


def redact_values(value: object) -> object:
    """Return plain values, however nested, with `redact` applied to every text in them."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: redact_values(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(inner) for inner in value]
    return value


def reload_environment_secrets() -> None:
    """Have the next `redact` look at the environment anew, which is done once: a million lines may be redacted."""
    _of_environment.cache_clear()


@cache
def _of_environment() -> list[str]:
    """Return the secrets that environment variables hold, the longest first, so that none leaves a rest of another."""
    found = {value for name, value in os.environ.items() if _VARIABLE.search(name.upper())}
    for name, value in os.environ.items():
        if name.lower().endswith(("_proxy", "_url")) and (match := _IN_ADDRESS.search(value)):
            found |= set(match[0].rstrip("@").split(":", 1)[1:])
    return sorted(
        (secret for secret in found if len(secret) >= MIN_SECRET_LENGTH and not secret.isdigit()), key=len, reverse=True
    )
