"""The command line, on LightningCLI: fit, plan, validate, test, run, collect, params, import, export.

Its front is `__main__`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from anyformer.cli.collect import _collect
from anyformer.cli.convert import _export, _import
from anyformer.cli.evaluate import _test, _validate
from anyformer.cli.fit import _fit
from anyformer.cli.params import _params
from anyformer.cli.plan import _plan
from anyformer.cli.predict import _run
from anyformer.errors import InputError, say


def main(argv: Sequence[str]) -> int:
    """Run one command. Returns the exit code: 2 for anything the user gave that cannot be used, said in one line."""
    commands = {"fit": _fit, "validate": _validate, "test": _test, "run": _run, "params": _params}
    commands |= {"plan": _plan, "collect": _collect, "import": _import, "export": _export}
    try:
        commands[argv[0]](list(argv[1:]))
    except BrokenPipeError:
        # Who reads has seen enough, as in `| head`; else Python complains once more as it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (InputError, MisconfigurationException) as error:
        say(f"anyformer: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    return 0
