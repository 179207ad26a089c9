"""Asks a service which models it serves, before anything else is started. Costs nothing."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException

from kbopt.core.errors import UserError, unknown_name

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A service with an OpenAI-compatible list of models at `url`/models.

    `name` is what messages call it: `--api-base URL`, or a provider's name. `headers` hold the key.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A service's URL in the parts that a request needs, since a path goes before the query.

    `base` ends without a slash. `headers` hold the user and the password that stood before the host.
    """

    base: str
    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        parts = urllib.parse.urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        encoded = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        base = parts._replace(netloc=host, path=parts.path.rstrip("/"), query="", fragment="")
        return cls(
            base=urllib.parse.urlunsplit(base),
            headers={"Authorization": f"Basic {encoded}"} if user else {},
            query=dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True)),
        )


class Unreachable(Exception):
    """No server answers; the message says why."""


def check_model(endpoint: Endpoint, model: str, believed: Collection[str] = ()) -> None:
    """Raises `UserError` where the service refuses the key or does not serve `model`; `Unreachable`.

    A name that is not listed is asked for by itself, since lists come in pages and leave out aliases; one
    of `believed` need not be listed. A service that keeps no list, or is slow to give it, is believed to
    serve any model.
    """
    served = _ids(_get(endpoint, "models"))
    if not served or model in believed or any(_names(listed, model) for listed in served):
        return
    if _get(endpoint, f"models/{urllib.parse.quote(model)}") is None:
        raise unknown_name(f"model at {endpoint.name}:", model, served)


def _names(listed: str, model: str) -> bool:
    """True where `listed` is `model`: with the owner's path before it, or without the `:variant` after it."""
    return any(listed == name or listed.endswith(f"/{name}") for name in (model, model.rpartition(":")[0]))


def _get(endpoint: Endpoint, path: str) -> object | None:
    """The JSON at `path`; None where there is none, or none in time."""
    request = _request(endpoint, path)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer: object = json.loads(response.read())
            return answer
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                raise UserError(f"{endpoint.name} refuses the key ({error}).") from None
        return None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return None
        raise Unreachable(str(error.reason)) from None
    except (TimeoutError, HTTPException, ValueError):
        return None


def _request(endpoint: Endpoint, path: str) -> urllib.request.Request:
    address = Address.parse(endpoint.url)
    query = f"?{urllib.parse.urlencode(address.query)}" if address.query else ""
    return urllib.request.Request(
        f"{address.base}/{path}{query}", headers={**endpoint.headers, **address.headers}
    )


def _ids(listed: object) -> list[str]:
    """The names in a `/models` answer, none where it has another form."""
    match listed:
        case {"data": [*rows]}:
            return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
        case _:
            return []
