"""The skill for coding agents: its form, that it names what there is, and that its commands install it."""

import re
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from kbopt.core.outcomes import OUTCOME_NAMES, Family
from tests.docs.examples import ROOT
from tests.support.agents import SIMULATED, stdio

SKILL = ROOT / "docs" / "skills" / "kbopt" / "SKILL.md"
BLOCKS = re.findall(
    r"```\n(mkdir -p ~/\S+skills\n.*?)```", (ROOT / "docs" / "agents.md").read_text(), re.DOTALL
)


def test_its_head_is_what_agents_read_to_choose_it() -> None:
    """As https://agentskills.io/specification has it."""
    head = re.match(r"---\nname: (\S+)\ndescription: ([^\n]+)\n---\n\n", SKILL.read_text())
    assert head is not None
    assert head[1] == SKILL.parent.name
    assert len(head[2]) <= 1024
    assert ": " not in head[2]  # YAML would read a mapping


async def test_it_names_the_tools_the_outcomes_and_the_rejections_that_there_are(tmp_path: Path) -> None:
    text = SKILL.read_text()
    async with stdio(tmp_path, *SIMULATED) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
    called = set(re.findall(r"[Cc]all `(\w+)`|, then `(\w+)`", text))
    assert {name for pair in called for name in pair if name} == tools - {"history"}
    named = {
        name
        for group in re.findall(r"\(((?:\w+_\w+|implausible)(?:,\s\w+)*)\)", text)
        for name in re.split(r",\s", group)
    }
    assert {"precision_downgrade", "forged_verdict"} < named <= set(get_args(Family))
    assert set(re.findall(r"compile_failed|crashed|wrong_answer|measured", text)) <= set(
        OUTCOME_NAMES.values()
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_the_commands_of_the_page_install_it(block: str, tmp_path: Path) -> None:
    subprocess.run(
        ["bash", "-euc", block], cwd=ROOT, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True
    )
    (installed,) = tmp_path.rglob("SKILL.md")
    assert installed.parent.name == "kbopt"
    assert installed.read_text() == SKILL.read_text()


def test_the_page_installs_it_for_each_agent() -> None:
    assert [re.search(r"~/\.(\w+)/skills", block)[1] for block in BLOCKS] == ["claude", "agents"]  # type: ignore[index]
