"""What first briefs ask for, and in which order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from kbopt.core import codec
from kbopt.core.bottleneck import bounds_of
from kbopt.core.events import Asked, Event, TaskProfiled
from kbopt.core.kernel_strategies import Bound, KernelStrategy, has_product, next_strategy, suitable
from kbopt.core.profile import Limits, Missing
from kbopt.core.proposals import Brief, Candidate, NoProposal
from kbopt.core.search import Search
from kbopt.core.settings import Algorithm, SearchSettings
from kbopt.simulated import ListJournal, landscape
from tests.core.test_bottleneck import profile
from tests.support.llm_briefs import measured, trial

STRATEGIES = (
    KernelStrategy(name="launch", text="Launch less.", fits=("launch",)),
    KernelStrategy(name="tensor", text="Use tensor cores.", fits=("compute",)),
    KernelStrategy(name="wide", text="Load wide.", fits=("memory", "latency")),
    KernelStrategy(name="tiles", text="Tile.", fits=("compute", "memory")),
    KernelStrategy(name="own", text="As you like."),
)
TASK = landscape("sim/smooth").task


def order(bounds: tuple[Bound, ...], seed: int = 0, length: int = 5) -> list[str]:
    used: Counter[str] = Counter()
    for _ in range(length):
        used[next_strategy(STRATEGIES, used, bounds, seed).name] += 1
    return list(used)


def test_what_suits_every_task_comes_first_and_what_fits_the_first_limit_next() -> None:
    assert order(("compute", "launch"))[0] == "own"
    assert set(order(("compute", "launch"))[1:3]) == {"tensor", "tiles"}
    assert order(("compute", "launch"))[3:] == ["launch", "wide"]
    assert order(("launch", "memory"))[:2] == ["own", "launch"]


def test_each_is_asked_for_before_any_is_asked_for_again() -> None:
    used: Counter[str] = Counter()
    for _ in range(12):
        used[next_strategy(STRATEGIES, used, ("memory",), 3).name] += 1
    assert sorted(used.values()) == [2, 2, 2, 3, 3]


def test_the_seed_orders_what_fits_equally_well() -> None:
    orders = {tuple(order((), seed)) for seed in range(20)}
    assert len(orders) > 5
    assert {names[0] for names in orders} == {"own"}
    assert order((), 7) == order((), 7)


@pytest.mark.parametrize(
    ("floor_ms", "operations_ms", "expected"),
    [(0.03, 0.001, "memory"), (0.001, 0.03, "compute")],
)
def test_the_higher_floor_is_a_limit_of_the_task(
    floor_ms: float, operations_ms: float, expected: str
) -> None:
    one = profile(40.0)
    limits = Limits(size_bytes=1, operations=1, floor_ms=floor_ms, operations_ms=operations_ms)
    found = bounds_of(replace(one, limits=limits, bottleneck=None))
    assert found[0] == expected


def test_a_reference_of_several_kernels_is_limited_by_launches_too() -> None:
    one = profile(40.0)
    assert one.bottleneck is not None
    several = replace(one, trace=replace(one.trace, num_parts=5))
    assert bounds_of(several) == (one.bottleneck.bound, "launch")
    nothing = Limits(size_bytes=0, operations=0, floor_ms=0.0, operations_ms=0.0)
    assert bounds_of(replace(one, trace=Missing(reason="no"), bottleneck=None, limits=nothing)) == ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("return a @ b", True),
        ("a @= b", True),
        ("return torch.matmul(a, b.T)", True),
        ("return a.mm(b)", True),
        ("return torch.baddbmm(c, a, b)", True),
        ("self.fc = nn.Linear(8, 8)", True),
        ("self.first = nn.Conv2d(3, 8, 3)", True),
        ("return F.conv_transpose3d(a, b)", True),
        ("self.up = torch.nn.ConvTranspose1d(3, 8, 3)", True),
        ("return torch.einsum('ij,jk->ik', a, b)", True),
        ("return F.scaled_dot_product_attention(a, a, b)", True),
        ("self.cell = nn.LSTM(8, 8)", True),
        ("self.cell = nn.GRU(8, 8)", True),
        ("return torch.diag(a) @ b", False),
        ("return torch.matmul(torch.diag(a), b)", False),
        ("return a.diag_embed().bmm(b)", False),
        ("return torch.cdist(torch.diag(a) @ b, c)", True),
        ("self.norm = nn.LayerNorm(8)", False),
        ("self.norm = nn.GroupNorm(8, 8)", False),
        ("return F.cross_entropy(a, b)", False),
        ("return torch.softmax(a.convert(b), 1) * torch.sum(a)", False),
        ("return 'a matmul'  # matmul", False),
        ("return (", True),
    ],
)
def test_a_task_has_a_product_where_its_source_names_one(line: str, expected: bool) -> None:
    assert has_product(f"def forward(self, a, b, c):\n    {line}\n") is expected


def test_who_needs_a_product_is_left_out_of_tasks_without_one() -> None:
    products = (replace(STRATEGIES[1], needs_product=True), STRATEGIES[4])
    assert suitable(products, "a @ b") == products
    assert suitable(products, "a + b") == products[1:]
    assert suitable(products[:1], "a + b") == products[:1]

    journal = ListJournal()
    given = tuple(replace(one, needs_product=one.name == "tensor") for one in STRATEGIES)
    search = new_search(journal, strategies=given, num_candidates=8)
    search.take_bounds(("compute",))
    asked_for = [brief.strategy.name for brief in first_briefs(search, 8) if brief.strategy]
    assert sorted(asked_for) == ["launch", "launch", "own", "own", "tiles", "tiles", "wide", "wide"]


def new_search(journal: ListJournal, **given: object) -> Search:
    settings = SearchSettings(num_candidates=5, strategies=STRATEGIES, seed=4)
    return Search(task=TASK, settings=replace(settings, **given), journal=journal)  # type: ignore[arg-type]


def first_briefs(search: Search, most: int = 5) -> list[Brief]:
    return [asked for _ in range(most) if isinstance(asked := search.ask(), Brief)]


@pytest.mark.parametrize("algorithm", ["PS", "PS_epsNet", "best_of_n"])
def test_first_briefs_ask_for_different_strategies(algorithm: Algorithm) -> None:
    journal = ListJournal()
    search = new_search(journal, algorithm=algorithm)
    assert search.wants_bounds
    search.take_bounds(("compute",))
    assert not search.wants_bounds
    briefs = first_briefs(search)
    asked_for = [brief.strategy.name for brief in briefs if brief.strategy]
    assert len(set(asked_for)) == 5
    assert asked_for[0] == "own"
    assert set(asked_for[1:3]) == {"tensor", "tiles"}
    assert [event.strategy for event in journal.events if isinstance(event, Asked)] == asked_for


def test_a_search_that_is_resumed_hands_out_the_same_strategies() -> None:
    journal = ListJournal()
    search = new_search(journal)
    search.take_bounds(("launch",))
    known = first_briefs(search, 2)
    again = new_search(ListJournal())
    again.replay(journal.events)
    assert not again.wants_bounds
    assert again.outstanding() == tuple(known)
    assert first_briefs(again, 3) == first_briefs(search, 3)


def test_who_improves_a_kernel_is_asked_for_no_strategy() -> None:
    search = new_search(ListJournal(), num_candidates=1)
    (first,) = first_briefs(search, 1)
    assert first.strategy is not None
    search.propose(Candidate(id=first.id, source="x", parent=None, proposer="p", memory_version=0))
    (ready,) = search.take_ready()
    search.tell(ready.candidate.id, trial().results[0])
    (second,) = first_briefs(search, 1)
    assert second.parent is not None
    assert second.strategy is None


def propose(search: Search, brief: Brief, note: str) -> None:
    parent = brief.parent.candidate.id if brief.parent else None
    made = Candidate(
        id=brief.id, source=note or "x", parent=parent, proposer="p", memory_version=0, note=note
    )
    search.propose(made)


def measure(search: Search, speedup: float = 2.0) -> None:
    for ready in search.take_ready():
        result = trial(outcome=measured(speedup)).results[0]
        search.tell(ready.candidate.id, result, repeat=ready.repeat)


def test_a_brief_names_what_else_was_asked_for_from_its_parent_and_is_not_measured_yet() -> None:
    journal = ListJournal()
    search = new_search(journal, num_candidates=1, num_proposals=8, refinement=False)
    (first,) = first_briefs(search, 1)
    assert first.others == ()
    propose(search, first, "the first")
    measure(search)

    one, two = first_briefs(search, 2)
    assert (one.others, two.others) == ((), ("",))
    propose(search, two, "wider loads")
    (three,) = first_briefs(search, 1)
    assert three.others == ("", "wider loads")
    search.fail(one.id, NoProposal(reason="nothing came"))
    (four,) = first_briefs(search, 1)
    assert four.others == ("wider loads", "")
    assert {brief.parent.candidate.id for brief in (one, two, three, four) if brief.parent} == {first.id}

    again = new_search(ListJournal(), num_candidates=1, num_proposals=8, refinement=False)
    again.replay(journal.events)
    assert again.outstanding() == search.outstanding() == (three, four)
    measure(search, speedup=0.1)
    (five,) = first_briefs(search, 1)
    assert five.parent is not None
    assert (five.parent.candidate.id, five.others) == (first.id, ("", ""))


def test_step_by_step_there_is_one_first_kernel_and_no_strategy() -> None:
    search = new_search(ListJournal(), synchronous=True)
    assert not search.wants_bounds
    assert first_briefs(search)[0].strategy is None


def test_a_journal_from_before_strategies_is_read_and_gone_on_with() -> None:
    old = '{"action":"propose","brief":"c000001","exemplars":[],"memory_version":0,"parent":null,"seed":5,'
    old += '"summary_version":0,"type":"Asked"}'
    event: Event = codec.loads(Event, old)  # type: ignore[arg-type]
    assert isinstance(event, Asked)
    assert event.strategy == ""
    search = Search(task=TASK, settings=SearchSettings(), journal=ListJournal())
    search.replay([event])
    assert search.outstanding()[0].strategy is None
    assert not search.wants_bounds


def test_bounds_are_taken_once() -> None:
    journal = ListJournal()
    search = new_search(journal)
    search.take_bounds(())
    search.take_bounds(("memory",))
    assert journal.events == [TaskProfiled(bounds=())]
