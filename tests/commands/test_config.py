"""The user's ``config.toml``: defaults of options, and one sentence for what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from edge_tts import cli
from edge_tts.commands import config, options, plan, solve
from edge_tts.commands.asking import Asking
from edge_tts.core import Budget
from edge_tts.errors import InputError
from edge_tts.search.strategy import KINDS

MODEL = "qwen2.5-coder-0.5b"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ``config.toml`` is read from; no variable names a model."""
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path))
    monkeypatch.delenv("EDGE_REASON_MODEL", raising=False)
    return tmp_path / "config.toml"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``solve`` was called with, instead of solving."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(solve.command, "callback", lambda **arguments: seen.update(arguments))
    return seen


def run(*arguments: str) -> None:
    CliRunner().invoke(cli.group, arguments, catch_exceptions=False)


def test_without_a_file_nothing_changes(settings: Path, given: dict[str, Any]) -> None:
    run("solve", "1+1?")
    names = ("model", "memory", "deadline", "format", "strategy")
    assert [given[name] for name in names] == [None, None, None, "auto", "auto"]


def test_the_file_sets_defaults_and_the_command_line_wins(settings: Path, given: dict[str, Any]) -> None:
    settings.write_text(
        f'model = "{MODEL}"\nmemory = 900\ndeadline = 12.5\nformat = "text"\nstrategy = "majority:n=4"\n'
    )
    run("solve", "1+1?")
    assert (given["model"], given["memory"], given["deadline"]) == (MODEL, 900.0, 12.5)
    assert (given["format"], given["strategy"]) == ("text", "majority:n=4")
    run("solve", "--model", "b", "--memory", "700", "--strategy", "greedy", "1+1?")
    assert (given["model"], given["memory"], given["strategy"], given["deadline"]) == ("b", 700.0, "greedy", 12.5)


def test_a_variable_or_a_pack_takes_the_place_of_its_model(
    settings: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text(f'model = "{MODEL}"\n')
    run("solve", "1+1?", "--pack", "smol-math")
    assert (given["model"], given["pack"]) == (None, "smol-math")
    run("solve", "1+1?", "--pack", "smol-math", "--model", "b")
    assert (given["model"], given["pack"]) == ("b", "smol-math"), "both were asked for; the solver refuses it"
    monkeypatch.setenv("EDGE_REASON_MODEL", "c")
    run("solve", "1+1?")
    assert given["model"] is None


def test_a_model_that_is_not_known_is_named_with_the_file(settings: Path, given: dict[str, Any]) -> None:
    settings.write_text('model = "nosuch"\n')
    found = CliRunner().invoke(cli.group, ["solve", "1+1?"])
    assert isinstance(found.exception, InputError)
    assert str(found.exception).startswith(f"{settings}: no model 'nosuch'")
    run("solve", "--model", "other", "1+1?")
    assert given["model"] == "other"
    settings.write_text('model = "smol-math"\n')
    run("solve", "1+1?")
    assert given["model"] == "smol-math"


def test_other_verbs_take_what_they_have_options_for(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.write_text('memory = 900\nformat = "text"\n')
    seen: dict[str, Any] = {}
    monkeypatch.setattr(plan.command, "callback", lambda **arguments: seen.update(arguments))
    run("plan")
    assert seen["memory"] == 900.0
    assert set(cli.CONFIGURED) == set(config._OPTIONS)
    for verb, names in config._OPTIONS.items():
        command = cli.group.get_command(click.Context(cli.group), verb)
        assert command is not None
        assert set(names) <= {parameter.name for parameter in command.params}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model = ", "cannot read the settings"),
        ("model = 3", "model must be text, found 3"),
        ('model = ""', 'model is ""'),
        ("memory = -1", "memory must be a number > 0.0, found -1"),
        ("memory = nan", "memory must be a number"),
        ('deadline = "soon"', "deadline must be a number, found 'soon'"),
        ('format = "poem"', "format is 'poem'; choose one of auto, text, program"),
        ('strategy = "poem"', "unknown strategy 'poem'"),
        ('modle = "a"', "unknown key modle = 'a'; known keys are deadline, format, memory, model, strategy"),
        ("\xff", "cannot read the settings"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_file(text: str, complaint: str, settings: Path) -> None:
    settings.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        config.read_config()
    assert complaint in str(caught.value)
    assert str(settings) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_does_not_stop_verbs_that_do_not_read_it(settings: Path) -> None:
    settings.write_text("=")
    assert CliRunner().invoke(cli.group, ["pack", "list"]).exit_code == 0
    assert isinstance(CliRunner().invoke(cli.group, ["solve", "1+1?"]).exception, InputError)


def test_explain_is_an_option_of_the_call() -> None:
    solver: Any = None
    assert "explain" not in Asking("auto", Budget()).options(solver)
    assert Asking("auto", Budget(), explain=True).options(solver)["explain"] is True


def test_the_help_of_strategy_names_every_kind() -> None:
    shown = " ".join(CliRunner().invoke(cli.group, ["solve", "--help"]).stdout.split())
    assert f"auto (default), {', '.join(KINDS[:-1])} or {KINDS[-1]}; with sizes" in shown


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("qwen2.5-coder-0", [("qwen2.5-coder-0.5b", "plain")]),
        ("smol-m", [("smol-math", "plain")]),
        ("./mod", [("./mod", "file")]),
        ("nosuch", []),
    ],
)
def test_models_are_completed(begun: str, found: list[tuple[str, str]], settings: Path) -> None:
    model = next(parameter for parameter in solve.command.params if parameter.name == "model")
    items = model.shell_complete(click.Context(solve.command), begun)
    assert [(item.value, item.type) for item in items] == found


def test_a_damaged_catalogue_completes_nothing(settings: Path) -> None:
    (settings.parent / "catalogue.toml").write_text("=")
    assert options._models(click.Context(solve.command), solve.command.params[0], "qwen") == []


def test_the_example_of_the_documentation_is_read(settings: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "terminal.md").read_text(encoding="utf-8")
    settings.write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    assert config.read_config() == config.Config("qwen2.5-coder-0.5b", 1200, 60, "auto", "adaptive:n=8")
    assert set(config.defaults("serve")) == {"model", "memory", "deadline"}
