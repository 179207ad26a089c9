from __future__ import annotations

import pytest

from kbopt.backends.modal_account import GPU_NAMES
from kbopt.backends.modal_prices import load_prices
from kbopt.core.errors import UserError


def test_the_shipped_table_prices_every_gpu():
    assert set(GPU_NAMES) == set(load_prices().gpu)


def test_a_container_costs_its_gpu_its_cores_and_its_memory(tmp_path, monkeypatch):
    table = tmp_path / "prices.toml"
    table.write_text("cpu_core = 0.25\nmemory_gib = 0.5\n[gpu]\nL4 = 2\n")
    monkeypatch.setenv("KBOPT_MODAL_PRICES", str(table))
    assert load_prices().usd_per_second("L4", num_cores=4, memory_gib=6) == 6.0


def test_a_gpu_without_a_price_names_the_file_to_copy(tmp_path, monkeypatch):
    table = tmp_path / "prices.toml"
    table.write_text("cpu_core = 0.25\nmemory_gib = 0.5\n[gpu]\n")
    monkeypatch.setenv("KBOPT_MODAL_PRICES", str(table))
    with pytest.raises(UserError, match=r"has no B200; add it under \[gpu\].*modal_prices\.toml"):
        load_prices().usd_per_second("B200", num_cores=1, memory_gib=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cpu_core = 'cheap'\nmemory_gib = 1\n[gpu]\n",
        "cpu_core = nan\nmemory_gib = 1\n[gpu]\n",
        "cpu_core = 1\nmemory_gib = 1\n[gpu]\nL4 = inf\n",
        "cpu_core = -1\nmemory_gib = 1\n[gpu]\n",
        "[gpu",
        None,
    ],
)
def test_a_file_that_is_no_price_table_is_named(tmp_path, monkeypatch, text):
    table = tmp_path / "prices.toml"
    if text is not None:
        table.write_text(text)
    monkeypatch.setenv("KBOPT_MODAL_PRICES", str(table))
    with pytest.raises(UserError, match=r"prices\.toml is no price table"):
        load_prices()
