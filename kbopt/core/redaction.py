"""Takes secrets out of text that is stored or shown: services quote keys, and addresses hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)(?:_ID)?$")
_AFTER_ITS_LABEL = re.compile(
    r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token|digest) )?|\bbearer "
    r"|(?:api[-_ ]?key(?: provided)?|subscription[-_]key|(?:access|auth)[-_]token|client[-_]secret|password)"
    r"['\"]?\s*[:=]\s*['\"]?|\btoken=)"
    r"(?!\[redacted\])(?=[^\s\"',;}]{3})[^\s\"',;}]+"
)
_BY_ITS_LOOKS = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|hf|nvapi|glpat|gh[oprsu]|github_pat)[-_]|AIza|AKIA)"
    r"(?=[\w-]*?(?=[A-Za-z]*\d)[A-Za-z0-9]{12})[\w-]{16,}"
    r"|\beyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"
)
"""Random letters run on and have a digit among them, unlike the names in a kernel's source."""

_USER = re.compile(r"(?<=://)[^\s/'\"<>]+(?=@)|(?<![\w/])[\w.%+-]+:[^\s:@/'\"]+(?=@[\w.-]+:\d)")
_QUERY = re.compile(r"(?P<before>://[^\s'\"<>)`?#;]*[?#;]|[\w./-]\?(?=[\w.~%-]+=))(?P<query>[^\s'\"<>)`]+)")
"""Of a whole URL, its parameters after a semicolon too, or of the path and query that libraries quote."""

_PAIR = re.compile(r"(?P<name>[^&;#=]+=)?(?P<value>[^&;#]+)")
_HARMLESS = frozenset({"api-version", "api_version", "version"})


def redact(text: str, environ: Mapping[str, str]) -> str:
    """`text` without the secrets that `environ` holds and without what is labelled or looks like a key.

    Of every URL the user and password, the query's values but for an API's version, and the fragment are
    taken out. Values of `environ` shorter than eight characters stay: replacing them would garble words.
    """
    for secret in sorted(set(_secrets(environ)), key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    text = _USER.sub(REDACTED, text)
    text = _QUERY.sub(lambda url: url["before"] + _PAIR.sub(_without_value, url["query"]), text)
    text = _AFTER_ITS_LABEL.sub(rf"\1{REDACTED}", text)
    return _BY_ITS_LOOKS.sub(REDACTED, text)


def _secrets(environ: Mapping[str, str]) -> Iterator[str]:
    """Keys, and what proxies' and services' addresses in the environment hold, as written and decoded."""
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 8:
            yield value
        elif "://" in value and "\n" not in value:
            yield from (secret for secret in _in_address(value) if len(secret) >= 8)


def _in_address(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL after all
        return
    password = parts.password or ""
    yield from (password, unquote(password))
    yield from (value for name, value in parse_qsl(parts.query) if name not in _HARMLESS)


def _without_value(pair: re.Match[str]) -> str:
    name = pair["name"] or ""
    return pair[0] if name.rstrip("=").lower() in _HARMLESS else f"{name}{REDACTED}"
