"""The help of every command: each option once, under headings, and examples that hold."""

import importlib.util
import re
import shlex

import click
import pytest
from click.testing import CliRunner

from mlx_esm_kernels.commands import cli
from mlx_esm_kernels.commands.choice import Choice
from mlx_esm_kernels.commands.grouped_command import GroupedCommand
from mlx_esm_kernels.commands.train_options import GROUPS

COMMANDS = cli.main.commands


def helped(*arguments):
    result = CliRunner().invoke(cli.main, [*arguments, "--help"], prog_name="mlx-esm")
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_help_once(name):
    text = helped(name).partition("Show this message and exit.")[0]
    shown = re.findall(r"^  (?:-o, )?--([a-z-]+)", text, flags=re.MULTILINE)
    options = [one for one in COMMANDS[name].params if isinstance(one, click.Option)]
    known = [next(opt for opt in one.opts if opt.startswith("--"))[2:] for one in options]
    assert sorted(shown) == sorted([*known, "help"])


@pytest.mark.parametrize("name", COMMANDS)
def test_many_options_stand_under_headings(name):
    command = COMMANDS[name]
    assert isinstance(command, GroupedCommand)
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert bool(command.groups) or len(options) <= 7
    assert sum(map(len, command.groups.values())) == (len(options) if command.groups else 0)
    assert all(one.help for one in options)


def test_the_headings_come_in_their_order():
    text = helped("train")
    places = [text.index(f"\n{heading}:\n") for heading in (*GROUPS, "Other options")]
    assert places == sorted(places)
    assert places[0] < text.index("\n  --data ") < places[1]


def examples_of(name):
    """The lines of a command's examples, as a shell takes them."""
    block = re.search(r"^  Examples:\n((?:    .*\n)+)", helped(name), flags=re.MULTILINE)
    assert block, f"{name} has no examples"
    assert max(map(len, block[1].splitlines())) <= 80
    return block[1].replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_commands_that_there_are(name, tmp_path, monkeypatch):
    (tmp_path / "runs" / "swissprot-1").mkdir(parents=True)
    (tmp_path / "runs" / "swissprot-1" / "config.toml").write_text("[training]\nseed = 1\n")
    monkeypatch.chdir(tmp_path)
    for line in examples_of(name):
        program, named, *arguments = re.sub(r" >+ .*", "", line).strip().split(" ", 2)
        assert (program, named) == ("mlx-esm", name)
        COMMANDS[name].make_context(name, shlex.split(" ".join(arguments)))


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"completion"}))
def test_python_m_runs_the_same_command(name):
    # Not imported by its name: that would hide the function of the same name, as embed.
    spec = importlib.util.find_spec(f"mlx_esm_kernels.{name}")
    assert spec is not None
    assert spec.loader is not None
    door = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(door)
    assert door.command is COMMANDS[name]


# What was meant


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["trian"], "'train'"),
        (["train", "--num-itres", "5"], "'--num-iters'"),
        (["train", "--preset", "esm2_t6_8m"], "'esm2_t6_8M'"),
        (["train", "--preset", "ESM2-650M"], "'esm2_t33_650M'"),
        (["score", "--scoring-strategy", "masked_marginals"], "'masked-marginals'"),
        (["completion", "bsh"], "'bash'"),
    ],
)
def test_a_mistyped_word_leads_to_the_one_that_was_meant(arguments, meant):
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2
    assert f"Did you mean {meant}?" in " ".join(result.stderr.split())


def test_a_word_unlike_all_others_is_not_guessed_at():
    choice = Choice(["small", "medium"])
    assert "Did you mean" not in choice.get_invalid_choice_message("tiger", None)


def test_every_option_of_fixed_words_guesses():
    of = [(n, p) for n, command in COMMANDS.items() for p in command.params]
    words = [(n, p) for n, p in of if isinstance(p.type, click.Choice)]
    assert words
    assert [(n, p.name) for n, p in words if not isinstance(p.type, Choice)] == []


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell):
    result = CliRunner().invoke(cli.main, ["completion", shell])
    assert result.exit_code == 0, result.output
    assert f"_MLX_ESM_COMPLETE={shell}_complete" in result.stdout
    assert "mlx-esm" in result.stdout


def test_what_the_script_asks_for_is_answered():
    asked = {"_MLX_ESM_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    asked["COMP_WORDS"] = "mlx-esm train --preset esm2_t6"
    result = CliRunner().invoke(cli.main, [], prog_name="mlx-esm", env=asked)
    assert result.output == "plain,esm2_t6_8M\n"
