"""KernelBench-Hard: shapes stand for variables of the reference, and neither file is run."""

from pathlib import Path

import pytest
import torch

from kbopt.core.errors import UserError
from kbopt.tasks import list_formats, load_task, precision_of
from tests.support import formats
from tests.tasks.formats.test_formats import answer, run


def test_a_shape_stands_for_variables_by_name_or_in_capitals(tmp_path: Path) -> None:
    path = str(formats.write_hard(tmp_path))

    module = run(load_task(f"{path}#shape1").source)

    assert (module.BATCH, module.rows, module.columns) == (3, 5, 12)
    assert module.get_init_inputs() == [5, 12]
    assert list_formats(path)[0].title.endswith("; batch=64 rows=32 columns=48; fp32")


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ("SIZES = []\n", r"shapes\.py, SHAPES: it is not defined\. It is a list of dicts"),
        ("SHAPES = []\n", r"shapes\.py:1, SHAPES: no list with shapes in it"),
        ("SHAPES = [{'batch': n} for n in range(3)]\n", r"shapes\.py:1, SHAPES: no list with shapes in it"),
        ("SHAPES = [{'batch': 2}, 7]\n", r"SHAPES\[1\] in line 1: '7'"),
        ("SHAPES = [{1: 2}]\n", r"SHAPES\[0\]: a key that is no string"),
        ("SHAPES = [{**{'batch': 2}}]\n", r"SHAPES\[0\]: a key that is no string"),
        ("SHAPES = [{'batch': len('ab')}]\n", r"SHAPES\[0\]\['batch'\]: .*Write the number there"),
        ("SHAPES = [{'batch': WIDE}]\n", r"SHAPES\[0\]\['batch'\]: 'WIDE' has no value"),
        ("SHAPES = [{'batch': {[]: 2}}]\n", r"SHAPES\[0\]\['batch'\]: .*is neither a number, a name"),
        ("SHAPES = [{'batch': 1e999}]\n", r"SHAPES\[0\]\['batch'\]: '1e309' is no plain value"),
        ("TEXT = 'ab'\nSHAPES = [{'batch': TEXT * 2}]\n", r"'TEXT \* 2' computes with what is no number"),
        ("SHAPES = [{'Model': 2}]\n", r"SHAPES\[0\]\['Model'\]: .*no variable Model"),
        ("SHAPES = [{'torch': 2}]\n", r"SHAPES\[0\]\['torch'\]: .*no variable torch"),
        ("SHAPES = [\n", r"shapes\.py: no Python source, line 1"),
        (
            "SHAPES = [{'batch': 2, 'extreme': True}]\n",
            r"SHAPES\[0\]\['extreme'\]: .*no variable extreme or EXT",
        ),
    ],
)
def test_shapes_that_cannot_be_resolved_are_named(shapes: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        load_task(str(formats.write_hard(tmp_path, shapes=shapes)))


def test_neither_file_is_run(tmp_path: Path) -> None:
    guard = "\nraise SystemExit('run')\n"
    folder = formats.write_hard(
        tmp_path, formats.HARD_REFERENCE + guard, "raise SystemExit('run')\n" + formats.HARD_SHAPES
    )

    assert load_task(str(folder)).source.count("raise SystemExit") == 1


def test_a_reference_of_another_form_is_named(tmp_path: Path) -> None:
    folder = formats.write_hard(tmp_path, formats.HARD_REFERENCE.replace("get_inputs", "make_inputs"))

    with pytest.raises(UserError, match=r"reference\.py defines no get_inputs"):
        load_task(str(folder))


def test_a_file_shapes_py_of_ones_own_stays_a_task_in_kernelbenchs_format(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text(formats.HARD_REFERENCE)

    assert answer(load_task(str(tmp_path / "shapes.py")).source).shape == (4, 8)


def test_inputs_of_other_floats_reach_the_model_as_what_they_are(tmp_path: Path) -> None:
    reference = (
        formats.HARD_REFERENCE.replace('["fp32"]', '["fp8_e4m3"]')
        .replace(
            "torch.randn(BATCH, rows)", "torch.randn(BATCH, rows).to(torch.float8_e4m3fn), torch.ones(1)"
        )
        .replace("forward(self, x):", "forward(self, x, one):\n        assert one.dtype == torch.float32")
        .replace("x @", "x.to(torch.bfloat16) @")
    )
    source = load_task(str(formats.write_hard(tmp_path, reference))).source
    module = run(source)

    x, one = module.get_inputs()

    assert precision_of(source) == "bf16"
    assert (x["bits"].dtype, x["dtype"]) == (torch.uint8, "float8_e4m3fn")
    assert (one["bits"].dtype, one["dtype"]) == (torch.int32, "float32")
    assert module.Model(32, 48).to(torch.bfloat16)(x, one).shape == (64, 48)
