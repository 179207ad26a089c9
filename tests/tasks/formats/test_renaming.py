"""Names of a reference or kernel that are also those of what is added to it."""

import json
from pathlib import Path

import pytest
import torch

from kbopt.tasks import load_task
from kbopt.tasks.candidates import as_model, missing
from kbopt.tasks.formats.renaming import renamed
from tests.support import formats
from tests.tasks.formats.test_definitions import line, one_input
from tests.tasks.formats.test_formats import answer, run

TEXT = '''
from a import run as r, run
é = "ü"; run = run(é)  # run
class H:
    """run"""
    def run(self, run=run, *, f=lambda: run):
        return self.run(run=run)
    def g(self):
        return run(1)
@deco(run)
async def f(x: run, **k) -> run:
    global run, other
    return [run for run in x] + [run(y) for y in x]
def run(x):
    def inner(): return run(x, run=1)
    return inner
def g():
    run = 1
    return lambda: run
h = lambda run: run
z = lambda x: run(x)
'''


def test_a_name_changes_where_it_is_the_modules_and_nowhere_else() -> None:
    # A method's own default is what the class calls so.
    assert renamed(TEXT, {"run": "own"}).split("\n") == [
        "",
        "from a import run as r, run as own",
        'é = "ü"; own = own(é)  # run',
        "class H:",
        '    """run"""',
        "    def run(self, run=run, *, f=lambda: own):",
        "        return self.run(run=run)",
        "    def g(self):",
        "        return own(1)",
        "@deco(own)",
        "async def f(x: own, **k) -> own:",
        "    global own, other",
        "    return [run for run in x] + [own(y) for y in x]",
        "def own(x):",
        "    def inner(): return own(x, run=1)",
        "    return inner",
        "def g():",
        "    run = 1",
        "    return lambda: run",
        "h = lambda run: run",
        "z = lambda x: own(x)",
        "",
    ]


@pytest.mark.parametrize("quotes", ["'", "'''"])
def test_a_name_in_an_f_string_changes_with_the_others(quotes: str) -> None:
    text = f"run = 3\nx = f{quotes}{{run + 1:0{{run}}d}} run{quotes} 'end'\n"

    assert run(renamed(text, {"run": "own"})).x == "004 runend"


@pytest.mark.parametrize(
    "reference",
    [
        "class H:\n    def run(self, v):\n        return v + 1\ndef run(x):\n    return H().run(x)\n",
        "class C:\n    run = 1\ndef run(x):\n    return x + C.run\n",
        "def reference_run(x):\n    return x + 1\ndef run(x):\n    return reference_run(x)\n",
        "def f(**k):\n    return k['run'] + 1\ndef run(x):\n    return f(run=x)\n",
        "def run(x):\n    from subprocess import run\n    return x + bool(run)\n",
        "def run(x, deep=1):\n    return x + float(f'{run(x, 0).numel() / 4}') if deep else x\n",
        "class G:\n    def get_inputs(self): return 1\ndef run(x):\n    return x + G().get_inputs()\n",
        "class Model:\n    pass\ndef run(x):\n    return x + dict(Model=1)['Model']\n",
        "try:\n    import lost\nexcept ImportError:\n    def drawn(x): return x + 1\n"
        "def run(x):\n    return drawn(x)\n",
        *(
            f"def {name}(a, b):\n    return a + b\ndef run(x):\n    return {name}(x, 1)\n"
            for name in ("_ordered_outputs", "_allocated_outputs", "_stored", "drawn")
        ),
    ],
)
def test_a_reference_may_use_the_names_of_what_is_added(reference: str, tmp_path: Path) -> None:
    definition = one_input("float32", ["n"]) | {"reference": f"import torch\n{reference}"}
    path = formats.write_sol(tmp_path, definition, [line(4), line(5)])

    for source in (load_task(f"{path}#n4").source, load_task(f"{path}#all").source):
        torch.manual_seed(0)
        given = run(source).get_inputs()[0]
        assert torch.equal(answer(source), given + 1)


@pytest.mark.parametrize(
    "reference",
    [
        "T = '''\nfrom __future__ import braces\n'''\nimport torch\ndef run(x): return x + 1\n",
        "from __future__ import (\n    annotations,\n)\ndef run(x: Lost): return x + 1\n",
        "def run(x):\n    '''\nimport torch\n'''\n    import torch\n    return torch.add(x, 1)\n",
        "from torch import *\ndef run(x): return add(x, 1)\n",
        "from __future__ import annotations; NIL = 0\nimport torch\ndef run(x): return NIL + x + 1\n",
    ],
)
def test_imports_are_what_python_takes_for_them(reference: str, tmp_path: Path) -> None:
    definition = one_input("float32", ["n"]) | {"reference": reference}
    source = load_task(str(formats.write_sol(tmp_path, definition, [line(4), line(5)]))).source

    assert torch.equal(answer(source), answer(source.replace("1)", "0)").replace("+ 1", "+ 0")) + 1)


