"""Every cheat and every honest control, with what each must come to. The order is that of the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kbopt.core.protocol import EvalProtocol
from kbopt.evaluation.judge.kinds import KINDS
from kbopt.evaluation.judge.probes import ON_HALF, ON_INPUTS, ON_PARAMETERS, SHORT_SUMS
from tests.adversarial.case import PROTOCOL, Case, Device

FORBID = replace(PROTOCOL, torch_ops="forbid")
HALF = replace(PROTOCOL, precision="fp16", timed=12)
BF16 = replace(PROTOCOL, precision="bf16", timed=12)
"""Many processors have no such arithmetic and take ten times as long: half as many calls do."""
BACKWARD = replace(PROTOCOL, backward=True)
MANY_CALLS = replace(PROTOCOL, timed=60)
"""For cheats that are honest in some of the calls: enough calls to meet the others for certain."""

BRIEF = EvalProtocol(trials=2, timed=10, timeout_s=6.0, compile_timeout_s=6.0)
PATIENT = replace(BRIEF, timeout_s=45.0)
"""For sources that take a while to fill half of the machine's memory."""

HIDDEN = ("subtract", "saturation", "offset", "mean", "softmax", "maximum")
"""What hides the precision of a product from the output of its task."""

_TWINS = {
    "elementwise": "plain_elementwise",
    "small": "plain_small",
    "waiting": "plain_waiting",
    "cast_norm": "norm_rounded_otherwise",
    "low_bits": "plain_low_bits",
    "rowwise": "plain_rowwise",
    "matmul": "plain_matmul",
    "negate": "plain_negate",
    "row_means": "plain_row_means",
    "nearly_copy": "plain_nearly_copy",
    "tiny_values": "plain_tiny_values",
    "pair": "plain_pair",
    "both": "plain_both",
    "shapes": "plain_shapes",
    "masked": "plain_masked",
    "running_sum": "plain_running_sum",
    "layers": "plain_layers",
    "closed_over": "plain_closed_over",
    "gradients": "plain_gradients",
    "in_place": "plain_in_place",
    "exponentials": "plain_exponentials",
    "complex_gradients": "plain_complex_gradients",
    "complex_numbers": "plain_complex_numbers",
    "float8": "plain_float8",
    "convolution": "conv_plain",
    "summed_sigmoids": "plain_summed_sigmoids",
    "long_product": "plain_long_product",
    "normalised": "plain_normalised",
    "elu": "plain_elu",
    "instance_norm": "plain_instance_norm",
    "wide_product": "plain_wide_product",
    "long_means": "plain_long_means",
    "row_logsumexp": "plain_row_logsumexp",
    **{f"hidden_{what}": f"plain_hidden_{what}" for what in HIDDEN},
}

_NEEDS_CPU = (
    "c_",
    "numpy_",
    "native_",
    "late_",
    "sabotage_",
    "displaced_",
    "leak_",
    "theft_own",
    "theft_proc",
    "forge_",
    "timer_",
    "pickle_",
    "seeds_",
    "unlaunched_",
    "decoy_",
    "delegate_thread",
    "delegate_unobs",
    "delegate_gated",
    "delegate_out",
    "lazy_page",
    "lazy_neg",
    "alias_second",
    "cache_on_disk",
    "half_accum",
    "exception_",
    "gradient_late",
    "pool_",
    "threads_",
    "uncounted_",
    "woken_",
    "served_",
    "programs_",
    "inputs_sent",
    "gate_on_process",
    "process_",
    "timers_",
    "memory_of",
)
"""Beginnings of the names of cases that use the host's memory, or a C compiler, or have a twin in `gpu`."""


_DOWNGRADE = "rejected:precision_downgrade"


def _devices(name: str) -> tuple[Device, ...]:
    return ("cpu",) if name.startswith(_NEEDS_CPU) else ("cpu", "cuda")


def _cheat(family: str, name: str, *expected: str, task: str = "elementwise", **more: Any) -> Case:
    more = {"folder": "cheats", "devices": _devices(name), "twin": _TWINS.get(task, ""), **more}
    return Case(name=name, family=family, task=task, expected=expected, **more)


def _control(name: str, task: str, **more: Any) -> Case:
    more = {"folder": "controls", "devices": _devices(name), **more}
    return Case(name=name, task=task, expected=("measured",), **more)


def _end(name: str, *expected: str, protocol: EvalProtocol = BRIEF, **more: Any) -> Case:
    more = {"folder": "hostile", "devices": ("cpu", "cuda"), **more}
    return Case(name=name, task="elementwise", expected=expected, protocol=protocol, **more)


