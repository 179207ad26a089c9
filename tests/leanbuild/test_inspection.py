"""Which lines of machine code count as a lower precision."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from kbopt.evaluation.build.building import Built
from kbopt.evaluation.build.inspection import arithmetic_of
from kbopt.evaluation.build.machine_code import _SASS, _instructions, _kind
from kbopt.evaluation.sandbox.children import Child, ForkServerHandle
from kbopt.evaluation.sandbox.confinement import SandboxConfig, scrubbed


def ptx(tmp_path: Path, body: str) -> list[str]:
    (tmp_path / "kernel.ptx").write_text(f".version 8.4\n.target sm_90a\n{body}\n")
    return [_kind(instruction) for _, instruction in _instructions(tmp_path)]


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("fma.rn.f32 %f1, %f2, %f3, %f4;", []),
        ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {..};", ["tf32"]),
        ("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {..};", ["half"]),
        ("cvt.rn.f16.f32 %h1, %f1;", ["half"]),
        ("cvt.f32.f16 %f1, %h1;", []),
    ],
)
def test_ptx_is_read_as_text(tmp_path: Path, body: str, kinds: list[str]) -> None:
    assert ptx(tmp_path, body) == kinds


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"FFMA R1, R2, R3, R4 ;", []),
        (b"HFMA2.MMA R5, -RZ, RZ, 0, 0 ;", []),  # How ptxas writes a zero.
        (b"HADD2.F32 R1, -RZ, R2.H0_H0 ;", []),  # How it widens a half.
        (b"HMMA.1688.F32.TF32 R4, R8, R10, R4 ;", [b"HMMA.1688.F32.TF32"]),
        (b"HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4] ;", [b"HGMMA.64x128x16.F32.BF16"]),
        (b"F2FP.BF16.F32.PACK_AB R1, R2, R3 ;", [b"F2FP.BF16.F32.PACK_AB"]),
        (b"F2F.F16.F32 R1, R2 ;", [b"F2F.F16.F32"]),
        (b"F2F.F64.F32 R2, R1 ;", []),
    ],
)
def test_sass_is_searched_for_matrix_instructions_and_roundings(line: bytes, found: list[bytes]) -> None:
    assert _SASS.findall(line) == found


def test_what_is_neither_ptx_nor_a_library_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
    (tmp_path / "link.ptx").symlink_to("/etc/passwd")
    assert list(_instructions(tmp_path)) == []


def test_the_name_of_a_candidates_file_is_no_command_to_a_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    folder.mkdir()
    (folder / "k\x1b[2J.ptx").write_text(".version 8.4\n.target sm_90a\ncvt.rn.f16.f32 %h1, %f1;\n")
    with closing(ForkServerHandle(tmp_path, os.environ)) as fork_server:

        def child(built: Built, role: str) -> Child:
            config = SandboxConfig(
                memory_bytes=2**33,
                address_space=False,
                environ=scrubbed(os.environ),
                scratch_fallback=str(tmp_path / "scratch"),
                serial=1,
                build=built.folder,
            )
            return Child(fork_server, role, config)

        found = arithmetic_of(child, Built(folder=str(folder), setup="", readable=()))
    assert found == ("half: cvt.rn.f16.f32 in k\\x1b[2J.ptx",)
