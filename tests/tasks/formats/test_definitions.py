"""Definitions with workloads, of SOL-ExecBench and FlashInfer-Bench: sizes, dtypes, inputs and faults."""

import copy
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from kbopt.core.errors import UserError
from kbopt.tasks import list_formats, load_task, precision_of
from tests.support import formats
from tests.tasks.formats.test_formats import answer, run


def changed(base: Any, *path: Any, to: Any = ...) -> Any:
    """A copy of the JSON with one field set, or deleted."""
    whole = copy.deepcopy(base)
    part = whole
    for key in path[:-1]:
        part = part[key]
    if to is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = to
    return whole


def one_input(dtype: str, shape: list[str] | None, *, reference: str = "x", **others: Any) -> Any:
    """A definition with one input `x`, of which its reference gives back an expression."""
    return {
        "name": "one",
        "axes": {"n": {"type": "var"}},
        "inputs": {"x": {"shape": shape, "dtype": dtype}},
        "outputs": {"y": {"shape": ["n"], "dtype": "float32"}},
        "reference": f"import torch\ndef run(x):\n    return {reference}\n",
        **others,
    }


def line(n: int, **inputs: Any) -> Any:
    return {"uuid": f"n{n}", "axes": {"n": n}, "inputs": inputs}


@pytest.mark.parametrize(
    ("expression", "size"),
    [
        ("batch * 2", 64),
        ("(batch + 1) // 2", 16),
        ("batch / 4", 8),
        ("2 ** 3 - batch % 5", 6),
        ("width", 64),
        ("double + 1", 129),
        ("+7", 7),
        ("3 * 1.0", 3),
    ],
)
def test_an_axis_may_be_an_expression_of_others(expression: str, size: int, tmp_path: Path) -> None:
    definition = changed(formats.NORM, "axes", "first", to={"type": "expr", "expression": expression})
    definition["inputs"]["x"]["shape"] = ["first", "double"]

    source = load_task(str(formats.write_sol(tmp_path, definition))).source

    assert answer(source).shape == (size, 128)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("rows * 2", r"'rows' has no value; with a value: .*batch"),
        ("batch * ", r"'batch \* ' is no arithmetic expression"),
        ("batch / 5", r"'batch / 5' is 6\.4, and a size is a whole number"),
        ("batch - 33", r"is -1, and a size"),
        ("batch // 0", r"division or modulo by zero|integer division"),
        ("9 ** 9 ** 9", r"the exponent 387420489 is not from 0 to 64"),
        ("9999 ** 64", r"grows beyond all sizes"),
        ("min(batch, 2)", r"'min\(batch, 2\)' is neither a number, a name"),
        ("first + 1", r"'first' has no value"),
        ("second", r"has no value"),
        ("__import__('os').getpid()", r"is neither a number, a name"),
        ("1 + " * 200 + "1", r"has 801 characters, and 500 are allowed"),
        ("True", r"is neither a number"),
    ],
)
def test_an_expression_that_has_no_size_is_named(expression: str, said: str, tmp_path: Path) -> None:
    definition = changed(formats.NORM, "axes", "first", to={"type": "expr", "expression": expression})
    definition["axes"]["second"] = {"type": "expr", "expression": "first"}

    with pytest.raises(UserError, match=rf"definition\.json, axes\.\w+\.expression: .*{said}"):
        load_task(str(formats.write_sol(tmp_path, definition)))


