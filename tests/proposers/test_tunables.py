"""The proposer that varies `tune:` comments."""

import random
from dataclasses import replace

import pytest

from kbopt.core.errors import UserError
from kbopt.core.proposals import Brief, Candidate, NoProposal, Trial
from kbopt.core.task import Task, seed_name
from kbopt.core.tune_comments import parse
from kbopt.proposers.seeds import check_seeds, seeds_for
from kbopt.proposers.tunables import TunablesProposer

GELU = Task(name="quick/gelu", source="", family="elementwise/new_gelu")
SOFTMAX = Task(name="quick/softmax", source="", family="softmax")
FOREIGN = Task(name="mine.py", source="")
HANDMADE = "BLOCK = 64  # tune: 32, 64, 128\nWARPS = 4  # tune: 4, 8\n"


def trial(source, id="p"):
    return Trial(
        candidate=Candidate(id=id, source=source, parent=None, proposer="x", memory_version=0), results=()
    )


def brief(seed, task=GELU, parent=None, **more):
    above = trial(parent) if isinstance(parent, str) else parent
    fields = {"exemplars": (), "summary": "", "memory_version": 7, **more}
    return Brief(id=f"b{seed}", task=task, parent=above, seed=seed, **fields)


async def proposals(count, **fields):
    proposer = TunablesProposer(device_kind="cpu")
    return [await proposer.propose(brief(seed, **fields)) for seed in range(count)]


def values(source):
    return {tunable.name: tunable.value for tunable in parse(source)}


async def test_the_same_brief_is_always_answered_alike():
    parent = seeds_for("softmax", "cpu")[0].source

    for fields in ({"task": GELU}, {"task": SOFTMAX, "parent": parent}):
        assert await proposals(20, **fields) == await proposals(20, **fields)


async def test_without_a_parent_a_seed_kernel_of_the_family_is_proposed_with_allowed_values():
    answers = await proposals(40)

    assert {seed_name(answer.source) for answer in answers} == {
        "elementwise/cpu_chunks",
        "elementwise/cpu_stream",
    }
    for answer in answers:
        assert all(tunable.value in tunable.choices for tunable in parse(answer.source))
    assert len({answer.source for answer in answers}) > 10


async def test_a_candidate_answers_its_brief():
    [answer] = await proposals(1, task=SOFTMAX, parent=seeds_for("softmax", "cpu")[0].source)

    assert (answer.id, answer.parent, answer.proposer, answer.memory_version) == ("b0", "p", "tunables", 7)


async def test_a_parent_is_changed_in_one_or_two_values_and_never_repeated():
    parent = seeds_for("softmax", "cpu")[0].source

    for answer in await proposals(60, task=SOFTMAX, parent=parent):
        changed = [name for name, value in values(answer.source).items() if values(parent)[name] != value]
        assert len(changed) in (1, 2)
        assert all(f"{name} " in answer.note for name in changed)


async def test_sometimes_another_seed_is_taken_and_common_values_are_kept():
    parent = seeds_for("elementwise/new_gelu", "cpu")[0].source.replace('"-O3"  #', '"-O2"  #')

    switched = [
        a for a in await proposals(60, parent=parent) if seed_name(a.source) == "elementwise/cpu_stream"
    ]

    assert 3 <= len(switched) <= 25
    assert {values(answer.source)["OPTIMIZATION"] for answer in switched} == {'"-O2"'}
    assert {answer.note for answer in switched} == {"switch to elementwise/cpu_stream"}


async def test_a_refinement_of_a_foreign_kernel_stays_with_it():
    answers = await proposals(40, task=GELU, parent=HANDMADE, action="refine")

    assert len({answer.source for answer in answers}) == 5  # 3 * 2 combinations but the parent
    assert HANDMADE not in {answer.source for answer in answers}


async def test_a_value_outside_its_own_choices_is_left_for_one_of_them():
    [answer] = await proposals(1, task=FOREIGN, parent="N = 5  # tune: 7\n", action="refine")

    assert answer.source == "N = 7  # tune: 7\n"


async def test_exemplars_are_not_proposed_again():
    others = ["A = 1  # tune: 1, 2, 3\n", "A = 2  # tune: 1, 2, 3\n"]

    answers = await proposals(10, task=FOREIGN, parent=others[0], exemplars=(trial(others[1]),))

    assert {answer.source for answer in answers} == {"A = 3  # tune: 1, 2, 3\n"}


async def test_when_every_variation_is_known_the_proposer_says_so():
    known = (trial("A = 2  # tune: 1, 2\n"),)

    [answer] = await proposals(1, task=FOREIGN, parent="A = 1  # tune: 1, 2\n", exemplars=known)

    assert answer == NoProposal(reason="every variation of the parent is already known")


@pytest.mark.parametrize("action", ["propose", "refine"])
async def test_a_parent_without_tune_comments_and_without_seeds_gets_the_reason(action):
    [answer] = await proposals(1, task=FOREIGN, parent="x = 1\n", action=action)

    assert isinstance(answer, NoProposal)
    assert "no `# tune:` comments with alternatives" in answer.reason


async def test_a_task_without_seeds_gets_no_first_kernel():
    [answer] = await proposals(1, task=FOREIGN)

    assert answer == NoProposal(reason="no seed kernel fits mine.py: use --start FILE or --proposer llm")


def test_a_task_without_seeds_is_told_of_language_models():
    with pytest.raises(
        UserError, match=r"mine\.py cannot start from a seed kernel.*--start FILE.*--proposer llm"
    ):
        check_seeds(FOREIGN, "cpu")
    with pytest.raises(UserError, match="of the family 'elementwise/unheard'"):
        check_seeds(replace(GELU, family="elementwise/unheard"), "cpu")
    check_seeds(GELU, "cpu")
    check_seeds(GELU, "cuda")


async def test_a_summary_draws_proposals_to_the_values_that_helped():
    helped = (
        "- softmax/cpu_rows SUMS = 64: 4x over 5 measured, 0 failed\n"
        "- softmax/cpu_rows SUMS = 8: 1x over 5 measured, 0 failed\n"
        "- softmax/cpu_rows SUMS = 32: 1x over 5 measured, 0 failed\n"
    )
    parent = seeds_for("softmax", "cpu")[0].source

    def share(answers):
        sums = [values(answer.source)["SUMS"] for answer in answers]
        changed = [value for value in sums if value != "16"]
        return changed.count("64") / len(changed)

    without = await proposals(200, task=SOFTMAX, parent=parent)
    guided = await proposals(200, task=SOFTMAX, parent=parent, summary=helped)
    assert share(without) < 0.5 < 0.8 < share(guided)


async def test_a_summary_draws_proposals_away_from_values_that_failed():
    failing = "- other BLOCK = 32: none measured, 9 failed\n"

    answers = await proposals(200, task=FOREIGN, parent=HANDMADE, summary=failing, action="refine")

    blocks = [values(answer.source)["BLOCK"] for answer in answers]
    assert blocks.count("32") * 4 < blocks.count("128")


async def test_a_walk_from_a_seed_reaches_most_of_a_small_space():
    proposer, rng = TunablesProposer(device_kind="cpu"), random.Random(0)
    seen = [HANDMADE]
    for step in range(40):
        answer = await proposer.propose(brief(step, task=FOREIGN, parent=rng.choice(seen)))
        seen.append(answer.source)
    assert len(set(seen)) == 6
