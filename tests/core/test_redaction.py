"""What is shown and stored holds no key, in whatever form an address or a service wrote it."""

from __future__ import annotations

import pickle

import pytest

from kbopt.core.errors import InfraError, UserError
from kbopt.core.redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Incorrect API key provided: abc123. See", "Incorrect API key provided: [redacted] See"),
        ("Authorization: Bearer abc.def-x sent", "Authorization: Bearer [redacted] sent"),
        ("{'Authorization': 'Bearer abcdef', 'x': 1}", "{'Authorization': 'Bearer [redacted]', 'x': 1}"),
        ("api_key=foo was", "api_key=[redacted] was"),
        ("used sk-proj-abcdefghijklmnop1234", "used [redacted]"),
        ("env has hunter2hunter2 in it", "env has [redacted] in it"),
        ("{'x-api-key': 'S3cret'} 'token' is None", "{'x-api-key': '[redacted]'} 'token' is None"),
        ("Authorization: Token S3cret;", "Authorization: Token [redacted];"),
        ("access_token: S3cret and ?token=S3cret", "access_token: [redacted] and ?token=[redacted]"),
        ("for ghp_S3cretValueS3cretValue1 and", "for [redacted] and"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.S3cret-x sent", "[redacted] sent"),
        (
            "skip_connection_forward, sk_kernel_tile_m64_n128, max_tokens=500, unexpected token: }",
            "skip_connection_forward, sk_kernel_tile_m64_n128, max_tokens=500, unexpected token: }",
        ),
        ("authorization failed for the bearer of news", "authorization failed for the bearer of news"),
        ("a short word stays", "a short word stays"),
        ("https://u:p@gw.example/v1", "https://[redacted]@gw.example/v1"),
        ("https://u:p#ss@word@gw.example/v1", "https://[redacted]@gw.example/v1"),
        (
            "(http://gw/v1?api-key=S3cret&api-version=2024-02-01)",
            "(http://gw/v1?api-key=[redacted]&api-version=2024-02-01)",
        ),
        ("http://gw/v1?S3cret", "http://gw/v1?[redacted]"),
        ("http://gw?code=S3cret;sig=x", "http://gw?code=[redacted];sig=[redacted]"),
        (
            "http://gw/v1;key=S3cret and http://gw/v1; then",
            "http://gw/v1;key=[redacted] and http://gw/v1; then",
        ),
        ("http://gw/v1#token=S3cret is", "http://gw/v1#token=[redacted] is"),
        (
            "Max retries exceeded with url: /v1/models?key=S3cret (Caused by",
            "Max retries exceeded with url: /v1/models?key=[redacted] (Caused by",
        ),
        ("proxy user:S3cret@proxy.example:3128 refused", "proxy [redacted]@proxy.example:3128 refused"),
        (
            "407 from the proxy for p4ssw%40rd and p4ssw@rd",
            "407 from the proxy for [redacted] and [redacted]",
        ),
        ("the gateway knows no gatewaykey1", "the gateway knows no [redacted]"),
        (
            "git@github.com:a/b.git and http://h:80/v1, a.cu#L12, is it so? yes=1",
            "git@github.com:a/b.git and http://h:80/v1, a.cu#L12, is it so? yes=1",
        ),
    ],
)
def test_keys_are_blacked_out_and_words_are_not(text: str, expected: str) -> None:
    environ = {
        "MY_SERVICE_API_KEY": "hunter2hunter2",
        "OTHER_TOKEN": "word",
        "PATH": "a short word stays",
        "HTTPS_PROXY": "http://me:p4ssw%40rd@proxy:3128",
        "KBOPT_API_BASE": "http://gw/v1?key=gatewaykey1",
    }
    assert redact(text, environ) == expected


@pytest.mark.parametrize("kind", [UserError, InfraError])
def test_no_error_that_is_told_holds_a_secret(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "hunter2hunter2")
    error = pickle.loads(pickle.dumps(kind("no server at http://u:pw@h/v1?key=S3cret for hunter2hunter2")))
    assert str(error) == "no server at http://[redacted]@h/v1?key=[redacted] for [redacted]"