@pytest.mark.parametrize("field", ["name", "axes", "inputs", "outputs", "reference"])
def test_a_missing_field_of_a_definition_is_named(field: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"definition\.json, {field}: this field is missing\. Add it"):
        load_task(str(formats.write_sol(tmp_path, changed(formats.NORM, field))))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("axes", "batch"), 7, r"axes, batch: 7, and it is an object"),
        (("axes", "batch", "type"), "free", r"axes\.batch\.type: 'free'\. Allowed: const, var, expr"),
        (("axes", "width", "value"), "64", r'axes\.width\.value: "64"\. A size is a whole number'),
        (("axes", "width", "value"), True, r"axes\.width\.value: true"),
        (("axes", "width", "value"), 1e3, r"axes\.width\.value: 1000\.0"),
        (("inputs", "x", "dtype"), "float31", r"inputs\.x\.dtype: 'float31'\. Allowed: float64, float32"),
        (("inputs", "x", "dtype"), ["a"], r"inputs\.x\.dtype: \['a'\]\. Allowed"),
        (("outputs", "y", "dtype"), None, r"outputs\.y\.dtype: None\. Allowed"),
        (("inputs", "x", "shape"), "batch", r'inputs\.x\.shape: "batch"\. A list of axes, or null'),
        (("inputs", "x", "shape"), ["rows"], r"inputs\.x\.shape: 'rows' has no value"),
        (("inputs",), {}, r"inputs and outputs: one of them is empty"),
        (("reference",), "def run(x:\n", r"reference: no Python source, line 1"),
        (("reference",), "def ran(x):\n    return x\n", r"reference: it defines no function run"),
        (
            ("reference",),
            "def run(x):\n    return x\n",
            r"reference: run takes 1 arguments, and there are 3 inputs",
        ),
        (("custom_inputs_entrypoint",), "make", r"custom_inputs_entrypoint: reference defines no 'make'"),
        (("custom_inputs_entrypoint",), ["run"], r'custom_inputs_entrypoint: \["run"\], and it is a string'),
        (("axes", "width"), {"value": 64}, r"axes\.width\.type: this field is missing\. Allowed: const"),
        (("inputs", "x"), {"shape": []}, r"inputs\.x\.dtype: this field is missing\. Allowed: float64"),
        (("reference",), "\0", r"reference: no Python source, source code string cannot contain null"),
    ],
)
def test_a_wrong_field_of_a_definition_is_named(path: Any, value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"definition\.json, {said}"):
        load_task(str(formats.write_sol(tmp_path, changed(formats.NORM, *path, to=value))))


def test_a_shape_that_is_missing_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"inputs\.x\.shape: this field is missing"):
        load_task(str(formats.write_sol(tmp_path, changed(formats.NORM, "inputs", "x", "shape"))))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"uuid": "u", "inputs": {}}, r"workload\.jsonl:2, axes: this field is missing"),
        (
            {"uuid": "u", "axes": {"batch": 4}, "inputs": []},
            r"workload\.jsonl:2, inputs: \[\], and it is an obj",
        ),
        ("text", r"workload\.jsonl:2: .*one line with one JSON object"),
        ({"workload": None}, r"workload\.jsonl:2, workload: null\. It is an object"),
        ({"uuid": ["u"], "axes": {"batch": 4}}, r'workload\.jsonl:2, uuid: \["u"\]\. It is a string'),
    ],
)
def test_a_line_in_the_middle_that_is_no_workload_is_named(entry: Any, said: str, tmp_path: Path) -> None:
    lines = [formats.workload("a", 2), entry, formats.workload("b", 3)]

    with pytest.raises(UserError, match=said):
        load_task(str(formats.write_sol(tmp_path, workloads=lines)))


