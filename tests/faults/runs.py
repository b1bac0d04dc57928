"""What happens to runs: kills, a full disk, damage to their files, two processes on one."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from tests.faults.experiments import (
    KINDS,
    Whole,
    at,
    before_in_place,
    copy_of,
    fit,
    go_on,
    remove_at_the_end,
    whole,
    write_data,
)
from tests.faults.harness import NotHeldError, Outcome, Row, command, damaged, is_refused, require, start, wait
from tests.helpers.stopped_runs import assert_same_run


def assert_ends_alike(kind: str, made: Whole, *options: str) -> None:
    """A run that was broken off comes to the end of one that was not, bit for bit."""
    begun = (Path("run") / "metrics.csv").exists()
    outcome = go_on(*options) if begun and Path("run/config.yaml").exists() else fit(kind, *options)
    if is_refused(outcome):
        raise NotHeldError(f"cannot go on: {outcome.err.strip()[-300:]}")
    assert_alike(made)


def assert_alike(made: Whole) -> None:
    try:
        assert_same_run(Path("run"), made.home / "run")
    except AssertionError as error:
        raise NotHeldError(f"ends otherwise than a run that was never broken off: {str(error)[:200]}") from None


# Kills.


def kill_at_any_time(kind: str, draw: random.Random, place: Path) -> None:
    """By processor time, which other processes do not lengthen."""
    made = whole(kind)
    write_data(place)
    after = draw.uniform(0.02, made.seconds)
    outcome = fit(kind, before=lambda: signal.setitimer(signal.ITIMER_PROF, after))
    require(outcome.code in (0, -signal.SIGPROF), f"ended with {outcome.code}: {outcome.err[-300:]}")
    assert_ends_alike(kind, made)


def kill_inside_a_save(kind: str, draw: random.Random, place: Path) -> None:
    """At the nth time that a file of the run is opened, renamed, removed or a folder made."""
    made = whole(kind)
    write_data(place)
    left = draw.randrange(1, 120)

    def watch() -> None:
        def count(event: str, args: tuple) -> None:
            nonlocal left
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod") and _in_run(args):
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)

    outcome = fit(kind, before=watch)
    require(outcome.code in (0, -signal.SIGKILL), f"ended with {outcome.code}: {outcome.err[-300:]}")
    assert_ends_alike(kind, made)


def _in_run(args: tuple) -> bool:
    return bool(args) and isinstance(args[0], str | Path) and "run" in Path(args[0]).parts


def kill_two_processes(draw: random.Random, place: Path) -> None:
    """A run of two processes, all of which are killed at once; each begins with its imports."""
    made = _whole_of_two()
    write_data(place)
    child = _start_two("--config", "classify.yaml", "--run_dir", "run")
    try:
        child.wait(draw.uniform(0.3, 1.1) * made.seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    begun = Path("run/config.yaml").exists() and Path("run/metrics.csv").exists()
    again = _start_two(*(("--resume", "run") if begun else ("--config", "classify.yaml", "--run_dir", "run")))
    said = again.communicate(timeout=300)[1]
    require(again.returncode == 0, f"cannot go on: {said[-300:]}")
    assert_alike(made)


@cache
def _whole_of_two() -> Whole:
    home = Path(tempfile.mkdtemp(prefix="whole."))
    remove_at_the_end(home)
    write_data(home)
    begun = time.monotonic()
    child = _start_two("--config", "classify.yaml", "--run_dir", "run", folder=home)
    out, err = child.communicate(timeout=600)
    if child.returncode:
        raise RuntimeError(err[-2000:])
    return Whole(home, Outcome(0, out, err), time.monotonic() - begun)


def _start_two(*argv: str, folder: Path | None = None) -> subprocess.Popen:
    """Lightning starts the second process with the command line of the first, so that it is no fork of this one."""
    return subprocess.Popen(
        [sys.executable, "-m", "anyformer", "fit", *argv, "--trainer.devices=2", "--trainer.strategy=ddp"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stop_by_signal(kind: str, draw: random.Random, place: Path) -> None:
    """SIGTERM or SIGINT, after which the run saves itself."""
    made = whole(kind)
    write_data(place)
    number, after = draw.choice((signal.SIGTERM, signal.SIGINT)), draw.uniform(0.1, made.seconds)

    def send(*_: object) -> None:
        os.kill(os.getpid(), number)

    def watch() -> None:
        signal.signal(signal.SIGPROF, send)
        signal.setitimer(signal.ITIMER_PROF, after)

    outcome = fit(kind, before=watch)
    wanted = (0, 128 + number, -number)
    require(outcome.code in wanted and "Traceback" not in outcome.err, f"{outcome.code}: {outcome.err[-300:]}")
    assert_ends_alike(kind, made)


# The machine's faults.


def full_disk(kind: str, draw: random.Random, place: Path) -> None:
    """No file may grow beyond a limit, as where a disk or a quota is full."""
    made = whole(kind)
    write_data(place)
    sizes = sorted(path.stat().st_size for path in (made.home / "run").rglob("*") if path.is_file())
    limit = draw.choice((0, 100, draw.choice(sizes), draw.randrange(sizes[-1] + 1)))
    outcome = fit(kind, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    if is_refused(outcome, 4):
        require("bytes" in outcome.err or limit < 100, f"no bytes are named: {outcome.err.strip()[-300:]}")
    assert_ends_alike(kind, made)


def full_disk_elsewhere(draw: random.Random, place: Path) -> None:
    """Where a command writes that is not fit."""
    copy_of("classify", place)
    picture = _picture(place)
    commands = [
        ("predict", "run", f"image={picture}", "--output", "out.csv"),
        ("predict", "run", "image=pictures", "--output", "out.jsonl"),
        ("export", "run", "out.safetensors"),
        ("test", "run"),
        ("collect", "--env", "CartPole-v1", "--policy", "random", "--episodes", "2", "--output", "out"),
    ]
    argv = draw.choice(commands)
    limit = draw.choice((0, 10, 100, 1000))
    limited = before_in_place(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    if is_refused(command(*argv, before=limited), 4):
        require(not list(place.glob("out*")), f"{argv[0]} left {[path.name for path in place.glob('out*')]}")
    require(command(*argv, before=before_in_place(None)).code == 0, f"{argv[0]} does not do again")


def full_output(draw: random.Random, place: Path) -> None:
    """Standard output is on a full disk."""
    copy_of("classify", place)
    picture = _picture(place)
    argv = draw.choice(
        [
            ("predict", "run", f"image={picture}"),
            ("predict", "run", f"image={picture}", "--json"),
            ("predict", "run", "image=pictures"),
            ("test", "run"),
            ("params", "classify.yaml"),
            ("fit", "--config", "classify.yaml", "--print_config"),
        ]
    )

    def fill() -> None:
        before_in_place(None)()
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, sys.stdout.fileno())

    outcome = command(*argv, before=fill)
    require(is_refused(outcome, 4), f"{argv[0]} did not notice")


def folder_goes(draw: random.Random, place: Path) -> None:
    """The run folder, or a part of it, is removed, or becomes one that may not be written to, in the midst of a run."""
    import shutil

    write_data(place)
    left = draw.randrange(2, 60)
    what = draw.choice(("run", "run/checkpoints", "run/metrics.csv"))

    def watch() -> None:
        def count(event: str, args: tuple) -> None:
            nonlocal left
            if event == "open" and _in_run(args):
                left -= 1
                if left == 0:
                    shutil.rmtree(what, ignore_errors=True) if Path(what).is_dir() else Path(what).unlink(True)

        sys.addaudithook(count)

    is_refused(fit("classify", before=watch), 4)


def may_not_write(draw: random.Random, place: Path) -> None:
    """A run folder that is read-only, a file, below a file, or of a name too long."""
    write_data(place)
    (place / "file").write_text("")
    (place / "closed").mkdir(0o555)
    run = draw.choice(("closed/run", "file", "file/run", "n" * 300, "/proc/run", "/sys/run"))

    def as_nobody() -> None:
        # Who is root may write anywhere.
        os.chmod(".", 0o755)
        if os.getuid() == 0 and run.startswith("closed"):
            os.setresuid(65534, 65534, 65534)

    outcome = command("fit", "--config", "classify.yaml", "--run_dir", run, before=as_nobody)
    require(is_refused(outcome), f"{run} was written")


def worker_dies(draw: random.Random, place: Path) -> None:
    """A data worker is killed, or hangs."""
    import multiprocessing.process

    write_data(place)
    at_batch, hangs = draw.randrange(1, 10), draw.random() < 0.3

    def watch() -> None:
        before_in_place(None)()
        from anyformer.data.samples import Samples

        fetch, done = Samples.__getitems__, 0

        def harmed(self: Samples, *args: object) -> object:
            nonlocal done
            done += 1
            if done == at_batch and multiprocessing.process.parent_process() is not None:
                if hangs:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    time.sleep(1000)
                os.kill(os.getpid(), draw.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS)))
            return fetch(self, *args)

        Samples.__getitems__ = harmed

    outcome = command(
        *("fit", "--config", "classify.yaml", "--run_dir", "run"),
        *("--data.n_workers=1", "--data.worker_timeout=2"),
        before=watch,
    )
    is_refused(outcome, 4)


# Damage.


def _picture(place: Path) -> str:
    from PIL import Image

    from anyformer.tokenizers.image.sources import Digits

    (place / "pictures").mkdir(exist_ok=True)
    for i in range(3):
        Image.fromarray(Digits()[i]["image"]).save(place / "pictures" / f"{i}.png")
    return "pictures/1.png"


def _uses(kind: str, place: Path) -> dict[str, Callable[[], Outcome]]:
    """What is done with a run, by name."""
    record = {
        "classify": (f"image={_picture(place)}", "--json"),
        "language": ("text=all is", "--temperature", "0", "--max_new_tokens", "8"),
        "sequence": ("source=all is", "--json"),
        "predict": ("sex=man", "--json"),
    }
    evaluated = "validate" if kind in ("decide", "mixture") else "test"
    uses = {evaluated: lambda: command(evaluated, "run", before=before_in_place(None))}
    if kind in record:
        uses["predict"] = lambda: command("predict", "run", *record[kind], before=before_in_place(None))
    uses["resume"] = lambda: go_on("--trainer.max_epochs=3")
    return uses


def _result(outcome: Outcome) -> tuple[str, str, bytes]:
    run = Path("run")
    weights = run / "model" / "weights.safetensors"
    return (
        outcome.out,
        (run / "metrics.csv").read_text() if (run / "metrics.csv").exists() else "",
        weights.read_bytes() if weights.exists() else b"",
    )


_expected: dict[tuple[str, str], tuple[str, str, bytes]] = {}


def _wanted(kind: str, use: str) -> tuple[str, str, bytes]:
    """What a use of an undamaged run gives."""
    if (kind, use) not in _expected:
        place = Path(tempfile.mkdtemp(prefix="unharmed."))
        remove_at_the_end(place)
        copy_of(kind, place)

        def undisturbed() -> Outcome:
            outcome = _uses(kind, place)[use]()
            if outcome.code:
                raise RuntimeError(f"{use} of {kind}: {outcome.err[-2000:]}")
            _expected[kind, use] = _result(outcome)
            return outcome

        at(place, undisturbed)
    return _expected[kind, use]


def damage(folder: str, kind: str, draw: random.Random, place: Path) -> None:
    """A file of the run, or of the cache, is cut off, changed, emptied or lost; then the run is used."""
    copy_of(kind, place)
    use = draw.choice(list(_uses(kind, place)))
    wanted = _wanted(kind, use)
    files = sorted(path for path in (place / folder).rglob("*") if path.is_file())
    path = draw.choice(files)
    how = draw.choice(("cut", "flip", "damaged", "damaged", "empty", "lost"))
    content = path.read_bytes()
    if how == "lost":
        path.unlink()
    elif how == "flip" and content:
        at_byte = draw.randrange(len(content))
        path.write_bytes(
            content[:at_byte] + bytes([content[at_byte] ^ 1 << draw.randrange(8)]) + content[at_byte + 1 :]
        )
    else:
        cut = content[: draw.randrange(len(content))] if content else b""
        path.write_bytes({"empty": b"", "cut": cut}.get(how, damaged(content, draw)))
    outcome = _uses(kind, place)[use]()
    if not is_refused(outcome) and _result(outcome) != wanted:
        raise NotHeldError(f"{use}: {path.relative_to(place)} ({how}) was used in silence")


# Two processes on one run.


def two_processes(draw: random.Random, place: Path) -> None:
    copy_of("classify", place)
    delay = draw.uniform(0, 0.5)
    errs = [open(place / f"{n}.err", "w+b") for n in range(2)]  # noqa: SIM115
    children = []
    for err in errs:
        children.append(
            start(lambda: _main("fit", "--resume", "run", "--trainer.max_epochs=4"), err.fileno(), err.fileno())
        )
        time.sleep(delay)
    codes = [wait(child) for child in children]
    said = [(place / f"{n}.err").read_text() for n in range(2)]
    require("Traceback" not in "".join(said), f"a traceback: {''.join(said)[-300:]}")
    require(sorted(codes) in ([0, 2], [0, 0]), f"codes {codes}: {said[0][-150:]} {said[1][-150:]}")
    steps = [line.split(",")[0] for line in (place / "run" / "metrics.csv").read_text().splitlines()[1:]]
    require(len(steps) == len(set(steps)), f"metrics.csv has {len(steps)} rows of {len(set(steps))} steps")
    require(sorted(codes) == [0, 2] or delay > 0.3, "both processes wrote one run")


def _main(*argv: str) -> int:
    from anyformer.__main__ import main

    before_in_place(None)()
    return main(argv)


ROWS = [
    *(
        Row(f"kill at any time: {kind}", partial(kill_at_any_time, kind), 60, gate=int(kind in ("classify", "decide")))
        for kind in KINDS
    ),
    *(
        Row(
            f"kill inside a save: {kind}",
            partial(kill_inside_a_save, kind),
            60,
            gate=int(kind in ("language", "mixture")),
        )
        for kind in KINDS
    ),
    Row("kill two processes", kill_two_processes, 20, gate=0, seconds=900),
    Row("stop by a signal", lambda draw, place: stop_by_signal(draw.choice(KINDS), draw, place), 60),
    Row("full disk: fit", lambda draw, place: full_disk(draw.choice(KINDS), draw, place), 120),
    Row("full disk: other commands", full_disk_elsewhere, 60),
    Row("full disk: standard output", full_output, 30),
    Row("the run folder goes", folder_goes, 60),
    Row("no folder to write to", may_not_write, 30),
    Row("a data worker dies or hangs", worker_dies, 30),
    *(
        Row(
            f"damaged file of a run: {kind}",
            partial(damage, "run", kind),
            300,
            gate=int(kind in ("classify", "predict")),
        )
        for kind in KINDS
    ),
    Row("damaged file of the cache", partial(damage, "cache", "language"), 200),
    Row("two processes on one run", two_processes, 20),
]
