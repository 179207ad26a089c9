"""What tools print, read: literal texts in the form of cuobjdump, objdump, torch's profiler and ncu."""

import json
from dataclasses import replace

import pytest

from kbopt.core.profile import Counters, Launch, Missing, Share
from kbopt.evaluation.profile import cpu_code, gpu_code, ncu_report, trace_events
from kbopt.evaluation.profile.listing import base_name
from kbopt.evaluation.profile.occupancy import with_occupancy

RESOURCES = """
Fatbin elf code:
================
arch = sm_90
code version = [1,7]
host = linux
compile_size = 64bit

Resource usage:
 Common:
  GLOBAL:0
 Function _Z7softmaxPKfPfi:
  REG:40 STACK:16 SHARED:4096 LOCAL:0 CONSTANT[0]:552 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _Z4copyPKfPf:
  REG:17 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:544 CONSTANT[2]:60 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _Z6helperf:
  REG:14 STACK:0 SHARED:0 LOCAL:0 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
Fatbin elf code:
================
arch = sm_90

\tcode for sm_90
\t\tFunction : _Z4copyPKfPf
\t.headerflags\t@"EF_CUDA_TEXMODE_UNIFIED EF_CUDA_64BIT_ADDRESS EF_CUDA_SM90"
        /*0000*/                   MOV R1, c[0x0][0x28] ;            /* 0x00000a0000017a02 */
                                                                     /* 0x003fde0000000f00 */
        /*0010*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;   /* 0x0000000402047981 */
        /*0020*/                   STG.E.128 desc[UR4][R6.64], R4 ;  /* 0x0000000406007986 */
        /*0030*/                   EXIT ;                            /* 0x000000000000794d */
        /*0040*/                   NOP ;                             /* 0x0000000000007918 */
\t\t..........

\t\tFunction : _Z7softmaxPKfPfi
        /*0000*/                   LDG.E R4, desc[UR4][R2.64] ;      /* 0x0000000402047981 */
        /*0010*/              @!P0 FFMA R5, R4, R3, R2 ;             /* 0x0000000402047981 */
        /*0020*/                   FADD.FTZ R5, R4, R3 ;             /* 0x0000000402047981 */
        /*0030*/                   MUFU.EX2 R5, R5 ;                 /* 0x0000000402047981 */
        /*0040*/                   SHFL.BFLY PT, R6, R5, 0x1, 0x1f ; /* 0x0000000402047981 */
        /*0050*/                   STS [R0], R5 ;                    /* 0x0000000402047981 */
        /*0060*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;     /* 0x0000000402047981 */
        /*0070*/                   STL [R1], R5 ;                    /* 0x0000000402047981 */
        /*0080*/                   LDGSTS.E.BYPASS.128 [R7], [R8.64] ; /* 0x0000000402047981 */
        /*0090*/                   HMMA.1688.F32.TF32 R4, R8, R10, R4 ; /* 0x0000000402047981 */
"""
OBJDUMP = """
kernel.so:     file format elf64-x86-64


Disassembly of section .text:

0000000000001139 <rows(float const*, float*, long) [clone ._omp_fn.0]>:
    1139:\tendbr64
    113d:\tvmovups (%rdi),%ymm0
    1141:\tvfmadd231ps %ymm1,%ymm2,%ymm0
    1146:\tvaddps %ymm1,%ymm0,%ymm0
    114a:\tvmulps %ymm3,%ymm0,%ymm0
    114e:\tvmaxss %xmm1,%xmm0,%xmm0
    1152:\tvshufps $0x1,%xmm0,%xmm0,%xmm0
    1157:\tadd    $0x20,%rdi
    115b:\tcmp    %rax,%rdi
    115e:\tjne    113d <rows(float const*, float*, long)>
    1160:\tcall   1030 <expf@plt>
    1165:\tret

0000000000001200 <go(at::Tensor)>:
    1200:\tpush   %rbx
    1201:\tcvtsi2ss %eax,%xmm0
    1205:\tret

0000000000001300 <std::vector<float>::sum()>:
    1300:\taddps %xmm0,%xmm1
    1303:\taddps %xmm0,%xmm1
    1306:\taddps %xmm0,%xmm1
    1309:\taddps %xmm0,%xmm1
"""