def test_a_torn_line_in_the_middle_is_named(tmp_path: Path) -> None:
    folder = formats.write_sol(tmp_path)
    first, second = (folder / "workload.jsonl").read_text().splitlines()
    (folder / "workload.jsonl").write_text(f"{first}\n\n{second[:30]}\n{second}\n")

    with pytest.raises(UserError, match=r"workload\.jsonl:3: no JSON"):
        list_formats(str(folder))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"axes": {}, "inputs": {}}, r"axes\.batch: this axis has no size\. Add a whole number"),
        ({"axes": {"batch": "4"}, "inputs": {}}, r'axes\.batch: "4"\. A size is a whole number'),
        ({"axes": {"batch": -1}, "inputs": {}}, r"axes\.batch: -1\. A size is a whole number"),
        ({"axes": {"batch": 1, "rows": 2}, "inputs": {}}, r"axes\.rows: .*has no such axis\. It has batch"),
        ({"axes": {"batch": 1, "width": 65}, "inputs": {}}, r"axes\.width: 65, and .* says 64"),
        ({"axes": {"batch": 1}, "inputs": {"z": {"type": "random"}}}, r"inputs\.z: .*no such input"),
        ({"axes": {"batch": 1}, "inputs": {"x": {"type": "made"}}}, r"inputs\.x\.type: 'made'\. Allowed"),
        ({"axes": {"batch": 1}, "inputs": {"x": "random"}}, r'inputs\.x: "random"\. It is an object'),
        (
            {"axes": {"batch": 1}, "inputs": {"x": {"type": "scalar", "value": 1}}},
            r"inputs\.x: 1 for float32",
        ),
        ({"axes": {"batch": 1}, "inputs": {"eps": {"type": "scalar"}}}, r'inputs\.eps: "no value" for'),
        (
            {"axes": {"batch": 1}, "inputs": {"eps": {"type": "scalar", "value": math.inf}}},
            r"inputs\.eps: Infinity for",
        ),
        (
            {"axes": {"batch": 1}, "inputs": {"eps": {"type": "scalar", "value": 10**400}}},
            r"inputs\.eps: 1000",
        ),
        (
            {"axes": {"batch": 1}, "inputs": {"x": {"type": "custom"}}},
            r"inputs\.x: custom, and the definition",
        ),
        (
            {"axes": {"batch": 1}, "inputs": {"x": {"type": "safetensors"}}},
            r"inputs\.x\.path: this field is missing\. It is the path of a safetensors file",
        ),
    ],
)
def test_a_workload_that_disagrees_leaves_the_others_alone(entry: Any, said: str, tmp_path: Path) -> None:
    path = str(formats.write_sol(tmp_path, workloads=[{"uuid": "odd", **entry}, formats.workload("b", 3)]))

    with pytest.raises(UserError, match=rf"workload\.jsonl:1, {said}"):
        load_task(path)
    odd, good = list_formats(path)
    assert "workload.jsonl:1, " in odd.title
    assert good.title.startswith("Scales rows")
    assert answer(load_task(f"{path}#b").source).shape == (3, 128)


def test_two_workloads_of_one_uuid_are_refused_where_they_differ(tmp_path: Path) -> None:
    same, other = formats.workload("a", 2), formats.workload("a", 3)

    assert len(list_formats(str(formats.write_sol(tmp_path, workloads=[same, same])))) == 1
    with pytest.raises(UserError, match=r"workload\.jsonl:2: its uuid a is that of .*jsonl:1, which differs"):
        list_formats(str(formats.write_sol(tmp_path, workloads=[same, other])))


def test_no_workload_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"workload\.jsonl: no workload\. Add one of scaled_norm"):
        load_task(str(formats.write_sol(tmp_path, workloads=[])))


def test_a_huge_file_of_workloads_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = formats.write_sol(tmp_path)
    with (folder / "workload.jsonl").open("r+b") as file:
        file.truncate(65 * 2**20)

    with pytest.raises(UserError, match=r"workload\.jsonl: 65 MiB, and kbopt reads up to 64 MiB"):
        load_task(str(folder))


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int64", -1024, 1023), ("int32", -1024, 1023), ("int8", -128, 127), ("uint8", 0, 255), ("bool", 0, 1)],
)
def test_integers_are_drawn_over_the_range_of_their_dtype(
    dtype: str, low: int, high: int, tmp_path: Path
) -> None:
    path = str(formats.write_sol(tmp_path, one_input(dtype, ["n"]), [line(50_000)]))

    drawn = answer(load_task(path).source)

    assert drawn.dtype == getattr(torch, dtype)
    assert (int(drawn.min()), int(drawn.max())) == (low, high)


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
)
@pytest.mark.parametrize("other", ["float32", "bfloat16"])
def test_a_reference_gets_its_dtypes_at_the_precision_that_is_judged(
    dtype: str, other: str, tmp_path: Path
) -> None:
    """Whatever the evaluator casts floats to, which is the precision that the task states."""
    definition = one_input(dtype, ["n"], reference="x")
    definition["inputs"]["w"] = {"shape": ["n"], "dtype": other}
    definition["reference"] = "import torch\ndef run(x, w):\n    return x, w\n"
    definition["outputs"]["z"] = {"shape": ["n"], "dtype": "float32"}
    source = load_task(str(formats.write_sol(tmp_path, definition, [line(64)]))).source
    module = run(source)
    judged = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[
        precision_of(source) or ""
    ]

    cast = [one.to(judged) if one.is_floating_point() else one for one in module.get_inputs()]
    x, w = module.Model()(*cast)

    assert (x.dtype, w.dtype) == (getattr(torch, dtype), getattr(torch, other))
    assert x.float().abs().max() > 1.0
    assert w.float().abs().max() > 1.0


