"""Looks whether an OpenAI-compatible server is there, before anything else is started."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException

from kbopt.core.errors import UserError, unknown_name

TIMEOUT_S = 10.0


def check_server(api_base: str, model: str, key: str) -> None:
    """Raises `UserError` where no server answers at `api_base`, or it refuses `key` or lacks `model`.

    Costs nothing: it asks for the list of models. A server that keeps no list, or is slow to give it, is
    believed to serve any model.
    """
    if not api_base.startswith(("http://", "https://")):
        raise UserError(f"--api-base is {api_base!r}. It is a URL, as in http://127.0.0.1:8000/v1.")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{api_base.rstrip('/')}/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            served = _ids(json.loads(response.read()))
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                raise UserError(f"the server at --api-base {api_base} refuses the key ({error}).") from None
        return
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return
        raise UserError(f"no server answers at --api-base {api_base}: {error.reason}.") from None
    except (TimeoutError, HTTPException, ValueError):
        return
    if served and model not in served:
        raise unknown_name(f"model at {api_base}:", model, served)


def _ids(listed: object) -> list[str]:
    """The names in a `/models` answer, none where it has another form."""
    match listed:
        case {"data": [*rows]}:
            return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
        case _:
            return []
