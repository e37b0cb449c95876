"""The processes of a search: how they share a study, and how they end."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import optuna
import torch
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

if TYPE_CHECKING:
    from ._trials import Task

HEARTBEAT = 5  # seconds; a trial that is silent for three of them is dead
with warnings.catch_warnings():  # experimental since 2021, and deprecated under its older name
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    RETRY = RetryHeartbeatStaleTrialCallback(max_retry=1)
#: A configuration that raises one of these has failed, and the search goes on.
FAILURES = (ValueError, ArithmeticError, RuntimeError)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM interrupts as Ctrl-C does; Lightning's deafness after either is undone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


@contextmanager
def quiet() -> Iterator[None]:
    """Neither Lightning, scvi-tools nor Optuna says anything at every trial."""
    names = ("lightning.pytorch", "lightning.fabric", "scvi", "optuna")
    loggers = {name: logging.getLogger(name) for name in names}
    levels = {name: logger.level for name, logger in loggers.items()}
    try:
        for logger in loggers.values():
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        for name, level in levels.items():
            loggers[name].setLevel(level)


def open_storage(url: str) -> RDBStorage:
    """Open a database with heartbeats; a trial whose process died is retried once."""
    shown = "of this URL"  # which may hold a password, wherever it stands
    try:
        parsed = make_url(url)
        shown = parsed.set(query={}).render_as_string(hide_password=True)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        sqlite = parsed.get_backend_name() == "sqlite"
        if sqlite and parsed.database in (None, "", ":memory:"):
            raise ArgumentError("a search outlives its process, memory does not")
        options = {
            "url": parsed.render_as_string(hide_password=False),
            "engine_kwargs": {
                "connect_args": {"timeout" if sqlite else "connect_timeout": 30},
                "pool_pre_ping": True,
            },
            "heartbeat_interval": HEARTBEAT,
            "grace_period": 3 * HEARTBEAT,
            "heartbeat_stale_trial_callback": RETRY,
        }
        for _ in range(5):
            try:
                return RDBStorage(**options)
            except (IntegrityError, ProgrammingError, OperationalError) as error:
                # another process makes the tables at this moment
                if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                    raise
                time.sleep(0.5)
        return RDBStorage(**options)
    except (SQLAlchemyError, ImportError, StorageInternalError) as error:
        raise ConnectionError(
            f"The storage {shown} can't be reached ({str(error).splitlines()[0]}). Give a database "
            "URL such as sqlite:///search.db or postgresql://user@host/name."
        ) from error


def work(task: Task, show: Callable[[], None] = lambda: None) -> None:
    """Run trials until every configuration has ended, here or elsewhere."""
    storage = open_storage(task.storage)
    study = optuna.load_study(
        study_name=task.study_name,
        storage=storage,
        pruner=optuna.pruners.MedianPruner(10, n_warmup_steps=task.max_epochs // 5),
    )
    awaited: set[int] = set()
    while True:
        fail_stale_trials(study)
        trials = study.get_trials(deepcopy=False)
        running = {t._trial_id for t in trials if t.state == TrialState.RUNNING}
        if any(t.state == TrialState.WAITING for t in trials):
            # Optuna can't tell how a trial ended that was thought dead, as after a machine's
            # sleep, and has a retry by now
            with suppress(ValueError):
                study.optimize(task, n_trials=1, catch=FAILURES)
        elif running:  # in another process, which may yet die
            for trial_id in running - awaited:  # or did, before the first beat
                storage.record_heartbeat(trial_id)
            awaited |= running
            time.sleep(1)
        else:
            return
        show()


def _worker(task: Task, threads: int) -> None:
    """One of several processes; its parent alone hears Ctrl-C, and passes it on as SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(threads)
    try:
        with quiet():
            task.setup_anndata()
            work(task, _leave_if_orphaned)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)


def _leave_if_orphaned() -> None:
    """A parent that was killed could tell nobody to stop."""
    if not multiprocessing.parent_process().is_alive():
        sys.exit(1)


def spread(task: Task, n_workers: int, show: Callable[[], None]) -> None:
    """Run `work` in processes that share the cores, and end them if this one is interrupted."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's locks
    threads = max(1, (os.cpu_count() or 1) // n_workers)
    workers = [
        context.Process(target=_worker, args=(task, threads), daemon=True) for _ in range(n_workers)
    ]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.5)
            show()
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(30)
