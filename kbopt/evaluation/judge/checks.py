"""Checks that a candidate's answers are right and as precise as the task demands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import torch

from kbopt.core.outcomes import Rejected, WrongAnswer
from kbopt.evaluation.judge import errors, precision, rounding, textbook, tolerance, values
from kbopt.evaluation.judge.admission import Admission
from kbopt.evaluation.judge.answers import Refused
from kbopt.evaluation.judge.calls import Calls
from kbopt.evaluation.judge.correlation import HiddenRounding
from kbopt.evaluation.judge.kinds import Kind
from kbopt.evaluation.judge.precision import NEARLY_RIGHT, WHOLE, Parts, Sensitive
from kbopt.evaluation.judge.probes import DENSE, SHARES, Probe
from kbopt.evaluation.judge.products import lower_arithmetic, takes_fewer_bits
from kbopt.evaluation.judge.reference import Draw, Output, Reference
from kbopt.evaluation.judge.stand_ins import describe_stand_in
from kbopt.evaluation.judge.steps import counts_in_steps
from kbopt.evaluation.judge.tolerance import Mismatch
from kbopt.evaluation.judge.worker import Exchange
from kbopt.evaluation.worker_messages import Operation

_CALLS_BEFORE = (3, 12)
"""Fewest and most ordinary calls before a repeated probe with other parameters (decision 45)."""
_KINDS_SHARE = 0.5
"""This share of the value probes among timed calls is of a kind of values. The others stay within the range
of the task's own values."""
_STILL_RIGHT = 0.05
"""The reference's own relative error up to which a kind of values counts. Rounding to bf16 makes 0.4 %."""


