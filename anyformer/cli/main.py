"""The command line, on LightningCLI: fit, plan, baseline, validate, test, predict, embed,
explain, collect, params, import, export, average, merge.

Its front is `__main__`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from anyformer.cli.baseline import baseline_command
from anyformer.cli.collect import collect_command
from anyformer.cli.convert import average_command, export_command, import_command, merge_command
from anyformer.cli.embed.embed import embed_command
from anyformer.cli.evaluate import test_command, validate_command
from anyformer.cli.explain.explain import explain_command
from anyformer.cli.fit import fit_command
from anyformer.cli.params import params_command
from anyformer.cli.plan import plan_command
from anyformer.cli.predict import predict_command
from anyformer.errors import InputError, say
from anyformer.faults import MachineError, machine_faults, writing

COMMANDS = {
    "fit": fit_command,
    "validate": validate_command,
    "test": test_command,
    "predict": predict_command,
    "embed": embed_command,
    "explain": explain_command,
    "plan": plan_command,
    "params": params_command,
    "baseline": baseline_command,
    "collect": collect_command,
    "import": import_command,
    "export": export_command,
    "average": average_command,
    "merge": merge_command,
}


def main(argv: Sequence[str]) -> int:
    """Run one command. Returns the exit code.

    What cannot be used or done is said in one line: 2 where the user gave it, 4 where the machine lacks room, memory or
    a worker.
    """
    try:
        with machine_faults():
            COMMANDS[argv[0]](list(argv[1:]))
        with writing("standard output"):
            sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough, as in `| head`.
        _forget_output()
        return 128 + signal.SIGPIPE
    except (InputError, MisconfigurationException) as error:
        line = " ".join(str(error).split())
        # What was given may be as long as a book.
        say(f"anyformer: {line if len(line) < 1500 else f'{line[:1000]} ... {line[-400:]}'}")
        if isinstance(error, MachineError):
            _forget_output()
        return getattr(error, "exit_code", InputError.exit_code)
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    return 0


def _forget_output() -> None:
    """What could not be written is let go; else Python complains once more as it flushes at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
