"""The workflows under .github, which run elsewhere: their actions are pinned, and the make targets exist."""

import re

import pytest
import yaml

from integration.stack.process import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yaml"))


def jobs(path) -> list[dict]:
    return list(yaml.safe_load(path.read_text())["jobs"].values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_their_commit(path):
    used = re.findall(r"uses: (.*)", path.read_text())

    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    for job in jobs(path):
        assert "permissions" not in job
        assert job["timeout-minutes"]


@pytest.mark.parametrize("name", ["checks", "nightly"])
def test_what_a_workflow_makes_is_in_the_makefile(name):
    makefile = (REPOSITORY / "Makefile").read_text()
    [job] = jobs(REPOSITORY / ".github" / "workflows" / f"{name}.yaml")

    assert "make ${{ matrix.target }}" in [step.get("run") for step in job["steps"]]
    for target in job["strategy"]["matrix"]["target"]:
        goal, *variables = target.split()
        assert re.search(rf"^{goal}:.*## ", makefile, re.MULTILINE), goal
        for variable in variables:
            assert variable.partition("=")[0] in makefile + (REPOSITORY / "docs" / "building.md").read_text(), variable


def test_nightly_runs_each_envoy_that_the_matrix_shows():
    [job] = jobs(REPOSITORY / ".github" / "workflows" / "nightly.yaml")
    run = re.findall(r"ENVOY_RELEASES=(\S+)", " ".join(job["strategy"]["matrix"]["target"]))

    compatibility = (REPOSITORY / "docs" / "compatibility.md").read_text()
    assert run == re.findall(r"^\| (\d+\.\d+\.\d+) \|", compatibility, re.MULTILINE)