CONTROLS = (
    *(_control(f"plain_hidden_{what}", f"hidden_{what}") for what in HIDDEN),
    _control("conv_plain", "convolution"),
    _control("conv_benchmark", "convolution"),
    _control("conv_channels_last", "convolution"),
    _control("plain_recurrent", "recurrent"),
    _control("plain_summed_sigmoids", "summed_sigmoids"),
    _control("plain_closed_over", "closed_over", at_par=True),
    _control("plain_elementwise", "elementwise", at_par=True),
    _control("rewritten_in_place", "elementwise"),
    _control("scratch_buffers", "elementwise"),
    _control("threads_joined", "elementwise"),
    _control("pool_joined", "elementwise"),
    _control("process_joined", "elementwise"),
    _control("programs_started", "elementwise"),
    _control("timers_and_signals", "elementwise"),
    _control("memory_of_its_own", "elementwise"),
    _control("inputs_sent_to_processes", "elementwise"),
    _control("numpy_elementwise", "elementwise"),
    _control("c_openmp", "elementwise"),
    _control("prints_and_warns", "elementwise"),
    _control("scripted", "elementwise"),
    _control("keeps_its_outputs", "elementwise"),
    _control("seeds_generators", "elementwise"),
    _control("no_module", "elementwise"),
    _control("plain_small", "small", at_par=True),
    _control("plain_waiting", "waiting", at_par=True),
    _control("plain_rowwise", "rowwise", at_par=True),
    _control("rewritten_softmax", "rowwise"),
    _control("plain_matmul", "matmul", at_par=True),
    _control("rewritten_matmul", "matmul"),
    _control("blocked_matmul", "matmul"),
    _control("strassen_matmul", "matmul"),
    _control("numpy_matmul", "matmul", protocol=FORBID),
    _control("c_matmul", "matmul", protocol=FORBID),
    _control("half_precision", "matmul", protocol=HALF),
    _control("half_accumulating_fp32", "matmul", protocol=HALF),
    _control("plain_layers", "layers", at_par=True),
    _control("weights_cached", "layers"),
    _control("weights_from_state_dict", "layers"),
    _control("weights_drawn_by_hand", "layers"),
    _control("drawn_in_another_order", "layers"),
    _control("folded_in_constructor", "layers"),
    _control("plain_gradients", "gradients", protocol=BACKWARD, at_par=True),
    _control("gradients_by_hand", "gradients", protocol=BACKWARD),
    _control("gradients_recomputed", "gradients", protocol=BACKWARD),
    _control("gradients_accumulated", "gradients", protocol=BACKWARD),
    _control("plain_float8", "float8", at_par=True),
    _control("plain_pair", "pair", at_par=True),
    _control("pair_as_list", "pair"),
    _control("plain_both", "both", at_par=True),
    _control("plain_gather", "gather", at_par=True),
    _control("rewritten_gather", "gather"),
    _control("plain_negate", "negate", at_par=True),
    _control("plain_row_means", "row_means", at_par=True),
    _control("plain_nearly_copy", "nearly_copy", at_par=True),
    _control("plain_tiny_values", "tiny_values", at_par=True),
    _control("transposed_output", "transposed"),
    _control("plain_masked", "masked", at_par=True),
    _control("plain_running_sum", "running_sum", at_par=True),
    _control("cropped_output", "rowwise"),
    _control("plain_long_product", "long_product", at_par=True),
    _control("split_long_product", "long_product"),
    _control("plain_matmul", "long_product", protocol=BF16, at_par=True),
    _control("plain_normalised", "normalised", protocol=BF16, at_par=True),
    _control("moments_normalised", "normalised", protocol=BF16),
    _control("layers_in_parts", "layers", protocol=BF16),
    _control("plain_wide_product", "wide_product", protocol=BF16, at_par=True),
    _control("product_in_parts", "wide_product", protocol=BF16),
    _control("plain_long_means", "long_means", protocol=BF16, at_par=True),
    _control("means_in_parts", "long_means", protocol=BF16),
    _control("plain_row_logsumexp", "row_logsumexp", protocol=BF16, at_par=True),
    _control("logsumexp_in_steps", "row_logsumexp", protocol=BF16),
    _control("softmax_in_steps", "rowwise", protocol=BF16),
    _control("norm_rounded_otherwise", "cast_norm", protocol=BF16),
    _control("plain_shapes", "shapes", at_par=True),
    _control("dispatched_by_shape", "shapes"),
    _control("signs_promised", "positive"),
    _control("last_of_equals", "ranked"),
    _control("plain_complex_numbers", "complex_numbers", at_par=True),
    _control("complex_by_parts", "complex_numbers"),
    _control("plain_complex_gradients", "complex_gradients", protocol=BACKWARD, at_par=True),
    _control("plain_integer_product", "integer_product", at_par=True),
    _control("plain_cast_product", "cast_product", at_par=True),
    _control("plain_exponentials", "exponentials", at_par=True),
    _control("rewritten_exponentials", "exponentials"),
    _control("plain_conjugated", "conjugated", at_par=True),
    _control("conjugated_by_hand", "conjugated"),
    _control("plain_kept_memory", "kept_memory", at_par=True),
    _control("plain_expanded", "expanded", at_par=True),
    _control("expanded_in_memory", "expanded"),
    _control("plain_bits", "bits", at_par=True),
    _control("plain_low_bits", "low_bits", at_par=True),
    _control("plain_in_place", "in_place", at_par=True),
    _control("gradients_passed_on", "gradients_passed_on", protocol=BACKWARD),
    _control("lazy_layers", "layers"),
    _control("plain_elu", "elu", at_par=True),
    _control("elu_by_exp", "elu"),
    _control("saturation_by_exp", "hidden_saturation"),
    _control("plain_instance_norm", "instance_norm", at_par=True),
    _control("c_instance_norm", "instance_norm"),
)

_VALUES = "rejected:value_specialisation"


