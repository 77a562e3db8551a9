"""Time the linear op against its int8 form and lower precision, beside the machine's GEMM."""

from __future__ import annotations

import click
import mlx.core as mx
import numpy as np
from harness.command import Options, Row, begin, benchmark_options, finish
from harness.measuring import Run, alternate, gemm_rate, gemm_runs

from mlx_esm_kernels import ops
from mlx_esm_kernels.models.int8 import Int8Linear
from mlx_esm_kernels.models.layers import Linear

# M tokens through the layers of models of these widths: projection, fc1 with GELU, fc2.
SHAPES = ",".join(
    f"4096x{inputs}x{outputs}"
    for width in (320, 480, 640, 1280)
    for inputs, outputs in ((width, width), (width, 4 * width), (4 * width, width))
)
WAYS = ("int8", "bfloat16", "mlx")
# The largest difference from ours, as a share of the largest number.
TOLERANCE = {"int8": 3e-2, "bfloat16": 2e-2, "mlx": 1e-5}


def is_fc1(shape: tuple[int, ...]) -> bool:
    """Whether GELU follows, as it does where a layer widens."""
    return shape[2] > shape[1]


def runs_of(ways: list[str], shape: tuple[int, ...], dtype: mx.Dtype) -> dict[str, Run]:
    """Functions that wait for y (M, O) of the same x (M, I) and weight; shape is (M, I, O)."""
    rows, inputs, outputs = shape
    mx.random.seed(0)
    layer = Linear(inputs, outputs)
    x = mx.random.normal((rows, inputs)).astype(dtype)
    activation = "gelu" if is_fc1(shape) else None
    small = Int8Linear.of(layer)
    weight, bias = layer.weight.astype(dtype), layer.bias.astype(dtype)
    low = [a.astype(mx.bfloat16) for a in (x, weight, bias)]
    mx.eval(x, weight, bias, low)

    def evaluated(y: mx.array) -> mx.array:
        mx.eval(y)
        return y

    def stock() -> mx.array:
        y = mx.addmm(bias, x, weight.T)
        return evaluated(y if activation is None else y * (1 + mx.erf(y * 0.5**0.5)) / 2)

    known: dict[str, Run] = {
        "ours": lambda: evaluated(ops.linear(x, weight, bias, activation=activation)),
        "int8": lambda: evaluated(small(x, activation=activation)),
        "bfloat16": lambda: evaluated(ops.linear(*low, activation=activation)),
        "mlx": stock,
    }
    return {way: known[way] for way in ("ours", *ways)}


def require_agreement(runs: dict[str, Run], dtype: str) -> None:
    """Refuse to time a way whose numbers are not ours, rounding aside."""
    ours = np.array(runs["ours"]().astype(mx.float32))
    for way, run in runs.items():
        y = np.array(run().astype(mx.float32))
        difference = float(np.abs(y - ours).max() / np.abs(ours).max())
        tolerance = TOLERANCE.get(way, 0) + (0 if dtype == "float32" else 2e-2)
        if not difference <= tolerance:
            raise click.ClickException(
                f"{way} does not give our numbers: they differ by {difference:.1e} of the largest."
            )


def measure(shape: tuple[int, ...], options: Options) -> list[Row]:
    """A row for each way, timed in turns with the GEMM."""
    runs = runs_of(options.against, shape, options.mlx_dtype)
    require_agreement(runs, options.dtype)
    gemms = gemm_runs(options.device)
    found = alternate({**runs, **gemms}, repeats=options.repeats)
    name, gemm = gemm_rate({name: found[name] for name in gemms})
    rows = []
    for way in runs:
        rate = 2 * float(np.prod(shape)) / found[way].seconds
        row: Row = {"shape": shape, "lengths": "dense", "fill": 1.0, "way": way}
        row |= {"direction": "with GELU" if is_fc1(shape) else "forward"}
        row |= {"seconds": found[way].seconds, "rate": 1e-9 * rate, "unit": "GFLOP/s"}
        row |= {"share": rate / gemm, "peak_bytes": found[way].peak_bytes}
        row["yardstick"] = f"the best float32 GEMM at hand, {name}: {1e-9 * gemm:.0f} billion/s"
        rows.append(row)
    return rows


@click.command()
@benchmark_options(shapes=SHAPES, sizes="MxIxO", ways=WAYS, against="int8,bfloat16")
def main(options: Options) -> None:
    """Time linear layers here; every figure is of this machine."""
    _, about = begin(options)
    rows = [row for shape in options.shapes for row in measure(shape, options)]
    finish(options, about, rows)
    ours = {row["shape"]: row["seconds"] for row in rows if row["way"] == "ours"}
    for row in rows:
        if row["way"] != "ours":
            times = ours[row["shape"]] / row["seconds"]
            click.echo(f"{row['shape']}: {row['way']} is {times:.2f} times as fast as ours")


if __name__ == "__main__":
    main()
