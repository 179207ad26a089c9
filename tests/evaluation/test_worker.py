"""What an exchange with a child comes to."""

from kbopt.evaluation.judge.worker import Exchange


def test_a_child_that_says_no_time_passed_is_taken_to_have_used_some():
    said = Exchange(
        outputs=[],
        native_ns=[0, 1500],
        wall_ns=2_000_000,
        cpu_ns=1_000_000,
        offsets=[],
        spot_checks=[],
    )

    assert said.block.native_ms == (1e-6, 1.5e-3)
    assert said.block.cpu_ms == 1.0
