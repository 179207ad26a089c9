"""Prometheus series through Ray, which exports them beside its own as `ray_kbopt_*` on each node."""

from __future__ import annotations

from ray.util.metrics import Gauge

from kbopt.cluster.messages import CoordinatorStatus, EvaluatorStatus

PUBLISH_S = 5.0


class EvaluatorMetrics:
    """The evaluator's figures since its process began."""

    def __init__(self) -> None:
        self._evaluations = Gauge("kbopt_evaluations", "Evaluations by outcome", tag_keys=("outcome",))
        self._queue_length = Gauge("kbopt_queue_length", "Requests that wait for the device")
        self._in_flight = Gauge("kbopt_in_flight", "Requests that the backend holds")
        self._cached = Gauge("kbopt_cached", "Requests answered without the device")
        self._busy_s = Gauge("kbopt_lease_busy_seconds", "Seconds in which the device ran a model")
        self._cold_starts = Gauge("kbopt_cold_starts", "Containers or workers started")

    def publish(self, status: EvaluatorStatus) -> None:
        for outcome, count in status.by_outcome.items():
            self._evaluations.set(count, {"outcome": outcome})
        self._queue_length.set(status.queue_length)
        self._in_flight.set(status.in_flight)
        self._cached.set(status.cached + status.joined)
        self._busy_s.set(status.device_s)
        self._cold_starts.set(status.backend.cold_starts)


class CoordinatorMetrics:
    """The figures of every search of the sweep `sweep`."""

    def __init__(self, sweep: str) -> None:
        self._sweep = sweep
        tags = ("sweep", "search")
        self._speedup = Gauge("kbopt_best_speedup", "Speedup of the best kernel so far", tag_keys=tags)
        self._proposals = Gauge("kbopt_proposals", "Proposals made", tag_keys=tags)
        self._tokens = Gauge("kbopt_tokens", "Tokens of language models", tag_keys=tags)
        self._usd = Gauge("kbopt_usd", "Dollars for language models and containers", tag_keys=tags)
        self._staleness = Gauge("kbopt_staleness", "Median staleness of candidates", tag_keys=tags)

    def publish(self, status: CoordinatorStatus) -> None:
        for search in status.searches:
            tags = {"sweep": self._sweep, "search": search.name}
            self._speedup.set(search.best.speedup if search.best else 0.0, tags)
            self._proposals.set(search.progress.proposals, tags)
            self._tokens.set(search.progress.tokens, tags)
            self._usd.set(search.progress.usd, tags)
            self._staleness.set(search.progress.staleness_median, tags)
