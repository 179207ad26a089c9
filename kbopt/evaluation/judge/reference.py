"""The trusted side of a task: the reference model, its inputs, its outputs and their float64 answers.

`Reference` lives in the judge's process alone and never sees a candidate.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from kbopt.core.errors import UserError
from kbopt.core.protocol import EvalProtocol
from kbopt.core.text import plural
from kbopt.core.workloads import Workload, workloads_of
from kbopt.evaluation import numerics
from kbopt.evaluation.gradients import NotDifferentiable, Start, starts_of
from kbopt.evaluation.judge.errors import most_moved, moved
from kbopt.evaluation.judge.task_code import TaskError, arguments_of, flattened, guarded, load
from kbopt.evaluation.numerics import constructed, keeps_dtypes, placed, seed_everything
from kbopt.evaluation.passes import Gradients, call_of, output_name
from kbopt.evaluation.transport.layout import Skeleton, TensorSpec, flatten, same_structure, unflatten

_NUM_NEARBY = 16
"""Answers to moved inputs. The chance that an element near a tie changes in none of them is one in tens of
thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nested:
    """A `skeleton` around `tensors`."""

    skeleton: Skeleton
    tensors: tuple[torch.Tensor, ...]

    @property
    def size_bytes(self) -> int:
        return sum(t.nbytes for t in self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(_Nested):
    """What a call of a model returned. `tensors` end with the inputs that the reference writes to, as they
    are after the call, see `Reference.written`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw(_Nested):
    """One set of arguments of a call, already in the task's precision.

    `workload` is the number of the workload that it belongs to. With `--backward` there are two arguments, as
    in `passes`: forward's own, and the outputs' gradients.
    """

    workload: int = 0

    def arguments(self, tensors: tuple[torch.Tensor, ...] | None = None) -> list[Any]:
        return list(unflatten(self.skeleton, self.tensors if tensors is None else tensors))


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The structure and the specs of one workload's arguments, which are the same for each draw."""

    skeleton: Skeleton
    specs: tuple[TensorSpec, ...]


@dataclass(slots=True, kw_only=True)
class _Twins:
    """One model and its twin in float64, which all workloads of a task share. `is_copy` says how the twin was
    made.
    """

    model: torch.nn.Module
    exact: torch.nn.Module
    is_copy: bool
    keeps_state: bool = False


class Reference:
    """The `Model` of a task on a device, with weights from `weight_seed`, on one workload.

    `number` is that of the workload. It is 0 for the reference that the constructor makes; `others` are the
    same model on the other workloads. `exact` is the same model in float64, used while `has_exact`.
    `written` has the numbers of the inputs that a call writes to. What is in them afterwards is part of the
    answer. `output_sizes` are the bytes of each tensor that the latest call returned. `keeps_state` says that
    a call changes the answer of the next one: then each call runs on a fresh copy of the model.

    Methods raise TaskError, and OutOfMemoryError for want of memory. The message names the workload.
    """

    _twins: _Twins

    def __init__(self, source: str, protocol: EvalProtocol, device: torch.device, weight_seed: int) -> None:
        if device.type == "cuda":
            torch.cuda.init()
        numerics.apply(protocol.arithmetic)
        self.source = source
        self.protocol = protocol
        self.precision = protocol.precision
        self.device = device
        self.weight_seed = weight_seed
        self.module = load(source)
        self.keeps_dtypes = keeps_dtypes(self.module)
        seed_everything(weight_seed)
        self.init_skeleton, init_tensors = arguments_of("get_init_inputs()", self.module.get_init_inputs)
        self.init_tensors = tuple(self._place(t) for t in init_tensors)
        self.has_exact = True
        self.output_sizes: tuple[int, ...] = ()
        self.written: tuple[int, ...] = ()
        self.number = 0
        try:
            self.workload, *others = workloads_of(source)
        except UserError as error:
            raise TaskError(str(error)) from None
        self._form: Form | None = None
        self._start: Start | None = None
        self._twins = self._constructed()
        self.others = tuple(self._on(number, workload) for number, workload in enumerate(others, 1))

    def _on(self, number: int, workload: Workload) -> Reference:
        other = copy.copy(self)
        other.number, other.workload = number, workload
        return other

    @property
    def model(self) -> torch.nn.Module:
        return self._twins.model

    @property
    def exact(self) -> torch.nn.Module:
        return self._twins.exact

    @property
    def keeps_state(self) -> bool:
        return self._twins.keeps_state

    def start_anew_for_each_call(self) -> None:
        """Construct the model again. Each call gets a copy of this model from now on."""
        fresh = self._constructed()
        self._twins.model, self._twins.exact, self._twins.is_copy = fresh.model, fresh.exact, fresh.is_copy
        self._twins.keeps_state = True

    def _constructed(self) -> _Twins:
        return guarded("Model(*get_init_inputs()) raised", self._made_twice)

    def _made_twice(self) -> _Twins:
        model = self._made()
        is_copy = True
        try:
            exact = numerics.in_float64(copy.deepcopy(model))
        except (RuntimeError, TypeError):  # it holds a lock, or the tensors of torch's older weight_norm
            exact, is_copy = self._made_in_float64(model), False
        for tensor in model.state_dict().values():
            tensor.detach()  # which a parameter without a size refuses
        return _Twins(model=model, exact=exact, is_copy=is_copy)

    def _made_in_float64(self, model: torch.nn.Module) -> torch.nn.Module:
        """Construct the model's twin in float64, with the same parameters."""
        exact = self._made()
        exact.load_state_dict(model.state_dict())
        return numerics.in_float64(exact)

    def _made(self) -> torch.nn.Module:
        values = unflatten(self.init_skeleton, self.init_tensors)
        how = self.weight_seed, self.protocol, self.device
        model = constructed(self.module.Model, values, *how, keeps=self.keeps_dtypes)
        if not isinstance(model, torch.nn.Module):
            raise TaskError(f"Model is a {type(model).__name__}; it has to be a torch.nn.Module")
        return model

    def parameters(self) -> dict[str, torch.Tensor]:
        """Return the model's state dict: parameters and persistent buffers by name."""
        return {name: tensor.detach() for name, tensor in self.model.state_dict().items()}

    def held_tensors(self) -> Iterator[torch.Tensor]:
        """Yield the tensors that the model keeps from one call to the next."""
        for module in self.model.modules():
            every = (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
            yield from (value for value in every if isinstance(value, torch.Tensor))

    @property
    def output_bytes(self) -> int:
        return sum(self.output_sizes)

    def draw(self, seed: int) -> Draw:
        """Draw inputs from `get_inputs()` on the device under `seed`, cast to the task's precision."""
        seed_everything(seed)
        where, given = self.workload.where, self.workload.arguments
        with torch.device(self.device):
            skeleton, tensors = arguments_of(f"{where}get_inputs()", lambda: self.module.get_inputs(**given))
        placed_tensors = tuple(self._place(t) for t in tensors)
        if self.protocol.backward:
            if self._start is None:
                self._start = self._starts(skeleton, placed_tensors)
                return self.draw(seed)  # `_starts` drew random numbers, so seed again.
            skeleton, placed_tensors = self._start.with_gradients(skeleton, placed_tensors)
        draw = Draw(skeleton=skeleton, tensors=placed_tensors, workload=self.number)
        if self._form is not None and self._form != _form_of(draw):
            raise TaskError(
                f"admission test 'same form' failed: {where}get_inputs() returns other shapes or numbers "
                "each time; fix them, name each of them in get_workloads(), or return a number as a tensor"
            )
        return draw

    def _starts(self, skeleton: Skeleton, tensors: tuple[torch.Tensor, ...]) -> Start:
        """Return where backward passes start. Raises TaskError if the reference is not differentiable."""
        what = f"{self.workload.where}the reference's forward and backward raised"
        try:
            return guarded(
                what,
                lambda: starts_of(copy.deepcopy(self.model), skeleton, tensors),
                passed=NotDifferentiable,
            )
        except NotDifferentiable as error:
            raise TaskError(f"admission test 'differentiable' failed: {self.workload.where}{error}") from None

    @property
    def gradients(self) -> Gradients | None:
        """The gradients that backward passes are asked for. None if calls are forward alone, and before the
        first draw.
        """
        return self._start.gradients if self._start is not None else None

    def name_of(self, number: int) -> str:
        """Return the name in messages of the tensor of that number in an `Output`."""
        past = number - len(self.output_sizes)
        if past >= 0:
            return f"input {self.written[past]}, to which the reference writes,"
        return output_name(number) if self.gradients is None else self.gradients.name_of(number)

    def form(self, draw: Draw | None = None) -> Form:
        """Return the form of this workload's draws. `draw` is one of them, to save drawing another."""
        if self._form is None:
            self._form = _form_of(draw or self.draw(0))
        return self._form

    def require_form_of(self, first: Reference) -> None:
        """Require that `get_inputs()` returns as many tensors, and other arguments of the same kinds, as for
        the first workload. Raises TaskError.
        """
        theirs, ours = first.form(), self.form()
        if not same_structure(theirs.skeleton, ours.skeleton):
            raise TaskError(
                f"get_workloads(): get_inputs() returns {plural(len(theirs.specs), 'tensor')} for workload "
                f"{first.workload.name} and {len(ours.specs)} for {self.workload.name}, or other kinds of "
                "arguments; have it return the same number and kinds, of whatever sizes"
            )

    def run(self, arguments: list[Any]) -> Output:
        """Return the reference's own answer, at the task's precision. It may write to the arguments."""
        model = copy.deepcopy(self.model) if self.keeps_state else self.model
        with torch.no_grad():
            passes = "forward and backward" if self.protocol.backward else "forward"
            what = f"{self.workload.where}the reference's {passes} raised"
            value = guarded(what, call_of(model, self.gradients, arguments))
        skeleton, tensors = flattened(value, "the reference's forward")
        if not tensors:
            raise TaskError("admission test 'returns a tensor' failed: the reference returns no tensor")
        for number, where in enumerate(tensor.device.type for tensor in tensors):
            if where != self.device.type:
                raise TaskError(
                    f"admission test 'returns a tensor' failed: output {number} lies on {where}, while the "
                    f"inputs lie on {self.device.type}; return it where they are"
                )
        self.output_sizes = tuple(t.nbytes for t in tensors)
        return self._with_written(skeleton, tensors, arguments)

    def _with_written(self, skeleton: Skeleton, tensors: list[torch.Tensor], arguments: list[Any]) -> Output:
        given = flatten(arguments)[1]
        every = (*tensors, *(given[number] for number in self.written))
        return Output(skeleton=skeleton, tensors=tuple(t.detach() for t in every))

    def run_exact(self, draw: Draw) -> Output:
        """Return the answer in float64, or in the task's own precision if the model refuses float64."""
        while self.has_exact:
            try:
                return self._run_in_float64(draw)
            except TaskError:
                # Models that fix a dtype inside (`.float()`, a buffer, an assert) refuse float64. A copy does
                # so too if a function that the model keeps calls the first one's modules (level3/44).
                self.has_exact = self._twins.is_copy
                if self._twins.is_copy:
                    self._twins.exact = self._twins.model  # gives its memory back
                    self._twins.exact, self._twins.is_copy = self._made_in_float64(self.model), False
        return self.run(draw.arguments(tuple(t.clone() for t in draw.tensors)))

    def _run_in_float64(self, draw: Draw) -> Output:
        arguments = draw.arguments(tuple(_widened(t) for t in draw.tensors))
        model = copy.deepcopy(self.exact) if self.keeps_state else self.exact
        with torch.no_grad():
            value = guarded("in float64", call_of(model, self.gradients, arguments))
        skeleton, outputs = flattened(value, "the reference's forward in float64")
        return self._with_written(skeleton, outputs, arguments)

    def nearby(self, draw: Draw, most: float | None = None) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield the float64 answers to inputs that are moved at random by up to `most` of themselves.

        By default that is as much as rounding changes an element in all, see `errors.most_moved`.
        """
        most = most_moved(self.precision) if most is None else most
        for number in range(_NUM_NEARBY):
            tensors = moved(draw.tensors, most, together=number % 2 == 1)
            if not self.has_exact:
                tensors = [t.to(like.dtype) for t, like in zip(tensors, draw.tensors, strict=True)]
            yield self.run_exact(replace(draw, tensors=tuple(tensors))).tensors

    @property
    def free_bytes(self) -> int:
        """The bytes of the device's memory that other processes leave to this one; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        return free_bytes + torch.cuda.memory_reserved(self.device)

    def synchronize(self) -> None:
        numerics.synchronize(self.device)

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        return placed(tensor, self.precision, self.device, keeps=self.keeps_dtypes)


def _form_of(draw: Draw) -> Form:
    return Form(skeleton=draw.skeleton, specs=tuple(map(TensorSpec.of, draw.tensors)))


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy, in double precision if the tensor holds floats."""
    if tensor.is_complex():
        return tensor.to(torch.complex128, copy=True)
    return tensor.to(torch.float64, copy=True) if tensor.is_floating_point() else tensor.clone()
