"""GEPA's adapter protocol over an Evaluator: the text that GEPA evolves is a kernel's source.

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
from typing import Any

from gepa.core.adapter import EvaluationBatch

from kbopt.core.scoring import score
from kbopt.core.types import Result
from kbopt.library import Evaluator, kernel_source
from kbopt.proposers.answers import Malformed

COMPONENT = "kernel"


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

    def __init__(self, evaluator: Evaluator) -> None:
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