def test_a_description_may_hold_anything(tmp_path: Path) -> None:
    definition = one_input("float32", ["n"], description='a\0b """\n\\')
    source = load_task(str(formats.write_sol(tmp_path, definition, [line(4)]))).source

    assert answer(source).shape == (4,)


@pytest.mark.parametrize("name", ["_ordered_outputs", "argument2", "_argument2", 'a"b', "a\nb"])
def test_an_input_may_be_called_anything(name: str, tmp_path: Path) -> None:
    tensor = {"shape": ["n"], "dtype": "float32"}
    definition = one_input("float32", ["n"], custom_inputs_entrypoint="make") | {
        "inputs": {"x": tensor, name: tensor, "self": tensor},
        "reference": f"import torch\ndef run(a, b, c):\n    return a + b + c\ndef make(sizes, device):\n"
        f"    return dict.fromkeys(['x', {name!r}, 'self'], torch.ones(sizes['n']))\n",
    }
    custom = {key: {"type": "custom"} for key in ("x", name, "self")}
    path = formats.write_sol(tmp_path, definition, [line(4, **custom)])

    assert torch.equal(answer(load_task(str(path)).source), torch.full((4,), 3.0))


def test_a_reference_of_gpu_mode_may_hide_builtins(tmp_path: Path) -> None:
    hides = "def int(value):\n    raise ValueError(value)\n"
    reference = formats.MODE_REFERENCE.replace("import torch\n", f"import torch\n{hides}", 1)
    source = load_task(str(formats.write_mode(tmp_path / "one", reference))).source

    assert answer(source).shape == (128, 128)


@pytest.mark.parametrize("name", ["ModelNew", "_ordered_outputs", "_allocated_outputs", "_written_outputs"])
@pytest.mark.parametrize("writes", [False, True])
def test_a_solution_may_use_the_names_of_what_is_added(name: str, *, writes: bool, tmp_path: Path) -> None:
    task = load_task(str(formats.write_traces(tmp_path)))
    last, what = (", C", f"C.copy_({name}(A, B))") if writes else ("", f"return {name}(A, B)")
    text = f"def {name}(A, B): return A @ B.T\ndef run(A, B{last}): {what}\n"
    solution = formats.PRODUCT_SOLUTION | {
        "spec": {"entry_point": "main.py::run", "destination_passing_style": writes},
        "sources": [{"path": "main.py", "content": text}],
    }
    inputs = torch.ones(3, 16), torch.ones(24, 16)

    kernel = run(as_model(json.dumps(solution), "s.json", task)).ModelNew()

    assert torch.equal(kernel(*inputs), torch.full((3, 24), 16.0))


def test_a_kernel_may_define_its_model_where_an_import_fails(tmp_path: Path) -> None:
    task = load_task(str(formats.write_traces(tmp_path)))
    text = "try:\n    import lost\nexcept ImportError:\n    class ModelNew: pass\n"

    assert missing(text, "k.py", task) == ""


def test_an_input_may_be_called_as_the_kernel(tmp_path: Path) -> None:
    definition = one_input("float32", ["n"]) | {"inputs": {"run": {"shape": ["n"], "dtype": "float32"}}}
    task = load_task(str(formats.write_sol(tmp_path, definition, [line(4)])))

    kernel = run(as_model("def run(x): return x + 1\n", "s.py", task)).ModelNew()

    assert torch.equal(kernel(torch.ones(4)), torch.full((4,), 2.0))


def test_a_module_of_kernelbench_hard_may_have_a_function_forward(tmp_path: Path) -> None:
    reference = formats.HARD_REFERENCE.replace("fp32", "bf16").replace(
        "class Model", "def _forward(x): return torch.relu(x).to(torch.bfloat16)\n\n\nclass Model"
    )
    reference = reference.replace("torch.relu(x @ self.weight.T)", "_forward(x @ self.weight.T)")
    source = load_task(f"{formats.write_hard(tmp_path, reference)}#shape0").source

    assert answer(source.replace("torch.randn(BATCH, rows)", "torch.ones(BATCH, rows)")).shape == (64, 48)
