"""Searches for the inputs and parameters on which a task shows the precision of its products.

The search runs once per task. `precision` has the rules for what it finds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kbopt.core.protocol import Precision
from kbopt.evaluation.judge import correlation, errors, textbook, tolerance
from kbopt.evaluation.judge.errors import Error
from kbopt.evaluation.judge.precision import Sensitive, Sensitivity, find_local, set_parameters
from kbopt.evaluation.judge.probes import DENSE, ON_HALF, ON_INPUTS, ON_PARAMETERS, SHORT_SUMS, Probe
from kbopt.evaluation.judge.products import Products, Rounding, errors_in_tf32, plain, products_of, rounded
from kbopt.evaluation.judge.reference import Draw, Reference
from kbopt.evaluation.judge.task_code import TaskError
from kbopt.evaluation.numerics import CONVOLUTIONS

_MARGIN = 1.5
"""A probe is sensitive if the error of the rounded reference exceeds this many times the probe's limit."""
_CUT_OFF = 2.5
"""Tensor cores that cut operands off err so many times as much as those that round them, where sums are near
zero. In sums of positive numbers it is a hundred times as much, and then this share of it is TF32's error."""
_NEARLY_RIGHT = 0.3
"""Relative error of the rounded reference. A probe on which rounding changes the answer by more tells nothing
about a candidate."""
_TELLING = 32.0
"""TF32 has to err so many times as much as the reference for a probe to tell them apart. Then splits may err
four times as much as the reference before `_FP32_AGAIN` says TF32. On an H200 TF32 errs 135 times as much as
fp32 in level2/56 of KernelBench and 151 times in level3/2, where `_MARGIN` times 128 is too much."""
_ROUNDOFF = 2.0**-24
"""The relative error of one rounding to fp32. A reference that happens to err less is no yardstick."""
_LOWER: tuple[Rounding, ...] = ("tf32", "tf32 cut off", "half")
MAX_PROBES = 2
"""Sensitive probes that are kept for a task: each costs every candidate a call and a float64 answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What `probe` shows: `sensitive` if it shows a lower precision. TF32 makes an error of `tf32_rms` there,
    `ratio` times the reference's own.
    """

    probe: Probe
    tf32_rms: float
    ratio: float
    sensitive: Sensitive | None


def find_sensitivity(reference: Reference, seed: int) -> Sensitivity:
    """Search for at most two sensitive probes.

    One that changes inputs alone comes first, because every candidate can take it.
    """
    draw = reference.draw(seed)
    products = products_of(reference, draw)
    return replace(_found(reference, draw, products, seed), dtypes=frozenset(products.dtypes))


def _found(reference: Reference, draw: Draw, products: Products, seed: int) -> Sensitivity:
    if reference.precision != "fp32":
        return (
            _of_half(reference.precision, products.operands_of(reference))
            if products.names
            else Sensitivity()
        )
    setting, convolves = reference.protocol.arithmetic, bool(products.names & CONVOLUTIONS)
    may_use_tf32 = reference.device.type == "cuda" and (
        setting == "tf32" or (setting == "default" and convolves)
    )
    if not reference.has_exact:  # Without float64 no probe shows an error.
        return Sensitivity(may_use_tf32=may_use_tf32)
    operands = products.operands_of(reference)
    tf32_errors: tuple[float, ...] = ()
    if may_use_tf32:
        tf32_errors = errors_in_tf32(reference, draw, reference.run_exact(draw))
    # Each probe takes four runs of the reference, two in float64. So the first that shows it is enough.
    on_inputs = _until_sensitive(_tried(reference, probe, draw, may_use_tf32) for probe in ON_INPUTS)
    on_parameters: list[_Trial] = []
    if not on_inputs or on_inputs[-1].sensitive is None or on_inputs[-1].probe != DENSE:
        on_parameters = _with_other_parameters(reference, draw, operands, may_use_tf32)
    found = [trial.sensitive for trial in (*on_inputs, *on_parameters) if trial.sensitive is not None]
    hidden: tuple[Rounding, ...] = ("half",) if may_use_tf32 else _LOWER
    if not products.names or any(sensitive.probe == DENSE for sensitive in found):
        hidden = ()
    else:
        answers = plain(reference, draw), reference.run_exact(draw)
        hidden = tuple(kind for kind in hidden if correlation.can_show(reference, draw, *answers, kind))
    return Sensitivity(
        hidden=hidden,
        probes=tuple(found[:MAX_PROBES]),
        may_use_tf32=may_use_tf32,
        operands=operands,
        tf32_errors=tf32_errors,
        local=_find_sensitive_part(reference, draw, random.Random(seed)) if may_use_tf32 else None,
        telling=_telling(on_inputs) or _telling(on_parameters),
    )


