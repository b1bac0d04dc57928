"""`anyformer plan`: sizes, time, memory and warnings of a run before anything is trained."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from anyformer.baselines.beside import best_beside
from anyformer.errors import InputError, program
from anyformer.front.parsers import plan_parser, require_first
from anyformer.planning.dry_run import plan
from anyformer.runs.experiment import config_of, parse
from anyformer.saving.run_folder import run_folder


def plan_command(args: list[str]) -> None:
    parser = plan_parser()
    require_first("config", "plan CONFIG", args)
    own, overrides = parser.parse_known_args(args)
    if own.output is not None and Path(own.output).suffix.lower() != ".png":
        raise InputError(f"--output is a picture, FILE.png, got {own.output}")
    is_run = Path(own.config).is_dir()
    run = run_folder(own.config) if is_run else Path("runs") / Path(own.config).stem
    # The config of a run is complete, and may leave out what its source has.
    experiment = parse(
        "plan", [config_of(run) if is_run else own.config], overrides, own.unsafe_imports, starts=not is_run
    )
    picture = own.output or run / "plan.png"
    planned = plan(experiment.model, experiment.datamodule, picture, **experiment.options)
    if own.json:
        print(json.dumps(planned.plain(), indent=2))
        return
    print(planned)
    command = f"{program()} baseline {shlex.join([own.config, *overrides])}"
    print(f"\n{best_beside(experiment.model, experiment.datamodule, command)}")