def test_values_of_four_bits_lie_two_to_a_byte(tmp_path: Path) -> None:
    definition = one_input("float4_e2m1fn_x2", ["n", "6"], reference="x")
    source = load_task(str(formats.write_sol(tmp_path, definition, [line(4)]))).source

    assert [(one.shape, one.dtype) for one in run(source).get_inputs()] == [((4, 3), torch.uint8)]
    with pytest.raises(UserError, match=r"float4 lies two to a byte"):
        load_task(str(formats.write_sol(tmp_path, one_input("float4_e2m1", ["n"]), [line(3)])))


def test_a_number_is_given_as_it_stands_or_drawn_once(tmp_path: Path) -> None:
    definition = one_input("float32", None, reference="torch.tensor([float(x)])")
    path = str(formats.write_sol(tmp_path, definition, [line(1, x=formats.EPS), line(2)]))

    assert answer(load_task(path).source).item() == pytest.approx(1e-5)
    drawn = load_task(f"{path}#n2").source
    assert answer(drawn, 1) == answer(drawn, 2) != 0


@pytest.mark.parametrize(
    "name",
    ["make", "get_inputs", "get_init_inputs", "get_workloads", "Model", "drawn", "_stored", "reference_run"],
)
def test_custom_inputs_come_from_the_definitions_own_function(name: str, tmp_path: Path) -> None:
    definition = one_input("float32", ["n"], custom_inputs_entrypoint=name)
    definition["reference"] += (
        f"def {name}(sizes, device):\n    return {{'x': torch.arange(sizes['n'], device=device) + 0.5}}\n"
    )
    path = str(formats.write_sol(tmp_path, definition, [line(5, x={"type": "custom"})]))

    drawn = answer(load_task(path).source)

    assert torch.equal(drawn.floor(), torch.arange(5.0))


def test_the_definitions_own_function_gets_and_draws_more_than_the_definition_names(tmp_path: Path) -> None:
    """Two problems of SOL-ExecBench have a size that is no axis, or a drawn tensor that is no input."""
    definition = one_input("float32", ["n"], custom_inputs_entrypoint="make")
    definition["reference"] += (
        "def make(sizes, device):\n    return {'x': torch.ones(sizes['n']) * sizes['flag'], 'bias': 1}\n"
    )
    custom = {"type": "custom"}
    lines = [{"axes": {"n": 5, "flag": 3}, "inputs": {"x": custom, "bias": custom}}]
    path = formats.write_sol(tmp_path, definition, lines)

    assert torch.equal(answer(load_task(str(path)).source), torch.full((5,), 3.0))


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("rstd", lambda x: bool((x > 0).all())),
        ("text_mask", lambda x: set(x.unique().tolist()) == {0.0, 1.0}),
        ("attn_weights", lambda x: torch.allclose(x.sum(-1), torch.ones(48))),
        ("input_layernorm_weight", lambda x: 0.5 < float(x.min()) < float(x.max()) < 1.5),
        ("q_proj", lambda x: float(x.abs().max()) < 1.5),
        ("causal_mask", lambda x: float(x.tril().abs().max()) == 0.0 and float(x.max()) <= 0.0),
        ("A_log", lambda x: float(x.max()) <= -1.0),
        ("cos", lambda x: float(x.abs().max()) <= 1.0),
        ("hidden", lambda x: float(x.max()) > 2.0),
    ],
)
def test_names_tell_what_values_inputs_of_sol_execbench_can_have(
    name: str, holds: Any, tmp_path: Path
) -> None:
    definition = one_input("float32", ["n", "n"])
    definition["inputs"] = {name: definition["inputs"]["x"]}
    path = str(formats.write_sol(tmp_path, definition, [line(48)]))

    assert holds(answer(load_task(path).source))


def test_a_sampling_operation_draws_probabilities(tmp_path: Path) -> None:
    definition = one_input("float32", ["n", "n"], op_type="sampling")
    definition["inputs"] = {"probs": definition["inputs"]["x"]}
    path = str(formats.write_sol(tmp_path, definition, [line(9)]))

    assert torch.allclose(answer(load_task(path).source).sum(-1), torch.ones(9))


