"""Modules of one solution become one text that does what Python would have done with them."""

from typing import Any

import pytest

from kbopt.core.errors import UserError
from kbopt.tasks.formats.modules import joined


def run(entry: str, **texts: str) -> Any:
    """What `answer` is in the module `entry`; a double underscore in a name stands for the dot."""
    names: dict[str, Any] = {}
    exec(joined({name.replace("__", "."): text for name, text in texts.items()}, entry, "s.json"), names)
    return names["answer"]


def test_a_package_imports_from_its_own_folder() -> None:
    assert (
        run(
            "main",
            main="from pkg import double\nanswer = double(21)",
            pkg="from .deep import double\n",
            pkg__deep="from . import scale\ndef double(x): return scale.factor() * x\n",
            pkg__scale="def factor(): return 2\n",
        )
        == 42
    )


@pytest.mark.parametrize("main", ["from pkg import double, scale", "from pkg import double"])
def test_a_package_has_modules_of_its_own_folder(main: str) -> None:
    assert (
        run(
            "main",
            main=f"{main}\nanswer = double(21)",
            pkg="from . import scale\ndef double(x): return scale.factor() * x\n",
            pkg__scale="def factor(): return 2\n",
        )
        == 42
    )


@pytest.mark.parametrize(
    "main",
    [
        "import pkg.one\nimport pkg.two\nanswer = pkg.one.f() + pkg.two.g()",
        "import pkg.two, pkg.one\nanswer = pkg.one.f() + pkg.two.g()",
        "import pkg.one as first\nimport pkg.two\nanswer = first.f() + pkg.two.g()",
        "def all():\n    import pkg.one, pkg.two\n    return pkg.one.f() + pkg.two.g()\nanswer = all()",
    ],
)
def test_a_module_is_reached_by_its_whole_name(main: str) -> None:
    assert run("main", main=main, pkg__one="def f(): return 40\n", pkg__two="def g(): return 2\n") == 42


def test_a_package_and_a_module_of_it_are_both_there() -> None:
    main = "import pkg\nimport pkg.one\nanswer = pkg.base() + pkg.one.f()"
    assert run("main", main=main, pkg="def base(): return 40\n", pkg__one="def f(): return 2\n") == 42


@pytest.mark.parametrize("main", ["from pkg import f, one", "import pkg.one, pkg"])
def test_a_package_that_does_not_parse_is_named(main: str) -> None:
    with pytest.raises(UserError, match=r"s\.json, pkg: "):
        run("main", main=main, pkg="def f(:\n", pkg__one="def f(): return 1\n")