class Checks:
    """The checks of one judgement on one workload. Each raises Refused if the candidate fails it.

    `arithmetic` lists the arithmetic other than fp32 that was seen in the candidate's machine code.
    `kinds` are the kinds of values that the task's contract allows, and `tried` names those that were tried.
    """

    def __init__(
        self,
        calls: Calls,
        reference: Reference,
        admission: Admission,
        rng: random.Random,
        arithmetic: Sequence[str],
    ) -> None:
        self._calls = calls
        self._reference = reference
        self._admission = admission
        self._rng = rng
        self._own_errors = (0.0,) * (len(calls.expected.tensors) + len(reference.written))
        self._tf32_errors = admission.sensitivity.tf32_errors
        self.arithmetic = list(arithmetic)
        self._shows_fp32 = self._is_right = False
        self._hidden = HiddenRounding(reference, admission.sensitivity.hidden)
        self._contract, self.kinds = admission.contract, admission.contract.kinds
        self.tried: set[str] = set()
        probes = admission.sensitivity.probes
        self._dense = next((s for s in probes if s.probe == DENSE), None)

    def check(self, num_calls: int) -> None:
        """Check so many calls on the task's own inputs, and more while the last one shows hidden rounding."""
        while num_calls > 0 or self._hidden.is_pending:
            self.check_one(self._calls.draw())
            num_calls -= 1
        self._is_right = True

    def check_one(self, draw: Draw, operation: Operation = "run") -> Exchange:
        """Make one call on `draw`, and compare its answer with float64."""
        exact, own = self._calls.exact_answer(draw), self._calls.own_answer(draw)
        own_errors = tolerance.largest_errors(own.tensors, exact.tensors)
        self._own_errors = tuple(map(max, self._own_errors, own_errors))
        exchange, outputs = self._calls.call(operation, [draw], [0])
        downgrade = self._downgrade_of(outputs[0], exact, own, draw, self._dense)
        if downgrade is not None:
            if errors.describe_bias(outputs[0], exact.tensors):
                self.require_right(outputs[0], exact, own, draw)
            self._is_right = False
            self.probe_precision()  # If most inputs are zero, a guess is no longer nearly right.
            raise downgrade
        self.require_right(outputs[0], exact, own, draw)
        self._require_whole(outputs[0], exact, own, draw)
        return exchange

    def require_right(self, got: list[torch.Tensor], exact: Output, own: Output, draw: Draw) -> None:
        """Raise Refused if an answer to the task's own inputs is wrong."""
        answers, moved = (got, exact, own, draw), self._tf32_errors
        mismatch = self._mismatch(*answers, moved, self._own_errors)
        if mismatch is None or self._is_excused(*answers):
            return
        others = rounding.errors_of_others(self._reference, draw, got, exact, moved=False, may_use_tf32=False)
        mismatch = self._mismatch(*answers, tuple(map(max, moved or others, others)), self._own_errors)
        if mismatch is not None:
            bias = errors.describe_bias(got, exact.tensors, self._reference.name_of)
            reason = f"{bias}: {mismatch}" if bias else str(mismatch)
            raise Refused(WrongAnswer(reason=f"{reason}{self._calls.misfit_note}"))

    def _mismatch(
        self,
        got: list[torch.Tensor],
        exact: Output,
        own: Output,
        draw: Draw,
        moved_errors: Sequence[float] = (),
        own_errors: Sequence[float] = (),
    ) -> Mismatch | None:
        return tolerance.find_mismatch(
            got,
            exact.tensors,
            own.tensors,
            self._admission.tolerance,
            own_errors,
            lambda: self._reference.nearby(draw),
            moved_errors,
            self._reference.name_of,
        )

    def require_close(self, got: list[torch.Tensor], own: Output, draw: Draw) -> None:
        """Compare an answer with the reference's own, and with float64 if it is not close enough to that."""
        close = own.tensors, own.tensors, self._admission.tolerance
        if tolerance.find_mismatch(got, *close, moved_errors=self._tf32_errors) is not None:
            self.require_right(got, self._calls.exact_answer(draw), own, draw)

    def _is_excused(self, got: list[torch.Tensor], exact: Output, own: Output, draw: Draw) -> bool:
        """Return whether the answer is right but for kinks of a gradient that rounding decided otherwise."""
        known = self._admission.tolerance, self._admission.sensitivity.may_use_tf32
        return rounding.decides(self._reference, draw, got, exact, own, *known)

    def _downgrade_of(
        self,
        got: list[torch.Tensor],
        exact: Output,
        own: Output,
        draw: Draw,
        sensitive: Sensitive | None,
        parts: Parts = WHOLE,
    ) -> Refused | None:
        """Return the refusal of an answer whose error in these parts is that of a lower precision, or None.

        A larger error is that of a guess and not refused here. The limit is that of `sensitive`, if given.
        An error is excused if a kink of a gradient or a textbook formula explains it.
        """
        name, want = self._reference.precision, parts.of(exact.tensors)
        candidate = errors.measure_error(parts.of(got), want)
        usual = errors.measure_error(parts.of(own.tensors), want)
        nearly_right = sensitive.nearly_right if sensitive else NEARLY_RIGHT
        if not self._reference.has_exact or candidate.rms > max(nearly_right, 16 * usual.rms):
            return None
        if sensitive is not None and sensitive.shows_fp32(candidate, usual):
            self._shows_fp32 = True
        how = sensitive, name, self._admission.sensitivity.may_use_tf32
        if not precision.is_lower(candidate, usual, *how) or self._is_excused(got, exact, own, draw):
            return None
        rest = textbook.unexplained(candidate, self._reference, draw, want, parts.of)
        if not precision.is_lower(rest, usual, *how):
            return None
        reason = precision.describe_downgrade(candidate, usual, sensitive, name, parts.inputs)
        return Refused(Rejected(reason=reason, family="precision_downgrade"))

    def probe_precision(self, shares: Sequence[float] = SHARES) -> None:
        """Try parameters, and inputs with `shares` of nonzeros, whose rounding no sum or later step hides."""
        if not self._reference.has_exact:
            return
        downgrade: Refused | None = None
        for share in shares if self._contract.takes_zeros else ():
            probe = Probe(name="inputs of which most elements are zero", share=share)
            downgrade = self._probe(probe, None) or downgrade
        has_heavy = any(kind.name == "heavy_tailed" for kind in self.kinds)
        for sensitive in self._admission.sensitivity.probes:
            if sensitive.probe != DENSE and (has_heavy or sensitive.probe.heavy != "inputs"):
                downgrade = downgrade or self._probe_of(sensitive)
        if downgrade is not None:
            raise downgrade

    def probe_after_other_calls(self) -> None:
        """Repeat the probes that change parameters, after calls on the task's own inputs. Each needs a model
        of its own, so they cannot travel among the timed calls. Compare each kind of hidden rounding again.
        """
        self.check(len(self._admission.sensitivity.hidden))
        for sensitive in self._admission.sensitivity.probes:
            calls_before = self._rng.randint(*_CALLS_BEFORE)
            if sensitive.probe.changes_parameters and (found := self._probe_of(sensitive, calls_before)):
                raise found

    def _probe_of(self, sensitive: Sensitive, calls_before: int = 0) -> Refused | None:
        """Return the refusal on a probe, else None. If it changes parameters, a new model of the candidate's
        gets them. Its wrong answer is not refused: the constructor may have derived data from its own.
        """
        if not sensitive.probe.changes_parameters:
            return self._probe(sensitive.probe, sensitive)
        if not self._calls.worker.takes_weights:
            return None
        reference, worker = self._reference, self._calls.worker
        kept = {name: tensor.clone() for name, tensor in reference.parameters().items()}
        operands = self._admission.sensitivity.operands
        try:
            precision.set_parameters(reference, sensitive.probe.parameters(reference, operands))
            worker.construct(reference.parameters())
            for _ in range(calls_before):
                self._calls.call("run", [self._calls.draw()], [])
            found = self._probe(sensitive.probe, sensitive)
        finally:
            precision.set_parameters(reference, kept)
        worker.construct(kept)
        return found

    def _probe(self, probe: Probe, sensitive: Sensitive | None) -> Refused | None:
        """Return the refusal for the precision of one answer, else None. Raises Refused if it is wrong."""
        draw = probe.inputs(self._calls.draw())
        exact = self._calls.exact_answer(draw)
        own = self._calls.own_answer(draw)
        if not all(map(tolerance.is_finite, own.tensors)):
            return None
        _, outputs = self._calls.call("run", [draw], [0])
        candidate, usual = (errors.measure_error(one, exact.tensors) for one in (outputs[0], own.tensors))
        if probe.changes_parameters or candidate.rms <= max(NEARLY_RIGHT, 16 * usual.rms):
            return self._downgrade_of(outputs[0], exact, own, draw, sensitive, Parts(inputs=probe.name))
        if self._is_excused(outputs[0], exact, own, draw):
            return None
        found = self._mismatch(outputs[0], exact, own, draw) or f"its relative error is {candidate.rms:.2g}"
        if self._is_right:
            self._refuse_values(f"{probe.name}: {found}")
        raise Refused(WrongAnswer(reason=f"with {probe.name}: {found}"))

    def travelling_probe(self, number: int) -> None:
        """Make one call that the candidate cannot tell from a timed one, on values that it may not take for
        granted. For every other `number` it has a few short sums, which show precision, if the task allows.
        """
        if number % 2 or not self._travels_with_other_slices():
            self._travel_shifted()

    def _travel_shifted(self) -> None:
        kinds = self.kinds if self._rng.random() < _KINDS_SHARE else ()
        if kinds:
            self.try_kind(*self._rng.choices(kinds, [kind.tries for kind in kinds]))
            return
        moves = not any(map(counts_in_steps, self._calls.expected.tensors))
        draw = values.shifted(self._calls.draw(), self._rng, moves=moves)
        mismatch = self._mismatch_on(draw)
        if mismatch is not None:
            self._refuse_values(f"inputs of another distribution, within the range of its own: {mismatch}")

    def try_kind(self, kind: Kind) -> None:
        """Check one answer to inputs of that kind of values."""
        self.tried.add(kind.name)
        draw = self._contract.varied(self._calls.draw(), kind)
        if draw is None:
            return
        mismatch = self._mismatch_on(draw, forgiving=True)
        if mismatch is not None:
            self._refuse_values(f"inputs {kind.description} ({kind.name}): {mismatch}")

    def _mismatch_on(self, draw: Draw, *, forgiving: bool = False) -> Mismatch | None:
        """Return what is wrong with an answer to `draw`. None also if the reference raises, is not finite
        or, if `forgiving`, errs by more than `_STILL_RIGHT`.

        An answer may differ as `rounding.errors_of_others` says, also by moved inputs if `forgiving`.
        """
        own = self._calls.own_answer_or_none(draw)
        if own is None or not all(map(tolerance.is_finite, own.tensors)):
            return None  # The task's contract excludes such values.
        exact = self._calls.exact_answer(draw)
        if forgiving and errors.is_lost(own.tensors, exact.tensors, _STILL_RIGHT):
            return None
        _, (outputs,) = self._calls.call("run", [draw], [0])
        answers = outputs, exact, own, draw
        if self._mismatch(*answers) is None or self._is_excused(*answers):
            return None
        tf32, known = self._admission.sensitivity.may_use_tf32, (self._reference, draw, outputs, exact)
        others = rounding.errors_of_others(*known, moved=forgiving, may_use_tf32=tf32)
        return self._mismatch(*answers, others)

    def _refuse_values(self, where: str) -> NoReturn:
        """Refuse a candidate that was wrong on the values that `where` describes: for a wrong answer if it is
        wrong on the task's own values too, else for a value specialisation.
        """
        self.check_one(self._calls.draw())
        reason = f"it is right for what get_inputs() draws, and wrong on {where}"
        raise Refused(Rejected(reason=reason, family="value_specialisation"))

    def _travels_with_other_slices(self) -> bool:
        """Make a call on inputs of which a few slices show precision, by short sums or by another scale.
        Return False if the task allows no such call.

        These slices decide a part of the output, which shows the rounding that is hidden elsewhere.
        """
        reference, sensitivity = self._reference, self._admission.sensitivity
        if not reference.has_exact or (sensitivity.may_use_tf32 and sensitivity.local is None):
            return False
        probe = precision.local_probe(sensitivity)
        found = precision.find_local(reference, self._calls.draw(), probe, self._rng)
        if found is None:
            return False
        draw, parts, own = found
        exact = self._calls.exact_answer(draw)
        if not all(map(tolerance.is_finite, own.tensors)):
            return False
        _, (outputs,) = self._calls.call("run", [draw], [0])
        # Only that part is compared: the long sums are so much larger that their rounding excuses anything.
        got, want, mine = map(parts.of, (outputs, exact.tensors, own.tensors))
        candidate, usual = errors.measure_error(got, want), errors.measure_error(mine, want)
        if candidate.rms > max(NEARLY_RIGHT, 16 * usual.rms):
            slack = textbook.moved_errors(reference, draw, want, parts.of)
            bounds = self._admission.tolerance, (), None, slack, reference.name_of
            mismatch = tolerance.find_mismatch(got, want, mine, *bounds)
            if mismatch is not None and not self._is_excused(outputs, exact, own, draw):
                self._refuse_values(f"{probe.name} in a part of it: {mismatch}")
        refusal = self._downgrade_of(outputs, exact, own, draw, sensitivity.local, parts)
        if refusal is not None:
            raise refusal
        return True

    def require_precise(self, got: list[torch.Tensor], own: Output, draw: Draw) -> None:
        """Compare the precision of a timed call's answer as the checks do."""
        exact = self._calls.exact_answer(draw)
        downgrade = self._downgrade_of(got, exact, own, draw, self._dense)
        if downgrade is not None:
            raise downgrade
        self._require_whole(got, exact, own, draw)

    def _require_whole(self, got: list[torch.Tensor], exact: Output, own: Output, draw: Draw) -> None:
        """Refuse sums that stand in for products, and products in a lower precision."""
        name, reference = self._reference.precision, self._reference
        lack = describe_stand_in(name, got, exact.tensors, own.tensors, reference.name_of)
        if lack:
            raise Refused(WrongAnswer(reason=lack))
        if kind := self._hidden.found(draw, got, own, exact):
            raise Refused(Rejected(reason=precision.describe_hidden(kind), family="precision_downgrade"))

    def require_allowed_arithmetic(self) -> None:
        """Refuse half precision that was seen at work, and TF32 if the reference may not use it, unless a
        probe showed the accuracy of fp32. In a task in half precision, refuse products of a coarser type.
        """
        reference, name = self._reference, self._reference.precision
        if (name == "fp32" and self._shows_fp32) or takes_fewer_bits(reference, self._calls.draw()):
            return
        known = self._admission.sensitivity
        seen = lower_arithmetic(self.arithmetic, name, known.dtypes, may_use_tf32=known.may_use_tf32)
        if seen and known.telling:
            with suppress(Refused):
                self._probe_of(known.telling)
        if seen and not (known.telling and self._shows_fp32):
            raise Refused(Rejected(reason=precision.describe_arithmetic(seen), family="precision_downgrade"))
