"""What is shown and stored holds no key, in whatever form an address or a service wrote it."""

from __future__ import annotations

import pickle
import random

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
        ("(export AN_API_KEY=...) and start", "(export AN_API_KEY=...) and start"),
        ("export MY_AUTH_TOKEN=$(openssl rand -hex 16)", "export MY_AUTH_TOKEN=$(openssl rand -hex 16)"),
        ("api_key=...S3cret was", "api_key=[redacted] was"),
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
        ("at https://gw/a7Kd9XqL2mZv8RtY4wBs/openai, then", "at https://gw/[redacted]/openai, then"),
        ("https://gw/v1/keys/S3cretValueQ1/models: 404", "https://gw/v1/keys/[redacted]/models: 404"),
        ("https://gw/v1/api-key/0f3a9c12.", "https://gw/v1/api-key/[redacted]."),
        ("https://gw/0f3a9c1277de4b10a2b3c4d5e6f70819/v1", "https://gw/[redacted]/v1"),
        ("https://gw/hunter2hunter2/v1", "https://gw/[redacted]/v1"),
        ("https://bot/tok-x9k2m4q8w1z7r3t5y6u0/v1?a=1", "https://bot/[redacted]/v1?a=[redacted]"),
        (
            "exceeded with url: /a7Kd9XqL2mZv8RtY4wBs/chat/completions (Caused",
            "exceeded with url: /[redacted]/chat/completions (Caused",
        ),
        ("route pathkey2Pathkey1 is unknown", "route [redacted] is unknown"),
        *(
            (path, path)
            for path in (
                "https://gw/openai/deployments/gpt-4o-mini-2024-07-18-eastus2/chat/completions",
                "https://gw/accounts/0f3a9c1277de4b10a2b3c4d5e6f70819/ai/v1",
                "https://gw/functions/9f8b6a52-1c3d-4e5f-8a7b-0c1d2e3f4a5b/v1",
                "https://github.com/a/b/blob/89d09c43d4b2e5f6a7b8c9d0e1f2a3b4c5d6e7f8/kernels/x.cu",
                "https://gw/MyDeploymentForGpt4Turbo2024/v1 and https://gw/v1/tokens/generate/all",
                "https://gw/meta-llama/Llama-3.3-70B-Instruct-Turbo/llama3instruct70bchat0001",
                "https://gw/pools/a100-80gb-sxm4-x2-pool-us1/v1",
                "/root/.cache/inductor/ab/cq2n3kf5xa7d9k2m4q8w1z7r3t5y6u0.py",
                "https://gw/results/20260107123456789012345/job_20241022T101500Z_17",
            )
        ),
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
        "GATEWAY_URL": "https://gw/token/pathkey2Pathkey1/openai",
    }
    assert redact(text, environ) == expected


def test_random_parts_of_a_path_are_nearly_all_blacked_out() -> None:
    """Of keys in one case of letters, and in digits, it is four in five: more of these look like words."""
    rng = random.Random(20261130)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    for alphabet, least in ((letters, 970), (f"{letters}-_", 970), ("0123456789abcdef", 1000)):
        keys = ["".join(rng.choices(alphabet, k=32)) for _ in range(1000)]
        hidden = sum(redact(f"https://gw/{key}/v1", {}) == "https://gw/[redacted]/v1" for key in keys)
        assert hidden >= least, alphabet


@pytest.mark.parametrize("kind", [UserError, InfraError])
def test_no_error_that_is_told_holds_a_secret(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "hunter2hunter2")
    error = pickle.loads(pickle.dumps(kind("no server at http://u:pw@h/v1?key=S3cret for hunter2hunter2")))
    assert str(error) == "no server at http://[redacted]@h/v1?key=[redacted] for [redacted]"
