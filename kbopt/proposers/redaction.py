"""Takes secrets out of what services say about a request: some of them quote the key that they refuse."""

from __future__ import annotations

import re
from collections.abc import Mapping

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)(?:_ID)?$")
_AFTER_ITS_LABEL = re.compile(
    r"(?i)\b(authorization['\"]?\s*[:=]\s*['\"]?(?:bearer |basic )?|bearer "
    r"|api[-_ ]?key(?: provided)?['\"]?\s*[:=]\s*)"
    r"(?=[^\s\"',;}]{3})[^\s\"',;}]+"
)
_BY_ITS_LOOKS = re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf|AIza|AKIA)[-_]?[A-Za-z0-9_-]{16,}")


def redact(text: str, environ: Mapping[str, str]) -> str:
    """`text` without the secrets that `environ` holds and without what is labelled or looks like a key.

    Values shorter than eight characters stay: replacing them would garble words.
    """
    secrets = [value for name, value in environ.items() if _SECRET_NAME.search(name) and len(value) >= 8]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    text = _AFTER_ITS_LABEL.sub(rf"\1{REDACTED}", text)
    return _BY_ITS_LOOKS.sub(REDACTED, text)