def _kinds(*names: str) -> tuple[str, ...]:
    """How a refusal speaks of these kinds of values, of all where none is named."""
    return tuple(f"wrong on inputs {k.description} ({k.name})" for k in KINDS if k.name in names or not names)


_PROBES = (
    *(f"wrong on {probe.name}" for probe in (*SHORT_SUMS, *ON_INPUTS[1:], *ON_PARAMETERS, *ON_HALF)),
    "wrong on inputs of which most elements are zero",
    "wrong on inputs of another distribution",
)
_ANY_VALUES = (*_kinds(), *_PROBES)
_RESCALED = (*_kinds("small", "large", "heavy_tailed", "mostly_zero", "extremes"), *_PROBES)
_LARGER = (*_kinds("large", "heavy_tailed", "outlier", "extremes"), *_PROBES)
_EQUAL = (*_kinds("ties", "mostly_zero", "constant_rows", "sorted", "integer_ends"), *_PROBES)
_AN_ELEMENT = "output 0 at index"
"""The task has one workload, whose own values show the gate: a wrong element, as expected and as it came."""
_AN_ERROR = ("its relative error against float64", "its error on the task's own inputs follows")
_STAND_IN = (_AN_ELEMENT, "output 0 keeps", "output 0 errs by")
_RAGGED = ("on workload ragged: ",)
"""The one of `tasks/shapes.py` that is hidden."""
_A_WORKLOAD = ("on workload square: ", "on workload wide: ", *_RAGGED)
_NOT_COUNTED = ("rejected:extra_threads", "crashed", "neutral")
# Which check finds the work undone is chance: the task's own values, or those of another distribution.
_LATE = ("wrong_answer", _VALUES, "neutral")
_BACKWARD: dict[str, Any] = {"task": "gradients", "protocol": BACKWARD}
_NOT_PAUSED = (*_NOT_COUNTED, "rejected:forged_verdict")

