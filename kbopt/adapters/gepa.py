"""GEPA's adapter protocol over an Evaluator: the text that GEPA evolves is a kernel's source.

    folder.mkdir(parents=True, exist_ok=True)
    gepa.optimize(
        seed_candidate={"kernel": source},
        trainset=[reference_source],
        adapter=KernelAdapter(evaluator),
        reflection_lm=...,
        skip_perfect_score=False,
    )

A perfect score is 1.0 to GEPA, where a speedup has no upper end: `skip_perfect_score=False` is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gepa.core.adapter import EvaluationBatch

from kbopt.core.evaluations import Result
from kbopt.core.scoring import score
from kbopt.library import Judges, kernel_source
from kbopt.proposers.answers import Malformed

if TYPE_CHECKING:
    from kbopt.adapters.contest import Contestant

COMPONENT = "kernel"

CALLS_PER_EVALUATION = 10
"""GEPA asks for the score of a text several times, which a search answers from what it knows. One that
proposes nothing new any more ends after so many calls for each evaluation of the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTrace:
    """What GEPA reflects on: one reference, what was tried for it, and what came of it."""

    reference_source: str
    source: str
    score: float
    feedback: str


class KernelAdapter:
    """Implements `gepa.core.adapter.GEPAAdapter`. An item of data is a reference's source.

    A candidate has one component, `kernel`. Its score on a reference is the speedup, 0.0 where it fails;
    an output is the `Result`, None where the text holds no kernel.
    """

    propose_new_texts = None
    """GEPA's own reflection writes the next kernel."""

    def __init__(self, evaluator: Judges) -> None:
        self._evaluator = evaluator

    def evaluate(
        self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[KernelTrace, Result | None]:
        source = kernel_source(candidate[COMPONENT])
        traces: list[KernelTrace] = []
        outputs: list[Result | None] = []
        for reference_source in batch:
            result = None
            if isinstance(source, Malformed):
                value, feedback = 0.0, f"The text holds no kernel: {source.reason}"
            else:
                result = self._evaluator.evaluate(reference_source, source)
                value, feedback = score(result.outcome), result.feedback
            outputs.append(result)
            traces.append(
                KernelTrace(
                    reference_source=reference_source,
                    source=candidate[COMPONENT],
                    score=value,
                    feedback=feedback,
                )
            )
        return EvaluationBatch(
            outputs=outputs,
            scores=[trace.score for trace in traces],
            trajectories=traces if capture_traces else None,
        )

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],
        eval_batch: EvaluationBatch[KernelTrace, Result | None],
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        records = [
            {
                "Inputs": {"reference": trace.reference_source},
                "Generated Outputs": trace.source,
                "Feedback": f"Speedup: {trace.score:.3f}.\n{trace.feedback}",
            }
            for trace in eval_batch.trajectories or []
        ]
        return dict.fromkeys(components_to_update, records)


class _Log:
    """What GEPA says of its progress, in a file: stdout is for the table."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def log(self, message: str) -> None:
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            print(message, file=file)


def optimize(
    contestant: Contestant, reference_source: str, start: str, *, budget: int, seed: int, folder: Path
) -> None:
    """Let GEPA search for a kernel of one task, from `start` on, until the contestant's budget is spent."""
    import gepa

    def model(prompt: str | list[dict[str, Any]]) -> str:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return contestant.ask(messages)

    folder.mkdir(parents=True, exist_ok=True)
    gepa.optimize(
        seed_candidate={COMPONENT: start},
        trainset=[reference_source],
        valset=[reference_source],
        adapter=KernelAdapter(contestant),
        reflection_lm=model,
        reflection_minibatch_size=1,
        skip_perfect_score=False,
        max_metric_calls=CALLS_PER_EVALUATION * budget,
        stop_callbacks=lambda _: contestant.is_over,
        logger=_Log(folder / "gepa.log"),
        run_dir=str(folder),
        seed=seed,
    )
