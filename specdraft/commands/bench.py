"""`specdraft bench`: what things cost here; one file a benchmark."""

from __future__ import annotations

import typer

from specdraft.commands.bench_attention import bench_attention
from specdraft.commands.bench_costs import bench_costs
from specdraft.commands.bench_methods import bench_methods

app = typer.Typer(no_args_is_help=True, help="Time methods, costs and attention on this machine.")
app.command("costs")(bench_costs)
app.command("methods")(bench_methods)
app.command("attention")(bench_attention)
