"""metrics.jsonl survives what happens to files; loss.png shows what is in it."""

import json
import math

import pytest

from mlx_esm_kernels.pictures import loss_curve
from mlx_esm_kernels.pictures.loss_curve import plot_loss, smooth
from mlx_esm_kernels.training.record import MetricsError, MetricsLog, read_rows

ROWS = [
    {"step": 0, "valid_loss": 3.5, "unigram_perplexity": 18.0, "floor_perplexity": 3.0},
    {"step": 10, "train_loss": 3.0, "learning_rate": 1e-3},
    {"step": 20, "train_loss": 2.0, "valid_loss": 1.9, "unigram_perplexity": 18.0},
]


def test_rows_are_on_the_disk_at_once_and_a_later_log_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        assert log.last_step == 0
        for row in ROWS:
            log.append(row)
        assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS
    with MetricsLog(path) as log:
        assert log.rows == ROWS
        assert log.last_step == 20
        log.append({"step": 30})
    assert len(path.read_text().splitlines()) == 4


def test_what_is_no_number_is_null_as_json_knows_no_nan(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.append({"step": 1, "train_loss": math.nan, "learning_rate": math.inf})
        assert log.rows == [{"step": 1}]
    assert path.read_text() == '{"step": 1, "train_loss": null, "learning_rate": null}\n'
    with MetricsLog(path) as log:
        assert log.rows == [{"step": 1}]


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "train_lo')
    with MetricsLog(path) as log:
        log.append({"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


@pytest.mark.parametrize("line", ["no json", "[1, 2]", '{"loss": 1}', '{"step": "x"}', "3"])
def test_a_file_of_another_kind_is_named_and_left_alone(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(MetricsError, match=r'metrics.jsonl, line 2: expected .* a "step"'):
        MetricsLog(path)
    assert path.read_text().endswith(line + "\n")


def drawn(rows, objective="mlm"):
    """The axes that `plot_loss` draws on, as matplotlib has them."""
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    loss_curve._draw_curves(axes, rows, objective)
    loss_curve._draw_levels(axes, rows, objective)
    return axes


def test_a_record_that_is_read_stays_as_it_is(tmp_path):
    path = tmp_path / "metrics.jsonl"
    content = (
        '{"step": 1, "train_loss": null, "waiting": NaN}\n{"step": 2, "a": 3}\n{"step": 3, "tr'
    )
    path.write_text(content)
    assert read_rows(path) == [{"step": 1}, {"step": 2, "a": 3}]
    assert path.read_text() == content


@pytest.mark.parametrize("value", ['"many"', "[1]", "1" + 400 * "0", '{"a": 1}'])
def test_a_record_of_something_else_than_numbers_is_refused(tmp_path, value):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "a": {value}}}\n')
    with pytest.raises(MetricsError, match="row 1: expected numbers"):
        read_rows(tmp_path / "metrics.jsonl")


def test_the_plot_has_curves_levels_and_a_legend_that_names_them(tmp_path):
    axes = drawn(ROWS)
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["held out, all targets masked"].get_xdata()) == [0, 20]
    assert list(lines["held out, all targets masked"].get_ydata()) == [3.5, 1.9]
    assert lines["residue frequencies: perplexity 18.00"].get_ydata()[0] == math.log(18)
    floor = lines["entropy floor (synthetic families): perplexity 3.00"]
    assert floor.get_ydata()[0] == math.log(3)
    assert "entropy floor" not in str([line.get_label() for line in drawn(ROWS[1:]).get_lines()])


@pytest.mark.parametrize("objective", ["diffusion", "mixed"])
def test_the_plot_does_not_compare_losses_of_other_masks_in_silence(objective):
    rows = [{**row, "valid_bound": 2.5} if "valid_loss" in row else row for row in ROWS]
    lines = {line.get_label(): line for line in drawn(rows, objective).get_lines()}
    assert list(lines["held out, bound over all mask rates"].get_ydata()) == [2.5, 2.5]
    training = {"diffusion": "bound over all mask rates", "mixed": "some 30 % masked"}[objective]
    assert f"training, {training}, smoothed" in lines
    assert "held out, 15 % masked" in lines
    assert "entropy floor (synthetic families), 15 % masked: perplexity 3.00" in lines


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[1:2], [], [{"step": 1}]])
def test_any_record_can_be_plotted_and_nothing_else_is_left_behind(tmp_path, rows):
    path = tmp_path / "loss.png"
    path.write_bytes(b"an older plot")
    plot_loss(rows, path, title="runs/sample-1")
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert list(tmp_path.iterdir()) == [path]


def test_plotting_leaves_the_backend_of_a_notebook_alone(tmp_path):
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("svg")
    plot_loss(ROWS, tmp_path / "loss.png")
    assert matplotlib.get_backend() == "svg"
    assert plt.get_fignums() == []


def test_smooth_is_the_mean_of_neighbours_and_leaves_a_straight_line_alone():
    assert smooth([4.0, 2.0, 6.0, 0.0, 9.0], share=0.4) == [4.0, 4.0, 8 / 3, 5.0, 9.0]
    line = [3.0 - 0.5 * i for i in range(40)]
    assert smooth(line, share=0.3) == pytest.approx(line)
    assert smooth([1.0, 2.0]) == [1.0, 2.0]
    assert smooth([]) == []
