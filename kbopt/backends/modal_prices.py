"""The price of a container per second, from a table that the user can replace."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from kbopt.core.errors import UserError

SHIPPED_TABLE = Path(__file__).with_name("modal_prices.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices in US dollars per second: of each GPU type, of a CPU core and of a GiB of memory."""

    gpu: dict[str, float]
    cpu_core: float
    memory_gib: float

    def usd_per_second(self, gpu: str, *, num_cores: float, memory_gib: float) -> float:
        """Return the price of one running container. Raises UserError for a GPU that is not in the table."""
        if gpu not in self.gpu:
            raise UserError(
                f"the price table has no {gpu}; add it under [gpu] in a copy of {SHIPPED_TABLE} and set "
                "KBOPT_MODAL_PRICES to that copy"
            )
        return self.gpu[gpu] + num_cores * self.cpu_core + memory_gib * self.memory_gib


def load_prices() -> Prices:
    """Read the table in the file that KBOPT_MODAL_PRICES names, or else kbopt's own. Raises UserError."""
    path = Path(os.environ.get("KBOPT_MODAL_PRICES", SHIPPED_TABLE))
    try:
        table = tomllib.loads(path.read_text())
        return Prices(
            gpu={str(name): _price(usd) for name, usd in table["gpu"].items()},
            cpu_core=_price(table["cpu_core"]),
            memory_gib=_price(table["memory_gib"]),
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no price table ({error!r}); it needs the numbers cpu_core and memory_gib and a table "
            f"[gpu], as in {SHIPPED_TABLE}; or unset KBOPT_MODAL_PRICES"
        ) from None


def _price(value: object) -> float:
    usd = float(value)  # type: ignore[arg-type]
    if not 0 <= usd < math.inf:
        raise ValueError(f"{usd} is no price")
    return usd
