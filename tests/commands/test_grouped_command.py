"""The help of `train` shows every option once, and first what a newcomer needs."""

import re

from click.testing import CliRunner

from mlx_esm_kernels.commands import train
from mlx_esm_kernels.commands.train_options import GROUPS


def test_every_option_is_in_the_help_once():
    text = CliRunner().invoke(train.command, ["--help"]).output
    shown = re.findall(r"^  --([a-z-]+)", text, flags=re.MULTILINE)
    known = [parameter.opts[0].removeprefix("--") for parameter in train.command.params]
    assert sorted(shown) == sorted([*known, "help"])


def test_its_headings_come_in_their_order():
    text = CliRunner().invoke(train.command, ["--help"]).output
    places = [text.index(f"\n{heading}:\n") for heading in (*GROUPS, "Other options")]
    assert places == sorted(places)
    assert places[0] < text.index("\n  --data ") < places[1]