def stored(path: str, key: str = "x") -> dict[str, str]:
    return {"type": "safetensors", "path": path, "tensor_key": key}


def test_a_stored_input_travels_in_the_source(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    formats.safetensors(tmp_path / "data" / "one.safetensors", "I32", [3], struct.pack("<3i", 7, -1, 5))
    workloads = [line(3, x=stored("some/where/data/one.safetensors"))]
    folder = formats.write_sol(tmp_path / "task", one_input("int32", ["n"]), workloads)

    source = load_task(str(folder)).source
    (tmp_path / "data" / "one.safetensors").unlink()

    assert answer(source).tolist() == [7, -1, 5]


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "key", "said"),
    [
        ("I32", [3], 12, "z", r"no tensor 'z'; it has x"),
        ("I64", [3], 24, "x", r"int64 of \[3\], and the definition says int32 of \[3\]"),
        ("I32", [4], 16, "x", r"int32 of \[4\], and the definition says int32 of \[3\]"),
        ("I32", [3], 8, "x", r"the file ends before 'x' does"),
        ("Q3", [3], 12, "x", r"its header cannot be read"),
    ],
)
def test_a_stored_input_that_does_not_fit_is_named(
    dtype: str, shape: list[int], size: int, key: str, said: str, tmp_path: Path
) -> None:
    formats.safetensors(tmp_path / "one.safetensors", dtype, shape, bytes(size))
    workloads = [line(3, x=stored("one.safetensors", key))]

    with pytest.raises(UserError, match=rf"one\.safetensors.*{said}"):
        load_task(str(formats.write_sol(tmp_path, one_input("int32", ["n"]), workloads)))


@pytest.mark.parametrize(
    "data", [b"", b"version https://git-lfs.github.com/spec/v1\noid", b"\x05" + bytes(20)]
)
def test_a_file_that_is_no_safetensors_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(data)
    folder = formats.write_sol(tmp_path, one_input("int32", ["n"]), [line(3, x=stored("one.safetensors"))])

    with pytest.raises(UserError, match=r"one\.safetensors: no safetensors file.*git lfs pull"):
        load_task(str(folder))


def test_a_stored_input_that_is_not_there_is_named_and_the_others_are_listed(tmp_path: Path) -> None:
    workloads = [line(3, x=stored("blob/gone.safetensors")), line(4)]
    path = str(formats.write_sol(tmp_path, one_input("int32", ["n"]), workloads))

    with pytest.raises(UserError, match=r"jsonl:1, inputs\.x\.path: no file blob/gone\.safetensors under"):
        load_task(path)
    assert [row.name for row in list_formats(path)] == [f"{path}#n3", f"{path}#n4"]
    assert answer(load_task(f"{path}#n4").source).shape == (4,)


def test_a_stored_input_too_large_for_a_source_is_refused(tmp_path: Path) -> None:
    size = 400_000
    data = torch.randint(0, 2**31 - 1, (size,), dtype=torch.int32).numpy().tobytes()
    formats.safetensors(tmp_path / "one.safetensors", "I32", [size], data)
    workloads = [line(size, x=stored("one.safetensors"))]

    with pytest.raises(
        UserError, match=r"one\.safetensors, x: \d+ KiB as text, and a task's source carries 512"
    ):
        load_task(str(formats.write_sol(tmp_path, one_input("int32", ["n"]), workloads)))


def test_several_outputs_are_a_tuple_in_the_order_of_the_definition(tmp_path: Path) -> None:
    definition = one_input("float32", ["n"], reference="{'z': x + 1, 'y': x}")
    definition["outputs"]["z"] = definition["outputs"]["y"]

    y, z = answer(load_task(str(formats.write_sol(tmp_path, definition, [line(4)]))).source)

    assert torch.allclose(y + 1, z)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("x", r"outputs returned: 1, and the definition has \('y', 'z'\)"),
        ("(x, x, x)", r"outputs returned: 3, and the definition has \('y', 'z'\)"),
        ("{'y': x}", r"outputs returned: \['y'\], and the definition has \('y', 'z'\)"),
    ],
)
def test_a_reference_that_returns_other_outputs_than_its_definition_is_told(
    returned: str, said: str, tmp_path: Path
) -> None:
    outputs = {"y": formats.NORM["outputs"]["y"], "z": formats.NORM["outputs"]["y"]}
    reference = f"def run(x, norm_weight, eps):\n    return {returned}\n"
    definition = {**formats.NORM, "outputs": outputs, "reference": reference}

    with pytest.raises(ValueError, match=said):
        answer(load_task(str(formats.write_sol(tmp_path, definition))).source)


