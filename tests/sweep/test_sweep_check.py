"""`agent.py FILE --check`, which `make sweep` asks before a sweep goes to W&B: faults are told here, not run by run."""

from pathlib import Path

import pytest

import agent
from tests.support.agent_processes import CODE

TOKEN = "hf_" + "aB3dE6gH9jK2mN5p" * 2
GOOD = "method: grid\nparameters:\n  data: {value: somewhere/else}\n  lr: {values: [0.001, 0.003]}\n"


def check(text: str, folder: Path) -> int:
    """Check a sweep file with this text."""
    (folder / "my.yaml").write_text(text)
    return agent.main([str(folder / "my.yaml"), "--check"], CODE)


def test_a_good_file_is_good_wherever_its_pictures_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid, and a search, which draws points; nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert check(GOOD, tmp_path) == 0
    assert "a grid of 2 points" in capsys.readouterr().out
    search = "method: random\nparameters: {lr: {distribution: log_uniform_values, min: 1.0e-4, max: 1.0e-2}}\n"
    assert check(search, tmp_path) == 0
    assert "a random search" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method: grid\nparameters: {lrate: {value: 1}, strategy: {value: heed}}\n", ["lrate: no such", "head"]),
        ("method: grid\nparameters: {lr: {values: [0.1, 99]}}\n", ["99: Input should be less than or equal to 10"]),
        ("method: random\nparameters: {lr: {min: -1.0, max: 10.0}}\n", ["Input should be greater than 0"]),
        (GOOD + "metric: {name: test/accuracy, goal: maximize}\n", ["must not choose"]),
        (GOOD + f"# {TOKEN}\n", ["take the password, token or key out"]),
        ("method: grid\n", ["no `parameters`"]),
    ],
)
def test_faults_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: list[str]
) -> None:  # fmt: skip
    """All of them, without a secret's text."""
    assert check(text, tmp_path) == 2
    said = capsys.readouterr()
    assert all(words in said.err for words in told), said.err
    assert TOKEN not in said.err + said.out