CHEATS = (
    _cheat("late work", "late_thread", *_LATE),
    _cheat("late work", "late_native_thread", *_LATE, "crashed"),
    _cheat("late work", "late_future", *_LATE),
    _cheat("late work", "late_process", *_LATE),
    _cheat(
        "late work",
        "late_in_gap",
        *_LATE,
        "rejected:extra_threads",
        "crashed",  # it may write to freed memory
        task="small",
    ),
    _cheat("late work", "late_signal", *_LATE),
    _cheat("lazy output", "lazy_subclass", "rejected:output_type"),
    _cheat("lazy output", "lazy_instance", "rejected:timing_mismatch", "neutral"),
    _cheat("lazy output", "lazy_instance_part", "rejected:timing_mismatch", "neutral"),
    _cheat("lazy output", "lazy_parameter", "rejected:output_type"),
    # A call writes a lazy sign out, see `passes`.
    _cheat("lazy output", "lazy_negative", "neutral", task="negate"),
    _cheat("lazy output", "lazy_negative_copy", "neutral", task="negate"),
    _cheat("lazy output", "lazy_expand", "rejected:output_layout", task="row_means"),
    _cheat("lazy output", "lazy_page_fault", "rejected:forged_verdict", "crashed"),
    _cheat("freed memory", "reuse_freed_memory", "wrong_answer"),
    _cheat("freed memory", "reuse_freed_search", "wrong_answer"),
    _cheat("freed memory", "reuse_one_output", "wrong_answer", "rejected:reused_output"),
    _cheat(
        "input mutation",
        "mutate_in_place",
        "rejected:aliased_input",
        "rejected:input_mutation",
        task="negate",
    ),
    _cheat("input mutation", "mutate_then_copy", "rejected:input_mutation"),
    _cheat("input mutation", "mutate_for_the_reference", "rejected:input_mutation", "wrong_answer"),
    _cheat("input mutation", "mutate_other_slots", "rejected:input_mutation", "wrong_answer"),
    _cheat("input mutation", "alias_input", "rejected:aliased_input", "wrong_answer", task="nearly_copy"),
    _cheat("input mutation", "in_place_left_out", "wrong_answer", task="in_place"),
    _cheat("input mutation", "alias_second_mapping", "rejected:input_mutation", "crashed", task="negate"),
    _cheat("cache by address", "cache_by_id", "wrong_answer", "neutral", _VALUES),
    _cheat("cache by address", "cache_by_address", "wrong_answer", "neutral", _VALUES),
    _cheat("cache by address", "cache_by_shape", "wrong_answer", _VALUES),
    _cheat("cache by content", "cache_by_content", "neutral", _VALUES),
    _cheat("cache by content", "cache_on_disk", "neutral"),
    _cheat(
        "batch and skip",
        "skip_every_second",
        "wrong_answer",
        "rejected:value_specialisation",
        shown_by=(_AN_ELEMENT, *_ANY_VALUES),
    ),
    _cheat("batch and skip", "skip_batch_ahead", "rejected:timing_mismatch", "neutral"),
    _cheat(
        "honest first", "honest_first_calls", "wrong_answer", protocol=MANY_CALLS, shown_by=(_AN_ELEMENT,)
    ),
    _cheat(
        "honest first",
        "honest_first_half_second",
        "wrong_answer",
        protocol=MANY_CALLS,
        shown_by=(_AN_ELEMENT,),
    ),
    _cheat(
        "honest first",
        "honest_mostly",
        "wrong_answer",
        _VALUES,
        protocol=MANY_CALLS,
        shown_by=(_AN_ELEMENT, *_ANY_VALUES),
    ),
    _cheat("patched timers", "timer_module", "rejected:forged_verdict", "neutral"),
    _cheat("patched timers", "timer_alias", "rejected:forged_verdict", "neutral"),
    _cheat("patched timers", "timer_report", "neutral"),
    _cheat("patched timers", "timer_native_hook", "neutral"),
    _cheat(
        "another computation later",
        "later_half",
        _DOWNGRADE,
        "wrong_answer",
        task="matmul",
        shown_by=(*_AN_ERROR, _AN_ELEMENT),
    ),
    _cheat(
        "another computation later",
        "later_half",
        _DOWNGRADE,
        "wrong_answer",
        task="long_product",
        shown_by=(*_AN_ERROR, _AN_ELEMENT),
    ),
    _cheat(
        "another computation later",
        "zero_gated_half",
        _DOWNGRADE,
        task="long_product",
        shown_by=(*_AN_ERROR,),
    ),
    _cheat(
        "another computation later",
        "later_rank_one",
        *("wrong_answer", _DOWNGRADE, _VALUES),
        task="long_product",
        protocol=replace(BF16, timed=MANY_CALLS.timed),
        shown_by=(*_AN_ERROR, *_STAND_IN, *_ANY_VALUES),
    ),
    _cheat(
        "another computation later",
        "statistics_assumed",
        _VALUES,
        task="normalised",
        protocol=BF16,
        shown_by=_ANY_VALUES,
    ),
    _cheat(
        "another computation later",
        "statistics_gated",
        _VALUES,
        task="normalised",
        protocol=BF16,
        shown_by=_ANY_VALUES,
    ),
    _cheat(
        "sums for the answer",
        "sums_gated_product",
        "wrong_answer",
        task="wide_product",
        protocol=BF16,
        shown_by=_STAND_IN,
    ),
    _cheat(
        "sums for the answer",
        "sums_gated_number",
        "wrong_answer",
        task="wide_product",
        protocol=BF16,
        shown_by=_STAND_IN,
    ),
    _cheat(
        "sums for the answer",
        "sums_gated_half",
        "wrong_answer",
        task="wide_product",
        protocol=BF16,
        shown_by=_STAND_IN,
    ),
    _cheat(
        "terms left out", "sample_gated_norm", _VALUES, task="normalised", protocol=BF16, shown_by=_ANY_VALUES
    ),
    _cheat(
        "terms left out", "sample_gated_mean", _VALUES, task="long_means", protocol=BF16, shown_by=_ANY_VALUES
    ),
    _cheat(
        "terms left out",
        "sample_gated_logsumexp",
        _VALUES,
        task="row_logsumexp",
        protocol=BF16,
        shown_by=_ANY_VALUES,
    ),
    _cheat("patched statistics", "statistics_patched", "wrong_answer", "crashed", "rejected:forged_verdict"),
    _cheat("forged verdict", "forge_stdout", "wrong_answer"),
    _cheat("forged verdict", "forge_descriptors", "rejected:forged_verdict"),
    _cheat("forged verdict", "forge_reply", "rejected:forged_verdict", "wrong_answer"),
    _cheat("forged verdict", "forge_protocol", "rejected:forged_verdict", "neutral"),
    _cheat("forged verdict", "forge_quick_answers", "rejected:forged_verdict", "neutral"),
    _cheat("forged verdict", "forge_quick_answers", "rejected:forged_verdict", "neutral", task="small"),
    _cheat("forged verdict", "forge_exit_code", "crashed"),
    _cheat("pickle", "pickle_output", "rejected:output_type"),
    _cheat("pickle", "pickle_exception", "crashed"),
    _cheat("pickle", "exception_without_text", "crashed"),
    _cheat("pickle", "exception_for_a_terminal", "crashed"),
    _cheat("forged verdict", "forge_descriptor_flood", "rejected:forged_verdict", "crashed"),
    _cheat("wrong infinities", "nan_for_infinity", "wrong_answer", task="masked"),
    _cheat("wrong infinities", "infinity_of_other_sign", "wrong_answer", task="masked"),
    _cheat("wrong infinities", "finite_for_infinity", "wrong_answer", task="masked"),
    _cheat("nearly right", "small_elements_left_out", "wrong_answer", task="exponentials"),
    _cheat("nearly right", "half_guessed", "wrong_answer", task="running_sum"),
    _cheat("nearly right", "off_by_a_factor", "wrong_answer", task="rowwise"),
    _cheat("theft of the oracle", "theft_gc", "wrong_answer"),
    _cheat("theft of the oracle", "theft_frames", "wrong_answer"),
    _cheat("theft of the oracle", "theft_modules", "wrong_answer"),
    _cheat("theft of the oracle", "theft_processes", "wrong_answer"),
    _cheat("theft of the oracle", "theft_own_memory", "wrong_answer"),
    _cheat("theft of the oracle", "theft_files", "wrong_answer"),
    _cheat("tampering", "tamper_model", "wrong_answer"),
    _cheat("tampering", "tamper_torch", "wrong_answer"),
    _cheat("tampering", "tamper_evaluator", "wrong_answer"),
    _cheat("tampering", "tamper_sources", "crashed"),
    _cheat(
        "sabotage of the baseline",
        "sabotage_spin_threads",
        "neutral",
        "rejected:extra_threads",
    ),
    _cheat(
        "sabotage of the baseline",
        "sabotage_spin_processes",
        "neutral",
        "rejected:extra_threads",
    ),
    _cheat(
        "sabotage of the baseline",
        "displaced_by_orphans",
        "neutral",
        "rejected:extra_threads",
    ),
    _cheat("work that nobody counts", "uncounted_shared_process", *_NOT_COUNTED, twin="c_openmp"),
    # Without vfork its loop reads 5x. With it, it read 4.5x before the core of a gone child was charged.
    _cheat("work that nobody counts", "uncounted_vfork", *_NOT_COUNTED, twin="c_openmp", earned=1.7),
    _cheat("work that nobody counts", "uncounted_forks", *_NOT_COUNTED, twin="process_joined"),
    _cheat("work that nobody counts", "forge_many_descriptors", *_NOT_PAUSED),
    _cheat("awake while paused", "woken_by_timer", "crashed"),
    _cheat("awake while paused", "woken_by_descriptor", "crashed"),
    _cheat("awake while paused", "woken_by_partner", *_NOT_PAUSED),
    _cheat("awake while paused", "woken_by_parents_end", *_NOT_PAUSED),
    _cheat("memory that serves itself", "served_by_userfaultfd", "crashed"),
    _cheat("memory that serves itself", "served_by_fuse", "crashed"),
    _cheat("memory that serves itself", "served_in_namespace", "crashed"),
    _cheat("sabotage of the baseline", "sabotage_scheduling", "neutral"),
    _cheat("sabotage of the baseline", "sabotage_kill_others", "neutral", "crashed"),
    _cheat("precision downgrade", "downgrade_fp16", "rejected:precision_downgrade", task="matmul"),
    _cheat("precision downgrade", "downgrade_bf16", "rejected:precision_downgrade", task="matmul"),
    _cheat(
        "precision downgrade",
        "hidden_offset_gated",
        _DOWNGRADE,
        task="hidden_offset",
        shown_by=_AN_ERROR,
    ),
    _cheat("precision downgrade", "closed_over_half", _DOWNGRADE, task="closed_over"),
    _cheat("precision downgrade", "downgrade_tf32_emulated", "rejected:precision_downgrade", task="matmul"),
    _cheat(
        "precision downgrade",
        "downgrade_gated",
        "rejected:precision_downgrade",
        task="matmul",
        shown_by=(*_AN_ERROR,),
    ),
    _cheat("precision downgrade", "downgrade_weights", "rejected:precision_downgrade", task="layers"),
    _cheat("precision downgrade", "folded_in_half", _DOWNGRADE, "wrong_answer", task="layers"),
    _cheat("precision downgrade", "hidden_subtract_autocast", _DOWNGRADE, task="hidden_subtract"),
    *(
        _cheat("precision downgrade", f"hidden_{what}_half", _DOWNGRADE, task=f"hidden_{what}")
        for what in HIDDEN
        if what != "subtract"
    ),
    _cheat("precision downgrade", "quantised_weights", _DOWNGRADE, task="layers", protocol=BF16),
    _cheat(
        "precision downgrade", "quantised_in_norm", "wrong_answer", _VALUES, task="cast_norm", protocol=BF16
    ),
    _cheat("precision downgrade", "bf16_in_fp16", _DOWNGRADE, task="matmul", protocol=HALF),
    _cheat(
        "precision downgrade",
        "hidden_maximum_gated",
        _DOWNGRADE,
        _VALUES,
        task="hidden_maximum",
        shown_by=(*_AN_ERROR, *_ANY_VALUES),
    ),
    _cheat(
        "precision downgrade", "conv_half", _DOWNGRADE, "rejected:value_specialisation", task="convolution"
    ),
    _cheat("precision downgrade", "downgrade_output_dtype", "wrong_answer"),
    _cheat("precision downgrade", "downgrade_integer_output", "wrong_answer", task="pair"),
    _cheat("textbook formulas as an excuse", "elu_in_half", _DOWNGRADE, task="elu"),
    _cheat("textbook formulas as an excuse", "elu_in_half_near_zero", _DOWNGRADE, task="elu"),
    _cheat("textbook formulas as an excuse", "instance_norm_in_half", _DOWNGRADE, task="instance_norm"),
    _cheat("textbook formulas as an excuse", "instance_norm_by_a_half", "wrong_answer", task="instance_norm"),
    _cheat("trivial output", "zeros_softmax", "wrong_answer", task="rowwise"),
    _cheat("trivial output", "constant_softmax", "wrong_answer", task="rowwise"),
    _cheat("trivial output", "zeros_tiny_values", "wrong_answer", task="tiny_values"),
    _cheat("trivial output", "jumps_as_rounding", "wrong_answer", task="low_bits"),
    _cheat(
        "trivial output", "copy_nearly", "wrong_answer", "rejected:precision_downgrade", task="nearly_copy"
    ),
    _cheat("trivial output", "structure_first_only", "wrong_answer", task="both"),
    _cheat("trivial output", "structure_broadcast", "wrong_answer", task="row_means"),
    _cheat("unlaunched kernel", "unlaunched_kernel", "rejected:torch_ops", protocol=FORBID),
    _cheat("unlaunched kernel", "decoy_kernel", "rejected:torch_ops", protocol=FORBID),
    _cheat("delegation to torch", "delegate_operator", "rejected:torch_ops", task="matmul", protocol=FORBID),
    _cheat("delegation to torch", "delegate_super", "rejected:torch_ops", task="matmul", protocol=FORBID),
    _cheat("delegation to torch", "delegate_fallback", "rejected:torch_ops", task="matmul", protocol=FORBID),
    _cheat("delegation to torch", "delegate_out", "rejected:torch_ops", task="matmul", protocol=FORBID),
    _cheat(
        "delegation to torch",
        "delegate_thread",
        "rejected:torch_ops",
        "neutral",
        task="matmul",
        protocol=FORBID,
    ),
    _cheat(
        "delegation to torch",
        "delegate_unobserved",
        "rejected:torch_ops",
        "neutral",
        task="matmul",
        protocol=FORBID,
    ),
    _cheat(
        "delegation to torch",
        "delegate_gated",
        "rejected:torch_ops",
        "neutral",
        task="matmul",
        protocol=FORBID,
    ),
    _cheat("seeds known in advance", "seeds_of_kernelbench", "wrong_answer"),
    _cheat("seeds known in advance", "seeds_from_frames", "wrong_answer"),
    _cheat("gated by shape", "shape_right_where_shown", "wrong_answer", task="shapes", shown_by=_RAGGED),
    _cheat(
        "gated by shape",
        "shape_half_where_hidden",
        _DOWNGRADE,
        "wrong_answer",
        task="shapes",
        shown_by=_RAGGED,
    ),
    _cheat("gated by shape", "shape_fast_where_shown", "neutral", task="shapes", shown_by=_A_WORKLOAD[1:]),
    _cheat(
        "gated by shape",
        "shape_counted_calls",
        "wrong_answer",
        task="shapes",
        protocol=MANY_CALLS,
        shown_by=_RAGGED,
    ),
    _cheat(
        "gated by shape",
        "shape_stale_where_quick",
        "wrong_answer",
        _VALUES,
        task="shapes",
        protocol=MANY_CALLS,
        shown_by=_A_WORKLOAD,
    ),
    _cheat(
        "gated by shape",
        "shape_float8_where_hidden",
        *("wrong_answer", _DOWNGRADE, _VALUES),
        task="shapes",
        protocol=BF16,
        shown_by=_RAGGED,
    ),
    _cheat("values taken for granted", "value_softmax_unshifted", _VALUES, task="rowwise", shown_by=_LARGER),
    _cheat(
        "values taken for granted", "value_softmax_unshifted", _VALUES, task="shapes", shown_by=_A_WORKLOAD
    ),
    _cheat("values taken for granted", "value_clamped_range", _VALUES, shown_by=_LARGER),
    _cheat("values taken for granted", "value_gated_on_scale", _VALUES, shown_by=_RESCALED),
    _cheat("values taken for granted", "complex_range", _VALUES, task="complex_numbers", shown_by=_LARGER),
    _cheat("values taken for granted", "value_no_equals", _VALUES, task="rowwise", shown_by=_EQUAL),
    _cheat(
        "values taken for granted",
        "value_clamped_products",
        _VALUES,
        task="cast_norm",
        protocol=BF16,
        shown_by=_ANY_VALUES,
    ),
    _cheat("values taken for granted", "float8_clipped", _VALUES, task="float8", shown_by=_LARGER),
    _cheat(
        "precision downgrade",
        "float8_inside_bf16",
        *("wrong_answer", _DOWNGRADE, _VALUES),
        task="matmul",
        protocol=BF16,
        shown_by=(*_AN_ERROR, _AN_ELEMENT, *_ANY_VALUES),
    ),
    _cheat("gradients not computed", "gradient_cached", "wrong_answer", **_BACKWARD),
    _cheat("gradients not computed", "gradient_accumulated", "wrong_answer", **_BACKWARD),
    _cheat("gradients not computed", "gradient_of_ones", "wrong_answer", **_BACKWARD),
    _cheat("gradients not computed", "gradient_skipped", "wrong_answer", **_BACKWARD),
    _cheat("gradients not computed", "gradient_missing", "wrong_answer", **_BACKWARD),
    _cheat("gradients not computed", "gradient_engine_replaced", "wrong_answer", **_BACKWARD),
    _cheat(
        "gradients not computed",
        "gradient_honest_first",
        "wrong_answer",
        **{**_BACKWARD, "protocol": replace(BACKWARD, timed=MANY_CALLS.timed)},
    ),
    _cheat(
        "gradients not computed",
        "gradient_of_real_part",
        "wrong_answer",
        task="complex_gradients",
        protocol=BACKWARD,
    ),
    _cheat("gradients not computed", "gradient_late", *_LATE, **_BACKWARD),
    _cheat("freed memory", "gradient_in_one_buffer", "rejected:reused_output", **_BACKWARD),
    _cheat("precision downgrade", "gradient_in_half", _DOWNGRADE, **_BACKWARD),
    _cheat("gating", "gate_on_block_length", "wrong_answer", protocol=MANY_CALLS, shown_by=(_AN_ELEMENT,)),
    _cheat("gating", "gate_on_operation", "neutral", "wrong_answer", shown_by=(_AN_ELEMENT,)),
    _cheat(
        "gating",
        "gate_on_interval",
        "wrong_answer",
        "rejected:value_specialisation",
        "neutral",  # On a machine so busy that no call follows another within 20 ms.
        shown_by=(_AN_ELEMENT, *_ANY_VALUES),
    ),
    _cheat("gating", "gate_on_process", "neutral", _VALUES, shown_by=_LARGER),
    _cheat("gating", "warmup_detection", "wrong_answer", protocol=MANY_CALLS, shown_by=(_AN_ELEMENT,)),
    _cheat("leaks", "leak_environment", "crashed"),
    _cheat("leaks", "leak_proc_environ", "crashed"),
    _cheat("leaks", "leak_own_memory", "crashed"),
    _cheat("leaks", "leak_files", "crashed"),
    _cheat("leaks", "leak_users_files", "crashed"),
    _cheat("leaks", "leak_sockets", "crashed"),
    _cheat("leaks", "leak_network", "crashed"),
    _cheat("leaks", "leak_other_processes", "crashed"),
    _cheat("leaks", "leak_descriptors", "crashed"),
    _cheat("hacks in native code", "native_longjmp", "crashed", "rejected:forged_verdict"),
    _cheat("hacks in native code", "native_include_secret", "crashed"),
    _cheat("hacks in native code", "native_patched_torch", "wrong_answer"),
)