def test_a_reference_with_names_of_kernelbenchs_format_keeps_its_own(tmp_path: Path) -> None:
    definition = one_input("float32", ["n"])
    definition["reference"] = (
        '"""A model."""\nfrom __future__ import annotations\nimport torch\n'
        "class Model:\n    def __call__(self, x: Model) -> int:\n        return x * 0 + 3\n"
        "def get_inputs(): return 5\n"
        "def run(x):\n    return Model()(x) + get_inputs()\n"
    )

    source = load_task(str(formats.write_sol(tmp_path, definition, [line(2)]))).source

    assert answer(source).tolist() == [8.0, 8.0]


def test_a_data_set_of_several_definitions_lists_all_and_asks_for_one(tmp_path: Path) -> None:
    other = changed(formats.PRODUCT, "name", to="product_other")
    formats.write_traces(formats.write_traces(tmp_path), other, rows=(3,))

    rows = list_formats(str(tmp_path))

    folder = f"{tmp_path}/definitions/gemm"
    assert [row.name for row in rows] == [
        f"{folder}/product_n24_k16.json#product_n24_k16-40",
        f"{folder}/product_n24_k16.json#product_n24_k16-8",
        f"{folder}/product_other.json#product_other-3",
    ]
    assert answer(load_task(f"{folder}/product_other.json").source).shape == (3, 24)
    with pytest.raises(
        UserError, match=r"is a folder of 2 definitions\. Name one of them, such as .*n24_k16\.json"
    ):
        load_task(str(tmp_path))


def test_traces_name_workloads_where_there_are_no_others(tmp_path: Path) -> None:
    formats.write_traces(tmp_path)
    (tmp_path / "workloads").rename(tmp_path / "traces")

    assert len(list_formats(str(tmp_path))) == 2


def test_a_definition_that_is_torn_matters_where_it_has_workloads(tmp_path: Path) -> None:
    formats.write_traces(tmp_path)
    (tmp_path / "definitions" / "draft.json").write_text("{")

    assert len(list_formats(str(tmp_path))) == 2
    (tmp_path / "definitions/gemm/product_n24_k16.json").write_text("{")
    with pytest.raises(UserError, match=r"product_n24_k16\.json: no JSON"):
        list_formats(str(tmp_path))


def test_traces_of_several_definitions_may_lie_in_one_file(tmp_path: Path) -> None:
    other = changed(formats.PRODUCT, "name", to="product_other")
    formats.write_traces(formats.write_traces(tmp_path), other, rows=(3,))
    folder = tmp_path / "workloads" / "gemm"
    texts = [path.read_text() for path in sorted(folder.iterdir())]
    for path in list(folder.iterdir()):
        path.unlink()
    (folder / "all.jsonl").write_text("".join(texts))

    assert [row.name.partition("#")[2] for row in list_formats(str(tmp_path))] == [
        "product_n24_k16-40",
        "product_n24_k16-8",
        "product_other-3",
    ]


def test_a_definition_outside_a_data_set_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "alone.json").write_text(json.dumps(formats.PRODUCT))

    with pytest.raises(UserError, match=r"alone\.json: a definition in no folder `definitions`"):
        load_task(str(tmp_path / "alone.json"))


def test_a_definition_without_workloads_is_named(tmp_path: Path) -> None:
    formats.write_traces(tmp_path)
    (tmp_path / "workloads/gemm/product_n24_k16.jsonl").unlink()

    with pytest.raises(UserError, match=r"1 definitions, and no workloads of theirs"):
        load_task(str(tmp_path))
    with pytest.raises(
        UserError, match=r"k16\.json: no file in workloads or traces of .* is for product_n24_k16"
    ):
        load_task(f"{tmp_path}/definitions/gemm/product_n24_k16.json")