def test_the_resources_and_the_instructions_of_each_kernel_are_joined() -> None:
    softmax, copy = gpu_code.kernels(RESOURCES, SASS)
    assert (softmax.name, softmax.target, softmax.registers) == ("softmax", "sm_90", 40)
    assert (softmax.shared_bytes, softmax.local_bytes) == (4096, 16)
    assert (softmax.instructions, softmax.vector_bits) == (10, 32)
    assert {part.kind: part.share for part in softmax.mix} == {
        "fp32": 0.2,
        **dict.fromkeys(("global load", "special", "shuffle", "shared", "barrier", "local"), 0.1),
        **dict.fromkeys(("async copy", "tensor"), 0.1),
    }
    assert (copy.name, copy.registers, copy.instructions, copy.vector_bits) == ("copy", 17, 4, 128)
    assert set(copy.mix) == {
        Share(kind=kind, share=0.25) for kind in ("move", "global load", "global store", "control")
    }


def test_text_that_is_no_listing_has_no_kernels() -> None:
    assert gpu_code.kernels("cuobjdump fatal : no ELF", "") == ()
    assert gpu_code.kernels(RESOURCES, "") == ()
    assert cpu_code.kernels("objdump: file format not recognized") == ()


@pytest.mark.parametrize(
    ("opcode", "kind"),
    [
        ("HMMA.16816.F32.BF16", "tensor"),
        ("HGMMA.64x128x16.F32", "tensor"),
        ("IMMA.16832.S8.S8", "tensor"),
        ("DFMA", "fp64"),
        ("HFMA2", "fp16"),
        ("HFMA2.MMA", "move"),
        ("FFMA.FTZ", "fp32"),
        ("LDGSTS.E.128", "async copy"),
        ("UTMALDG.2D", "async copy"),
        ("LDG.E.64", "global load"),
        ("LDS.128", "shared"),
        ("LDSM.16.M88.4", "shared"),
        ("LDL.64", "local"),
        ("RED.E.ADD.F32", "global store"),
        ("ATOMG.E.ADD", "global store"),
        ("ATOMS.ADD", "shared"),
        ("IMAD.MOV.U32", "integer"),
        ("LOP3.LUT", "integer"),
        ("ISETP.GE.AND", "integer"),
        ("S2R", "move"),
        ("ULDC.64", "constant"),
        ("F2FP.BF16.F32.PACK_AB", "convert"),
        ("BRA", "control"),
        ("QUITE_NEW", "other"),
    ],
)
def test_an_opcode_is_of_one_kind(opcode: str, kind: str) -> None:
    (function,) = gpu_code.functions(f"code for sm_90\nFunction : f\n /*0000*/ {opcode} R1 ;").values()
    assert list(function.kinds) == [kind]


def test_functions_with_arithmetic_are_read_and_libraries_left_out() -> None:
    (rows,) = cpu_code.kernels(OBJDUMP)
    assert rows.name == "rows(float const*, float*, long) [clone ._omp_fn.0]"
    assert (rows.target, rows.instructions, rows.vector_bits) == ("x86-64", 11, 256)
    assert {part.kind: round(part.share * 11) for part in rows.mix} == {
        "float": 3,
        "multiply-add": 1,
        "vector move": 1,
        "shuffle": 1,
        "integer": 2,
        "branch": 2,
        "call": 1,
    }
    assert rows.registers is None


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("_Z7softmaxPKfPfi", "softmax"),
        ("_ZN2ns5inner4copyILi4EEEvPKfPf", "copy"),
        ("softmax_kernel", "softmax_kernel"),
        ("ns::softmax<4>(float const*)", "softmax"),
        ("void copy<float, 4>(float*)", "copy"),
        ("_Z99short", "_Z99short"),
    ],
)
def test_a_mangled_name_has_a_base(name: str, base: str) -> None:
    assert base_name(name) == base