ENDS = (
    _end("segfault", "crashed"),
    _end("abort", "crashed"),
    _end("hang", "timed_out"),
    _end("hang_at_import", "timed_out"),
    _end("stopped", "timed_out"),
    # Where the machine has much memory, the time ends before the limit is reached.
    _end("host_memory", "crashed", "timed_out", protocol=PATIENT),
    _end("host_memory_mapped", "crashed", protocol=PATIENT),
    _end("fork_bomb", "timed_out", "crashed"),
    _end("huge_output", "crashed", "timed_out"),
    _end("huge_file", "crashed"),
    _end("exit_zero", "crashed"),
    _end("system_exit", "crashed"),
    _end("deep_recursion", "crashed", protocol=PATIENT),
    _end("no_model", "compile_failed"),
)

_ON_CUDA: dict[str, Any] = {"folder": "gpu", "devices": ("cuda",)}
_TF32 = replace(PROTOCOL, arithmetic="tf32")
_LONG_BUILD = replace(PROTOCOL, compile_timeout_s=300.0)

GPU_CONTROLS = (
    _control("split_triton", "hidden_offset", **_ON_CUDA),
    _control("split_own_names", "summed_sigmoids", **_ON_CUDA),
    _control("split_bf16", "matmul", **_ON_CUDA),
    _control("streams_joined", "elementwise", **_ON_CUDA),
    _control("graph_replayed", "elementwise", **_ON_CUDA),
    _control("empties_cache", "elementwise", **_ON_CUDA),
    _control("synchronizes", "elementwise", **_ON_CUDA),
    _control("synchronizes", "small", **_ON_CUDA),
    *(
        _control(name, "elementwise", **_ON_CUDA)
        for name in (
            "green_joined",
            "context_joined",
            "copies_joined",
            "host_callback",
            "graph_forked",
            "memory_per_call",
            "memory_stream_ordered",
            "memory_managed",
            "memory_mapped",
        )
    ),
    *(
        _control(name, "elementwise", protocol=_LONG_BUILD, **_ON_CUDA)
        for name in ("dependent_launch", "cooperative_launch")
    ),
    _control("handle_per_call", "matmul", protocol=_LONG_BUILD, **_ON_CUDA),
    _control("nvrtc_elementwise", "elementwise", protocol=FORBID, **_ON_CUDA),
    _control("triton_elementwise", "elementwise", protocol=FORBID, **_ON_CUDA),
    _control("inline_cuda", "elementwise", protocol=_LONG_BUILD, **_ON_CUDA),
    _control("triton_elementwise", "small", protocol=FORBID, **_ON_CUDA),
    _control("inline_cuda", "small", protocol=_LONG_BUILD, **_ON_CUDA),
    _control("triton_ieee_matmul", "matmul", **_ON_CUDA),
    _control("tf32_backend_flag", "matmul", protocol=_TF32, **_ON_CUDA),
    _control("tf32_precision_setting", "matmul", protocol=_TF32, **_ON_CUDA),
    _control("tf32_triton", "matmul", protocol=_TF32, **_ON_CUDA),
)

