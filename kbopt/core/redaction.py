"""Takes secrets out of text that is stored or shown: services quote keys, and addresses hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from urllib.parse import parse_qsl, unquote, urlsplit

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)(?:_ID)?$")
_AFTER_ITS_LABEL = re.compile(
    r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token|digest) )?|\bbearer "
    r"|(?:api[-_ ]?key(?: provided)?|subscription[-_]key|(?:access|auth)[-_]token|client[-_]secret|password)"
    r"['\"]?\s*[:=]\s*['\"]?|\btoken=)"
    r"(?!\[redacted\]|\.{3}(?!\w)|\$\()(?=[^\s\"',;}]{3})[^\s\"',;}]+"
)
"""Not `export OPENAI_API_KEY=...` and `export TOKEN=$(openssl ...)`, as kbopt's own messages tell a user."""
_BY_ITS_LOOKS = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|hf|nvapi|glpat|gh[oprsu]|github_pat)[-_]|AIza|AKIA)"
    r"(?=[\w-]*?(?=[A-Za-z]*\d)[A-Za-z0-9]{12})[\w-]{16,}"
    r"|\beyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"
)
"""Random letters run on and have a digit among them, unlike the names in a kernel's source."""

_USER = re.compile(r"(?<=://)[^\s/'\"<>]+(?=@)|(?<![\w/])[\w.%+-]+:[^\s:@/'\"]+(?=@[\w.-]+:\d)")
_QUERY = re.compile(r"(?P<before>://[^\s'\"<>)`?#;]*[?#;]|[\w./-]\?(?=[\w.~%-]+=))(?P<query>[^\s'\"<>)`]+)")
"""Of a whole URL, its parameters after a semicolon too, or of the path and query that libraries quote."""

_PATH = re.compile(r"(?P<before>://[^\s/'\"<>)`?#;]+|\burl: )(?P<path>/[^\s'\"<>)`?#;]*)")
"""The same of a path."""
_PART = re.compile(r"[\w%=+~-]{8,}")
_NAMES_A_KEY = re.compile(r"(?i)(?:(?:api|access|auth)[-_]?)?(?:key|token|secret|credential|password)s?")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_IDENTIFIER = re.compile(
    r"[0-9a-f]{40}|[0-9a-f]{64}|(?i:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
)
"""A commit's or file's SHA, and a UUID, which services number accounts and deployments by."""
_MIN_TOKEN = 20
"""Characters from which a random part of a path is taken for a key. Names of jobs are shorter."""
_MIN_RUN = 8
"""Characters of one run of letters and digits in it. Names have hyphens: `a100-80gb-sxm4-x2-pool-us1`."""
_MAX_MEAN_WORD = 3.2
"""Mean characters of what would be words, names' (4 and more) and random letters' (2 or so) apart."""

_PAIR = re.compile(r"(?P<name>[^&;#=]+=)?(?P<value>[^&;#]+)")
_HARMLESS = frozenset({"api-version", "api_version", "version"})


def redact(text: str, environ: Mapping[str, str]) -> str:
    """`text` without the secrets that `environ` holds and without what is labelled or looks like a key.

    Of every URL the user and password, the query's values but for an API's version, the fragment, and parts
    of the path that are random or follow a word such as `keys` are taken out. Values of `environ` shorter
    than eight characters stay: replacing them would garble words.
    """
    for secret in sorted(set(_secrets(environ)), key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    text = _USER.sub(REDACTED, text)
    text = _PATH.sub(lambda url: url["before"] + _without_keys(url["path"]), text)
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
    for before, part in pairwise(parts.path.split("/")):
        yield from (found for found in _PART.findall(part) if _is_key(found, before))


def _without_keys(path: str) -> str:
    parts = path.split("/")
    for number, (before, part) in enumerate(pairwise(parts), 1):
        parts[number] = _PART.sub(partial(_unless_key, before=before), part)
    return "/".join(parts)


def _unless_key(found: re.Match[str], before: str) -> str:
    return REDACTED if _is_key(found[0], before) else found[0]


def _is_key(part: str, before: str) -> bool:
    """Whether a part of a path is a key: by the part before it, or because it is long and random."""
    if _NAMES_A_KEY.fullmatch(before):
        return not part.islower() or any(map(str.isdigit, part))
    if len(part) < _MIN_TOKEN or _IDENTIFIER.fullmatch(part) or before == "accounts":
        return False
    runs = [run for run in re.split(r"[^A-Za-z0-9]+", part) if len(run) >= _MIN_RUN]
    if not any(not run.isalpha() and not run.isdigit() for run in runs):
        return False
    letters = re.sub(r"[^A-Za-z0-9]+", "", part)
    is_hex = re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", letters) is not None
    return is_hex or len(letters) / len(_WORD.findall(letters)) < _MAX_MEAN_WORD


def _without_value(pair: re.Match[str]) -> str:
    name = pair["name"] or ""
    return pair[0] if name.rstrip("=").lower() in _HARMLESS else f"{name}{REDACTED}"
