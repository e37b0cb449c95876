"""Searches that are killed, stopped and started in real processes, on SQLite and PostgreSQL."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
import sqlalchemy

import splicedvae as sv
from splicedvae import search

pytestmark = [pytest.mark.slow, pytest.mark.publishing]
N_TRIALS = 4
#: A worker imports this file anew, so what stands at its top reaches every process.
PROGRAM = """
import os
import sys
import time
from pathlib import Path
import splicedvae as sv
from splicedvae import search
from splicedvae.search import _workers

_workers.HEARTBEAT = 1
if __name__ == "__main__":
    url, n_workers, n_together = sys.argv[1:]
    adata = sv.data.simulate(n_obs=300, n_vars=60)
    split = sv.data.split(adata)
    adata = sv.data.prepare(adata, fit_on=split[0])
    sv.SplicedVAE.setup_anndata(adata)
    space = {"lr": [1e-3 * (1 + i) for i in range(4)], "n_hidden": 16, "n_latent": 4}
    Path(f"ready{os.getpid()}").touch()
    while len(list(Path().glob("ready*"))) < int(n_together):
        time.sleep(0.001)
    search.run(adata, split[:2], space, n_trials=4, max_epochs=60, storage=url,
               n_workers=int(n_workers), progress=False)
"""


@pytest.fixture
def start(tmp_path):
    """Start processes, each with its own group, and leave none behind."""
    processes = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if group_lives(process):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def program(tmp_path, start):
    (tmp_path / "program.py").write_text(PROGRAM)

    def program(url, n_workers=1, n_together=1):
        return start("program.py", url, n_workers, n_together)

    return program


def group_lives(process):
    listed = subprocess.check_output(["ps", "-A", "-o", "pgid=,stat="], text=True).splitlines()
    states = [line.split() for line in listed]
    return any(int(group) == process.pid and state[0] != "Z" for group, state in states)


def workers_of(process):
    command = ["pgrep", "-P", str(process.pid), "-f", "spawn_main"]
    return [int(pid) for pid in subprocess.run(command, stdout=subprocess.PIPE).stdout.split()]


def trials_in(url):
    """Number, state, configuration, retried trial and whether it is surplus; nothing of Optuna."""
    text, joins = "select t.number, t.state", ""
    for name, kind in (("configuration", "user"), ("failed_trial", "system"), ("surplus", "user")):
        text += f", {name}.value_json as {name}"
        joins += f" left join trial_{kind}_attributes {name}"
        joins += f" on {name}.trial_id = t.trial_id and {name}.key = '{name}'"
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect() as connection:
            query = sqlalchemy.text(f"{text} from trials t {joins} order by t.number")
            return [row._asdict() for row in connection.execute(query)]
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.ProgrammingError):
        return []  # no tables yet
    finally:
        engine.dispose()


def wait_for(condition, what, seconds=180):  # only against waiting forever
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def stopped_in_mid_trial(url, processes, n, after=0):
    """Stop n processes while each has a trial running, and at least so many are complete."""
    stopped = []

    def working():
        states = Counter(t["state"] for t in trials_in(url) if not t["surplus"])
        return states["RUNNING"] == n and states["COMPLETE"] >= after

    def met():
        if not working():  # a slow machine's processes must get on while they are watched
            return False
        time.sleep(0.5)  # from the start of a trial into its middle
        stopped[:] = processes()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        if len(stopped) == n and working():
            return True
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        return False

    wait_for(met, f"{n} trials")
    return stopped


def numbers(url, state):
    return [t["number"] for t in trials_in(url) if t["state"] == state and not t["surplus"]]


def finish(process):
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def check(url, interrupted):
    """Every configuration ended, none that had ended ran again, each interrupted one ran twice."""
    trials = [t for t in trials_in(url) if not t["surplus"]]
    by_configuration = defaultdict(list)
    for trial in trials:
        by_configuration[trial["configuration"]].append(trial["state"])
    assert by_configuration.keys() == {str(i) for i in range(N_TRIALS)}
    ended = Counter(tuple(states) for states in by_configuration.values())
    twice = {("FAIL", "COMPLETE"): len(interrupted)}
    assert ended == Counter({("COMPLETE",): N_TRIALS - len(interrupted)} | twice), trials
    retries = [int(t["failed_trial"]) for t in trials if t["failed_trial"]]
    assert sorted(retries) == sorted(interrupted)


# --- SQLite -------------------------------------------------------------------------------------


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/search.db"


def test_one_of_two_workers_is_killed(url, program):
    process = program(url, n_workers=2)
    victim, other = stopped_in_mid_trial(url, lambda: workers_of(process), 2)
    os.kill(victim, signal.SIGKILL)
    os.kill(other, signal.SIGCONT)
    finish(process)
    interrupted = numbers(url, "FAIL")
    assert len(interrupted) == 1
    check(url, interrupted)


def test_all_processes_are_killed(url, program):
    process = program(url, n_workers=2)
    stopped_in_mid_trial(url, lambda: workers_of(process), 2, after=1)
    os.killpg(process.pid, signal.SIGKILL)
    wait_for(lambda: not group_lives(process), "the processes to end")
    interrupted = numbers(url, "RUNNING")
    finish(program(url))
    check(url, interrupted)


def test_worker_that_slept_goes_on_with_another_trial(url, program):
    """As after a suspended machine: it is thought dead, and its trial has a retry when it wakes."""
    process = program(url, n_workers=2)
    sleeper, other = stopped_in_mid_trial(url, lambda: workers_of(process), 2)
    os.kill(other, signal.SIGCONT)
    wait_for(lambda: numbers(url, "FAIL"), "the sleeper's trial to be given up")
    os.kill(sleeper, signal.SIGCONT)
    time.sleep(1)
    assert sleeper in workers_of(process)
    finish(process)
    interrupted = numbers(url, "FAIL")
    assert len(interrupted) == 1
    check(url, interrupted)


@pytest.mark.parametrize(("sign", "n_workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_command_is_interrupted_and_goes_on(sign, n_workers, url, start, tmp_path):
    sv.data.simulate(n_obs=300, n_vars=60).write_h5ad(tmp_path / "cells.h5ad")
    command = ["-m", "splicedvae.search", "--data", "cells.h5ad", "--storage", url]
    command += ["--trials", N_TRIALS, "--epochs", 60, "--workers", n_workers]
    process = start(*command)
    working = (lambda: workers_of(process)) if n_workers > 1 else (lambda: [process.pid])
    stopped = stopped_in_mid_trial(url, working, n_workers, after=1)
    os.killpg(process.pid, sign)  # Ctrl-C reaches the whole group
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "the same command goes on" in output, output
    # Python itself reports a signal that falls into a callback of its garbage collection
    ignored = re.sub(r"Exception ignored in:.*?\n *KeyboardInterrupt: *\n", "", output, flags=re.S)
    assert "Traceback" not in ignored, output
    wait_for(lambda: not group_lives(process), "the processes to end", seconds=30)
    interrupted = numbers(url, "FAIL")
    assert interrupted and not numbers(url, "RUNNING")
    assert "rmse_observed" in finish(start(*command))
    check(url, interrupted)


# --- Races that a test can stage in one process -------------------------------------------------


@pytest.fixture
def small(url, monkeypatch):
    """A study of which one configuration has run and three wait, and how to go on with it."""
    adata = sv.data.simulate(n_obs=300, n_vars=60)
    split = sv.data.split(adata)
    adata = sv.data.prepare(adata, fit_on=split[0])
    sv.SplicedVAE.setup_anndata(adata)
    monkeypatch.setattr(search._workers, "HEARTBEAT", 1)
    space = {"lr": [1e-3 * (1 + i) for i in range(N_TRIALS)], "n_hidden": 16, "n_latent": 4}

    def go_on(n_trials=N_TRIALS):
        return search.run(
            adata, split[:2], space, n_trials=n_trials, max_epochs=1, storage=url, progress=False
        )

    study = go_on(n_trials=1)
    for number in range(1, N_TRIALS):
        study.enqueue_trial({"lr": space["lr"][number]}, user_attrs={"configuration": number})
    return study, go_on


def test_what_two_processes_enqueued_at_once_runs_once(small, url):
    study, go_on = small
    for number in range(N_TRIALS):
        study.enqueue_trial({"lr": 1e-3}, user_attrs={"configuration": number})
    trials = search.table(go_on())
    assert trials["state"].eq("COMPLETE").all() and trials["attempts"].eq(1).all()
    assert sum(t["surplus"] is not None for t in trials_in(url)) == N_TRIALS
    check(url, [])


def test_interrupted_trial_with_two_retries_uses_one(small, url):
    """As when its process is killed after it had asked for one and before its heart stopped."""
    study, go_on = small
    frozen = study.trials[2]
    for _ in range(2):
        search._workers.RETRY(study, frozen)
    study._storage.set_trial_state_values(frozen._trial_id, optuna.trial.TrialState.FAIL)
    go_on()
    assert sum(t["surplus"] is not None for t in trials_in(url)) == 1
    states = [t["state"] for t in trials_in(url) if t["configuration"] == "2" and not t["surplus"]]
    assert states == ["FAIL", "COMPLETE"]


def test_trial_that_died_before_its_first_heartbeat_is_retried(small, url):
    study, go_on = small
    frozen = study.trials[2]
    study._storage.set_trial_state_values(frozen._trial_id, optuna.trial.TrialState.RUNNING)
    go_on()
    check(url, [2])


def test_sigterm_between_two_trials_interrupts(small, url, monkeypatch):
    _, go_on = small
    unheard = []
    before = signal.signal(signal.SIGTERM, lambda *_: unheard.append(1))  # by default, it kills
    try:
        with monkeypatch.context() as between:
            send = lambda study: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
            between.setattr(search._workers, "fail_stale_trials", send)
            with pytest.raises(KeyboardInterrupt):
                go_on()
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert unheard == [1]  # after the search, whoever listened before does so again
    go_on()
    check(url, [])


def test_maker_of_a_study_died_before_it_said_what_for(small, url):
    study, go_on = small
    study._storage.delete_study(study._study_id)
    optuna.create_study(storage=url, study_name="splicedvae", direction="minimize")
    assert search.table(go_on())["state"].eq("COMPLETE").all()


# --- PostgreSQL ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    """A server of its own on loopback; it refuses to run as root, so root lends it a user."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("needs PostgreSQL's server: apt install postgresql")
    binaries = Path(initdb).parent
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        if who:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()  # and let the server have it
        settled = {"cwd": folder, "stdout": subprocess.DEVNULL, **who}
        arguments = ["-D", f"{folder}/data", "-U", "me", "--auth=trust", "--no-sync"]
        subprocess.run([initdb, *arguments], check=True, **settled)
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
        process = subprocess.Popen(
            [binaries / "postgres", "-D", f"{folder}/data", *options],
            stderr=subprocess.DEVNULL,
            **settled,
        )
        try:
            ready = [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "20"]
            wait_for(lambda: subprocess.run(ready, **settled).returncode == 0, "the server")
            yield f"postgresql://me@127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


@pytest.fixture
def database(server, request):
    name = f"search_{abs(hash(request.node.name))}"
    url = f"{server}/postgres".replace("postgresql:", "postgresql+psycopg:")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"create database {name}"))
    engine.dispose()
    return f"{server}/{name}"


def test_two_machines_share_a_study_and_one_dies(database, program):
    """Both make the tables, the study and its points at the same moment."""
    machines = [program(database, n_together=2) for _ in range(2)]
    stopped_in_mid_trial(database, lambda: [machine.pid for machine in machines], 2)
    machines[0].kill()
    machines[0].wait()
    os.kill(machines[1].pid, signal.SIGCONT)
    finish(machines[1])
    interrupted = numbers(database, "FAIL")
    assert len(interrupted) == 1
    check(database, interrupted)


@pytest.mark.parametrize("where", ["url", "database"])
def test_empty_database_is_opened_by_eight_at_once(where, request):
    url, together = request.getfixturevalue(where), threading.Barrier(8)

    def open_storage(_):
        together.wait()
        return search._workers.open_storage(url).get_current_version()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(open_storage, range(8)))) == 1