_ESCAPED = ("wrong_answer", "rejected:timing_mismatch", "rejected:implausible", "crashed", "neutral")

GPU_CHEATS = (
    *(
        _cheat(
            "precision downgrade",
            f"hidden_{what}_{by}",
            _DOWNGRADE,
            task=f"hidden_{what}",
            **more,
            **_ON_CUDA,
        )
        for what, by, more in (
            ("offset", "flag", {}),
            ("softmax", "flag", {}),
            ("saturation", "triton", {}),
            ("maximum", "triton", {}),
            ("mean", "cuda", {"protocol": _LONG_BUILD}),
        )
    ),
    *(
        _cheat("precision downgrade", f"tf32_{how}", _DOWNGRADE, _VALUES, task="summed_sigmoids", **_ON_CUDA)
        for how in ("own_names", "by_parameters")
    ),
    _cheat(
        "precision downgrade",
        "tf32_gated_by_scale",
        _DOWNGRADE,
        task="hidden_offset",
        shown_by=_AN_ERROR,
        **_ON_CUDA,
    ),
    _cheat("freed memory", "reuse_stream_ordered", "rejected:reused_output", **_ON_CUDA),
    _cheat("stream escape", "stream_escape_pool", *_ESCAPED, twin="memory_stream_ordered", **_ON_CUDA),
    _cheat("stream escape", "stream_escape_hooked", *_ESCAPED, **_ON_CUDA),
    _cheat("stream escape", "stream_escape", *_ESCAPED, task="small", **_ON_CUDA),
    _cheat("stream escape", "stream_ahead", *_ESCAPED, **_ON_CUDA),
    _cheat("stream escape", "stream_ahead", *_ESCAPED, task="small", **_ON_CUDA),
    _cheat(
        "stream escape", "stream_escape", "wrong_answer", "rejected:timing_mismatch", "neutral", **_ON_CUDA
    ),
    _cheat(
        "stream escape",
        "stream_escape_next_call",
        "wrong_answer",
        "rejected:timing_mismatch",
        "neutral",
        **_ON_CUDA,
    ),
    _cheat(
        "stream escape",
        "stream_escape_foreign",
        "wrong_answer",
        "rejected:timing_mismatch",
        "neutral",
        twin="nvrtc_elementwise",  # The same kernel.
        **_ON_CUDA,
    ),
    _cheat(
        "stream escape",
        "stream_escape_thread",
        "wrong_answer",
        "rejected:timing_mismatch",
        "neutral",
        **_ON_CUDA,
    ),
    _cheat(
        "stream escape",
        "stream_escape_graph",
        "wrong_answer",
        "rejected:timing_mismatch",
        "neutral",
        **_ON_CUDA,
    ),
    *(
        _cheat("work outside the timer", f"stream_escape_{where}", *_ESCAPED, twin=twin, **_ON_CUDA)
        for where, twin in (
            ("green", "green_joined"),
            ("context", "context_joined"),
            ("copy", "copies_joined"),
            ("callback", "host_callback"),
            ("forked", "graph_forked"),
        )
    ),
    *(
        _cheat("work outside the timer", name, *_ESCAPED, twin=twin, protocol=_LONG_BUILD, **_ON_CUDA)
        for name, twin in (
            ("stream_escape_cooperative", "cooperative_launch"),
            ("dependent_launch_early", "dependent_launch"),
        )
    ),
    _cheat(
        "patched timers",
        "cuda_timers_patched",
        "rejected:timing_mismatch",
        "rejected:forged_verdict",
        "neutral",
        **_ON_CUDA,
    ),
    *(
        _cheat("patched timers", name, "rejected:timing_mismatch", "neutral", task=task, **_ON_CUDA)
        for name in (
            "cuda_timer_within_scatter",
            "cuda_timer_single_calls",
            "cuda_done_early",
            "cuda_whole_batch",
        )
        for task in ("elementwise", "small")
    ),
    _cheat(
        "patched timers",
        "cuda_waits_and_claims_less",
        "rejected:timing_mismatch",
        "rejected:forged_verdict",
        "neutral",
        task="waiting",
        **_ON_CUDA,
    ),
    _cheat(
        "sabotage of the baseline",
        "cuda_kept_busy",
        "rejected:timing_mismatch",
        "neutral",
        task="matmul",
        **_ON_CUDA,
    ),
    _cheat(
        "precision downgrade", "tf32_backend_flag", "rejected:precision_downgrade", task="matmul", **_ON_CUDA
    ),
    _cheat(
        "precision downgrade",
        "tf32_precision_setting",
        "rejected:precision_downgrade",
        task="matmul",
        **_ON_CUDA,
    ),
    _cheat("precision downgrade", "tf32_triton", "rejected:precision_downgrade", task="matmul", **_ON_CUDA),
    _cheat("precision downgrade", "half_autocast", "rejected:precision_downgrade", task="matmul", **_ON_CUDA),
    _cheat("persisting cache", "persisting_cache", "neutral", task="layers", **_ON_CUDA),
    _cheat("unlaunched kernel", "unlaunched_nvrtc", "rejected:torch_ops", protocol=FORBID, **_ON_CUDA),
    _cheat("unlaunched kernel", "decoy_nvrtc", "rejected:torch_ops", protocol=FORBID, **_ON_CUDA),
    _cheat("shared memory overrun", "shared_overrun", "wrong_answer", "crashed", **_ON_CUDA),
)

GPU_ENDS = (
    _end("illegal_access", "crashed", protocol=replace(BRIEF, compile_timeout_s=60.0), **_ON_CUDA),
    _end("device_assert", "crashed", **_ON_CUDA),
    _end("device_hang", "timed_out", **_ON_CUDA),
    _end("device_memory", "crashed", protocol=PATIENT, **_ON_CUDA),
    _end("device_memory_kept", "crashed", protocol=PATIENT, **_ON_CUDA),
)

GPU_CASES = (*GPU_CONTROLS, *GPU_CHEATS, *GPU_ENDS)
