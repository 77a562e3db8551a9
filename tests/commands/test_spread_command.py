"""Several values after one flag, and nothing that is no value."""

import click
import pytest
from click.testing import CliRunner

from mlx_esm_kernels.commands.spread_command import SpreadCommand


@click.command(cls=SpreadCommand)
@click.argument("rest", nargs=-1)
@click.option("--path", "-p", multiple=True)
@click.option("--layers", type=int, multiple=True)
@click.option("--include", type=click.Choice(["a", "b"]), multiple=True)
@click.option("--one")
@click.option("--flag", is_flag=True)
def command(**given):
    click.echo(repr({name: value for name, value in given.items() if value}))


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("--path x y --flag", {"path": ("x", "y"), "flag": True}),
        ("--path x - --path=y z", {"path": ("x", "-", "y", "z")}),
        ("-p x y", {"path": ("x", "y")}),
        ("--layers -1 0 33 file", {"layers": (-1, 0, 33), "rest": ("file",)}),
        (
            "--include a b file --layers 2",
            {"include": ("a", "b"), "rest": ("file",), "layers": (2,)},
        ),
        ("--one x y", {"one": "x", "rest": ("y",)}),
        ("--include a --one b", {"include": ("a",), "one": "b"}),
    ],
)
def test_values_go_to_the_flag_before_them_if_they_can_be_its_values(arguments, given):
    result = CliRunner().invoke(command, arguments.split())
    assert result.exit_code == 0, result.output
    assert eval(result.output) == given


def test_a_value_that_cannot_be_is_named():
    assert "'c' is not one of" in CliRunner().invoke(command, ["--include", "c"]).output
    assert "'x' is not a valid integer" in CliRunner().invoke(command, ["--layers", "x"]).output