def _of_half(name: Precision, operands: frozenset[str]) -> Sensitivity:
    found = (
        Sensitive(probe=probe, precision=name, nearly_right=_NEARLY_RIGHT)
        for probe in ON_HALF
        if operands or not probe.changes_parameters
    )
    return Sensitivity(probes=tuple(found), operands=operands)


def _find_sensitive_part(reference: Reference, draw: Draw, rng: random.Random) -> Sensitive | None:
    """Return a probe that shows half precision in a task that may use TF32, or None."""
    for probe in SHORT_SUMS:
        found = find_local(reference, draw, probe, rng)
        if found is None:
            return None
        changed, parts, plainly = found
        exact = parts.of(reference.run_exact(changed).tensors)
        own, tf32, cut, half = (
            errors.measure_error(parts.of(output.tensors), exact)
            for output in (
                plainly,
                rounded(reference, changed, "tf32"),
                rounded(reference, changed, "tf32 cut off"),
                rounded(reference, changed, "half"),
            )
        )
        local = Sensitive(probe=probe, tf32_rms=_tf32_rms(tf32, cut))
        if local.refuses(Error(rms=half.rms / _MARGIN, median=half.median), own) and half.rms < _NEARLY_RIGHT:
            return local
    return None


def _until_sensitive(trials: Iterable[_Trial | None]) -> list[_Trial]:
    """Return what was tried, up to the first sensitive probe."""
    done: list[_Trial] = []
    for trial in filter(None, trials):
        done.append(trial)
        if trial.sensitive is not None:
            break
    return done


def _telling(trials: Sequence[_Trial]) -> Sensitive | None:
    """Return the probe on which TF32 errs most beside the reference if that tells them apart. None if one of
    the probes is sensitive, because no other is needed.
    """
    if not trials or trials[-1].sensitive is not None:
        return None
    best = max(trials, key=lambda trial: trial.ratio)
    return Sensitive(probe=best.probe, tf32_rms=best.tf32_rms) if best.ratio >= _TELLING else None


def _with_other_parameters(
    reference: Reference, draw: Draw, operands: frozenset[str], may_use_tf32: bool
) -> list[_Trial]:
    """Try the probes that change parameters, as `_until_sensitive`. Afterwards parameters are as before."""
    kept = {name: tensor.clone() for name, tensor in reference.parameters().items()}
    if not kept:
        return []

    def tried(probe: Probe) -> _Trial | None:
        set_parameters(reference, probe.parameters(reference, operands))
        trial = _tried(reference, probe, draw, may_use_tf32)
        set_parameters(reference, kept)
        return trial

    try:
        return _until_sensitive(map(tried, ON_PARAMETERS))
    finally:
        set_parameters(reference, kept)


def _tf32_rms(rounds: Error, cuts: Error) -> float:
    """Return TF32's error, from those of operands that are rounded to it and cut off."""
    return max(rounds.rms, cuts.rms / _CUT_OFF)


def _tried(reference: Reference, probe: Probe, draw: Draw, may_use_tf32: bool) -> _Trial | None:
    """Return what the probe shows. None if the reference does not take such values, or TF32 changes its
    answer too much.
    """
    changed = probe.inputs(draw)
    try:
        exact, own = reference.run_exact(changed), plain(reference, changed)
        if not all(map(tolerance.is_finite, own.tensors)):
            return None
        own_error = errors.measure_error(own.tensors, exact.tensors)
        del own
        tf32 = errors.measure_error(rounded(reference, changed, "tf32").tensors, exact.tensors)
        lower, tf32_rms = tf32, 0.0
        if may_use_tf32:
            lower = errors.measure_error(rounded(reference, changed, "half").tensors, exact.tensors)
            cut = errors.measure_error(rounded(reference, changed, "tf32 cut off").tensors, exact.tensors)
            tf32_rms = _tf32_rms(tf32, cut)
    except TaskError:
        return None  # The reference does not take values of this range.
    if lower.rms >= _NEARLY_RIGHT:
        return None
    sensitive = Sensitive(probe=probe, tf32_rms=tf32_rms)
    shown = Error(rms=lower.rms / _MARGIN, median=lower.median / _MARGIN)
    if is_sensitive := sensitive.refuses(shown, own_error):
        # It has to show beside what an ordinary formula errs on these inputs. Serial sums, which err less
        # than TF32, would take a second of each admission.
        shown = textbook.unexplained(shown, reference, changed, exact.tensors, serial=False)
        is_sensitive = sensitive.refuses(shown, own_error)
    return _Trial(
        probe=probe,
        tf32_rms=tf32_rms or tf32.rms,
        ratio=tf32.rms / max(own_error.rms, _ROUNDOFF),
        sensitive=sensitive if is_sensitive else None,
    )
