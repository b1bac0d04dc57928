"""The loop of the data workers: batches of samples, epoch after epoch, with a place that can be saved.

Which samples stand together is a `Plan`, and what becomes of them is done by `Samples`. What is drawn for a sample is a
function of (seed, epoch, index), so that the place is two integers.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader

from anyformer.data.batch_plan import Draw, Plan
from anyformer.data.samples import Fetched, Samples
from anyformer.errors import InputError
from anyformer.faults import FEWER_WORKERS, MachineError

log = logging.getLogger(__name__)


class Loader:
    """Batches of samples as planned, epoch after epoch; knows its place, and goes on from there.

    Iterating runs through one epoch: the one whose place was loaded, else the next. It is not a `DataLoader` but has
    one, because a trainer takes those apart and puts in samplers of its own. The place counts the batches handed out,
    never those that workers have fetched ahead, and no global generator is touched.

    ask_epoch: where someone else counts the epochs (a trainer, which may cut them short), says which one it is.
    keep_workers: whether the workers wait for the next epoch.
    worker_timeout: seconds that a batch of the workers is waited for; without end, when None.
    """

    def __init__(
        self,
        samples: Samples,
        plan: Plan,
        n_workers: int = 0,
        pin_memory: bool = False,
        ask_epoch: Callable[[], int] | None = None,
        keep_workers: bool = True,
        worker_timeout: float | None = None,
    ) -> None:
        self.samples, self.plan = samples, plan
        self.n_workers, self.pin_memory, self.ask_epoch = n_workers, pin_memory, ask_epoch
        self.keep_workers, self.worker_timeout = keep_workers, worker_timeout
        self.epoch, self.offset = 0, 0
        self.n_bad, self.bad = 0, []
        self._begun = False
        self._upcoming = _Upcoming(plan)
        self._fetcher: DataLoader | None = None

    def __len__(self) -> int:
        """Batches of an epoch: the same for all."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that nothing happens before the first batch is asked for: a trainer calls iter() to try it.
        over = self._begun or self.offset >= len(self)
        epoch = self.epoch + over if self.ask_epoch is None else self.ask_epoch()
        if over or epoch != self.epoch:
            self._report()
            self.epoch, self.offset = epoch, 0
        self._begun = True
        self._upcoming.place = self.epoch, self.offset
        if self._fetcher is None:
            self._fetcher = DataLoader(
                self.samples,
                batch_sampler=self._upcoming,
                collate_fn=_whole,
                num_workers=self.n_workers,
                persistent_workers=self.n_workers > 0,
                pin_memory=self.pin_memory,
                timeout=(self.n_workers and self.worker_timeout) or 0,
                worker_init_fn=_outlive,
                # Its own, or each epoch would draw the workers' seed from the generator that dropout draws from.
                generator=torch.Generator(),
            )
        # In evaluation a batch of which nothing is left is None where others wait for this process at every batch.
        keeps_step = self.plan.world > 1 and not self.samples.training
        try:
            for fetched in self._fetch():
                self.offset += 1
                self.n_bad += len(fetched.bad)
                self.bad = (self.bad + fetched.bad)[:3]
                if fetched.fatal:
                    self.close()
                    raise InputError(fetched.bad[0])
                if self.offset == len(self):
                    self._report()
                if fetched.batch is not None or keeps_step:
                    yield fetched.batch
        finally:
            if not self.keep_workers:
                self.close()

    def _fetch(self) -> Iterator[Fetched]:
        """What the workers fetch. Raises MachineError where they hang."""
        try:
            yield from self._fetcher
        except (ConnectionError, EOFError) as error:
            self.close()
            raise MachineError(f"a data worker was killed in the midst of a batch ({error}); {FEWER_WORKERS}") from None
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            self.close()
            raise MachineError(
                f"no data worker has given a batch for {self.worker_timeout:g} s (data.worker_timeout): one hangs or "
                "is slow; see which record it is with data.n_workers: 0, or give more time"
            ) from None

    def state_dict(self) -> dict[str, Any]:
        """The place, in plain types."""
        return {
            "seed": self.plan.seed,
            "epoch": self.epoch,
            "offset": self.offset,
            "n_batches": len(self),
            "n_bad": self.n_bad,
            "bad": list(self.bad),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a place. Raises InputError if it belongs to other data, other batches or another seed."""
        for key, now in (("seed", self.plan.seed), ("n_batches", len(self))):
            if state[key] != now:
                raise InputError(
                    f"cannot go on inside an epoch: the checkpoint was made with {key}={state[key]}, "
                    f"this run has {now}; use the same data, batch size, seed and number of processes"
                )
        self.epoch, self.offset, self._begun = state["epoch"], state["offset"], False
        self.n_bad, self.bad = state["n_bad"], list(state["bad"])

    def close(self) -> None:
        """End the workers; they come back when the loader is used again."""
        # By hand, as trainers do: workers left to the garbage collector are waited for in vain, 5 s each, since it has
        # closed their queues by then.
        if (running := getattr(self._fetcher, "_iterator", None)) is not None:
            running._shutdown_workers()
            # It waits for a while, and then sends what `_outlive` lives through and what hangs may never hear of.
            for worker in running._workers:
                worker.kill()
        self._fetcher = None

    def _report(self) -> None:
        if self.n_bad:
            more = f", and {self.n_bad - len(self.bad)} more" if self.n_bad > len(self.bad) else ""
            # How often has been evaluated is no epoch of the run: Lightning tries a few batches before the first.
            what = f"epoch {self.epoch} of training" if self.samples.training else "evaluation"
            log.warning("%s left out %d samples: %s%s", what, self.n_bad, "; ".join(self.bad), more)
        self.n_bad, self.bad = 0, []


class _Upcoming:
    """The batch sampler: the draws from a place on.

    It does not know its loader: in a cycle with that, a process forked later would inherit the dead loader, collect it,
    and stop the workers of its parent.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.place = 0, 0

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.plan.epoch(*self.place)


def _outlive(worker: int) -> None:
    """Let a worker live on for a minute after SIGTERM.

    Who ends a job sends it to all of its processes, and the one that trains needs batches till the end of its step.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))


def _whole(fetched: Fetched) -> Fetched:
    return fetched
