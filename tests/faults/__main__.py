"""All attacks, or those of some rows: python -m tests.faults --all; a trial again: --row "damaged a.png" --trial 17."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--all", action="store_true", help="all trials of the rows; else those of the gate")
    parser.add_argument("--row", action="append", help="a row, by its name or how it begins; all, if left out")
    parser.add_argument("--trial", type=int, help="one trial alone")
    parser.add_argument("--trials", type=int, help="so many trials of each row")
    parser.add_argument("--list", action="store_true", help="the rows and their numbers of trials")
    own = parser.parse_args()

    from tests.faults.harness import run_row
    from tests.faults.rows import ROWS, preload

    chosen = [row for row in ROWS if not own.row or any(row.name.startswith(name) for name in own.row)]
    if not chosen:
        parser.error(f"there is no such row; there are {', '.join(row.name for row in ROWS)}")
    if own.list:
        for row in chosen:
            print(f"{row.name:<40} {row.trials:>6} {row.gate:>4}")
        return 0
    preload(chosen)
    failed = 0
    print(f"{time.strftime('%Y-%m-%d')}, commit {_commit()}\n\n| row | tried | held |\n|---|---:|---:|", flush=True)
    for row in chosen:
        n = own.trials or (row.trials if own.all else row.gate)
        if not n:
            continue
        tried = held = 0
        for trial in run_row(row, [own.trial] if own.trial is not None else range(n)):
            tried += 1
            held += trial.wrong is None
            if trial.wrong is not None:
                print(f'--row "{trial.row}" --trial {trial.number}: {trial.wrong}', file=sys.stderr, flush=True)
        print(f"| {row.name} | {tried:,} | {held:,} |", flush=True)
        failed += tried - held
    return int(failed > 0)


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