@pytest.mark.parametrize(
    ("capability", "threads", "registers", "shared", "expected"),
    [
        ("9.0", 128, 32, 0, (1.0, "warps")),
        ("9.0", 256, 128, 0, (0.25, "registers")),  # 4096 registers a warp: 16 warps, 2 blocks of 8
        ("9.0", 384, 168, 0, (0.1875, "registers")),  # 5376 a warp: 12 warps, 1 block of 12
        ("9.0", 128, 32, 100 * 1024, (0.125, "shared memory")),  # 2 blocks of 101 KiB in 228 KiB
        ("9.0", 32, 16, 0, (0.5, "blocks")),  # 32 blocks of a warp
        ("8.6", 1024, 32, 0, (0.6667, "warps")),  # 1 block of 32 warps in 48
        ("7.5", 1024, 64, 0, (1.0, "warps")),
        ("9.0", 1024, 128, 0, (0.0, "launch")),
        ("9.0", 2048, 32, 0, (0.0, "launch")),
    ],
)
def test_occupancy_is_that_of_cudas_calculator(
    capability: str, threads: int, registers: int, shared: int, expected: tuple[float, str]
) -> None:
    launch = Launch(grid=(1, 1, 1), block=(threads, 1, 1), registers=registers, shared_bytes=shared)
    found = with_occupancy(launch, capability)
    assert found.occupancy == pytest.approx(expected[0], abs=1e-4)
    assert found.limited_by == expected[1]


def test_occupancy_of_an_unknown_gpu_is_not_known() -> None:
    launch = Launch(
        grid=(1, 1, 1), block=(128, 1, 1), registers=32, shared_bytes=0, occupancy=0.5, limited_by="forged"
    )
    assert with_occupancy(launch, "99.0") == replace(launch, occupancy=0.0, limited_by="")


def event(name: str, start: float, us: float, cat: str = "cpu_op", **args: object) -> dict[str, object]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 7, "tid": 7, "ts": start, "dur": us, "args": args}


def chrome(*events: dict[str, object]) -> str:
    return json.dumps({"schemaVersion": 1, "traceEvents": [*events, {"ph": "M", "name": "process_name"}]})


def test_on_a_cpu_each_operation_has_its_own_time() -> None:
    text = chrome(
        event("aten::add", 50.0, 9.0),  # before the call
        event("kbopt.call", 100.0, 100.0),
        event("aten::softmax", 110.0, 50.0),
        event("aten::_softmax", 115.0, 40.0),
        event("aten::empty", 170.0, 5.0),
        {**event("aten::mul", 180.0, 10.0), "tid": 8},
    )
    traced = trace_events.traced(text, on_cuda=False)
    assert (traced.call_us, traced.busy_us, traced.num_parts) == (100.0, 100.0, 4)
    assert {part.name: part.us for part in traced.parts} == {
        trace_events.OWN_CODE: 45.0,
        "aten::_softmax": 40.0,
        "aten::softmax": 10.0,
        "aten::empty": 5.0,
    }
    assert traced.parts[0].share == 0.45


