"""`anyformer collect`, called in the process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from anyformer.__main__ import main
from anyformer.tokenizers.episode.files import Episodes
from tests.helpers.small_cli import refused

pytestmark = pytest.mark.usefixtures("at_home")


def test_episodes_are_collected(
    at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["collect", "--env", "CartPole-v1", "--policy", "random", "--policy", "scripted", "--episodes", "4"]
    assert main([*argv, "--seed", "1", "--output", "carts"]) == 0
    random, scripted, last = capsys.readouterr().out.splitlines()
    assert re.match(r"random +2 episodes, \d+ steps, return", random)
    assert re.match(r"scripted +2 episodes, 1000 steps, return 500.00", scripted)
    assert "`class_path: Episodes` with `path: carts`" in last
    assert len(Episodes("carts")) == 4
    # A package of the user's, which registers an environment of its own.
    Path("mine_too.py").write_text(
        "import gymnasium\ngymnasium.register('Mine-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(at_home)
    argv = ["collect", "--env", "mine_too:Mine-v0", "--episodes", "1", "--output", "mine"]
    assert main(argv) == 2
    assert main([*argv, "--unsafe_imports", "mine_too"]) == 0
    assert Episodes("mine").played_in.id == "mine_too:Mine-v0"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("collect --env CartPol-v1 --output new", "there is no environment CartPol-v1; did you mean 'CartPole-v1'"),
        ("collect --env CartPole-v1 --output runs/small", "runs/small is there already; choose another folder"),
        (
            "collect --env CartPole-v1 --output new --policy runs/absent",
            "there is no run folder runs/absent; a policy is",
        ),
        (
            "collect --env CartPole-v1 --output new --policy runs/small",
            "policy runs/small: a run of Classify, which does",
        ),
        ("collect --env CartPole-v1 --output new --episodes 0", "episodes must be at least 1, got 0"),
        ("collect --env CartPole-v1", "the following arguments are required: --output; see anyformer collect --help"),
        ("collect --env absent:Car-v0 --output new", "the package absent is not opened; --unsafe_imports absent does"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, refused(capsys, *argv.split()))