def test_on_a_gpu_kernels_have_launches_and_gaps_between_them() -> None:
    launch = {
        "grid": [128, 1, 1],
        "block": [256, 1, 1],
        "registers per thread": 40,
        "shared memory": 4096,
        "est. achieved occupancy %": 50,
    }
    text = chrome(
        event("kbopt.call", 0.0, 100.0),
        event("softmax", 20.0, 30.0, "kernel", **launch),
        event("softmax", 40.0, 20.0, "kernel", **launch),  # on another stream
        event("Memset (Device)", 80.0, 20.0, "gpu_memset", bytes=4096),
        event("cudaLaunchKernel", 5.0, 3.0, "cuda_runtime"),
    )
    traced = trace_events.traced(text, on_cuda=True)
    assert (traced.call_us, traced.busy_us, traced.num_parts) == (80.0, 60.0, 3)
    assert traced.gap_share == 0.25
    softmax, memset = traced.parts
    assert (softmax.calls, softmax.us, memset.launch) == (2, 50.0, None)
    assert softmax.launch is not None
    assert (softmax.launch.block, softmax.launch.registers) == ((256, 1, 1), 40)


@pytest.mark.parametrize("on_cuda", [True, False])
def test_a_trace_without_the_call_is_an_error(on_cuda: bool) -> None:
    with pytest.raises(LookupError):
        trace_events.traced(chrome(event("aten::add", 0.0, 1.0)), on_cuda=on_cuda)
    with pytest.raises(ValueError, match="Expecting"):
        trace_events.traced("{", on_cuda=on_cuda)


HEAD = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size",'
    '"Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)
ROW = (
    '"0","1234","python3.12","127.0.0.1","softmax(const float *, float *)","1","7","(256, 1, 1)",'
    '"(128, 1, 1)","0","9.0","Command line profiler metrics",'
)
STALL = "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio"
BEFORE = f"""==PROF== Connected to process 1234 (/usr/bin/python3.12)
==PROF== Profiling "softmax" - 0: 0%....50%....100% - 4 passes
==PROF== Disconnected from process 1234
{HEAD}
"""
LONG = f"""{BEFORE}{ROW}"gpu__time_duration.sum","usecond","12.5"
{ROW}"dram__bytes_read.sum","Mbyte","4.19"
{ROW}"dram__throughput.avg.pct_of_peak_sustained_elapsed","%","81.25"
{ROW}"{STALL}","inst","7.5"
{ROW}"lts__t_sector_hit_rate.pct","%","n/a"
"""
WIDE = """==PROF== Connected to process 1234
"ID","Process ID","Kernel Name","dram__bytes_read.sum","dram__bytes_write.sum","gpu__time_duration.sum",\
"sm__throughput.avg.pct_of_peak_sustained_elapsed"
"","","","byte","byte","nsecond","%"
"0","1234","copy","4,194,304","1,024","2,500","11.5"
"1","1234","softmax","8","0","12,500","40"
"""


def test_counters_in_rows_of_metrics_are_read() -> None:
    counters = ncu_report.counters(LONG)
    assert isinstance(counters, Counters)
    (softmax,) = counters.kernels
    assert softmax.name == "softmax(const float *, float *)"
    assert (softmax.us, softmax.dram_bytes, softmax.dram_pct) == (12.5, 4_190_000, 81.25)
    assert (softmax.stall, softmax.stall_cycles, softmax.l2_hit_pct) == ("global memory", 7.5, 0.0)


def test_counters_in_columns_of_metrics_are_read_longest_first() -> None:
    counters = ncu_report.counters(WIDE)
    assert isinstance(counters, Counters)
    softmax, copy = counters.kernels
    assert (softmax.name, softmax.us, softmax.compute_pct) == ("softmax", 12.5, 40.0)
    assert (copy.us, copy.dram_bytes) == (2.5, 4_195_328)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance "
            "Counters on the target device 0.",
            "NVreg_RestrictProfilingToAdminUsers=0",
        ),
        ("==WARNING== No kernels were profiled.", "no kernel in the call"),
        ("==ERROR== Failed to find metric dram__x\n", "ncu says: Failed to find metric dram__x"),
        ("", "ncu printed no counters"),
        (BEFORE, "ncu printed no counters"),
    ],
)
def test_where_nothing_was_counted_the_reason_is_told(text: str, said: str) -> None:
    counters = ncu_report.counters(text)
    assert isinstance(counters, Missing)
    assert said in counters.reason
