"""Builds of a store that are killed in real processes: the same call goes on, to the same bytes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from test_atlas_store import GENES, content, made_up, plan_of

from splicedvae.atlas.store import Store, build_store

pytestmark = [pytest.mark.slow, pytest.mark.publishing]
N_SHARDS = 8
#: A worker imports this file anew.
PROGRAM = """
import sys
import pandas as pd
from splicedvae.atlas.store import build_store

if __name__ == "__main__":
    plan, genes, path, n_jobs = sys.argv[1:]
    genes = pd.Index(pd.read_csv(genes)["gene"])
    build_store(pd.read_parquet(plan), path, genes, n_jobs=int(n_jobs), shard_cells=250)
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A plan of 2,000 cells in eight shards, and what its store should be."""
    folder = tmp_path_factory.mktemp("asked")
    files = []
    for seed in range(N_SHARDS):
        files.append(folder / f"{seed}.h5ad")
        made_up(300, seed).write_h5ad(files[-1], compression="gzip")
    plan = plan_of(files, n_take=250)
    plan.to_parquet(folder / "plan.parquet")
    GENES.to_frame().to_csv(folder / "genes.csv", index=False)
    (folder / "program.py").write_text(PROGRAM)
    whole = build_store(plan, folder / "whole", GENES, shard_cells=250, progress=False)
    assert whole.n_obs == 2000
    return folder, plan, content(whole.path)


@pytest.fixture
def start(asked, tmp_path):
    """Start builds, each a process group of its own, and leave none behind; give the group."""
    folder, plan, _ = asked
    groups = []

    def start(n_jobs=1):
        if n_jobs == 1:  # a fork of this process need not import anything
            group = os.fork()
            if group == 0:
                code = 1
                try:
                    os.setpgid(0, 0)
                    build_store(plan, tmp_path / "store", GENES, shard_cells=250, progress=False)
                    code = 0
                except KeyboardInterrupt:
                    code = 130
                finally:
                    os._exit(code)
            with suppress(OSError):  # whoever is first, the child or its parent
                os.setpgid(group, group)
        else:
            files = [folder / "plan.parquet", folder / "genes.csv", tmp_path / "store"]
            with (tmp_path / f"output{len(groups)}").open("w") as output:
                group = subprocess.Popen(
                    [sys.executable, folder / "program.py", *files, str(n_jobs)],
                    stdout=output,
                    stderr=output,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                    start_new_session=True,
                ).pid
        groups.append(group)
        return group

    yield start
    for group in groups:
        if members(group):
            os.killpg(group, signal.SIGKILL)


def members(group):
    """The living processes of a group."""
    listed = subprocess.check_output(["ps", "-A", "-o", "pid=,pgid=,stat="], text=True)
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, own, state in rows if int(own) == group and state[0] != "Z"]


def finish(group):
    """Wait for the end of a group's first process; give its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(group, 0)[1])


def kill(group):
    os.killpg(group, signal.SIGKILL)
    assert finish(group) == -signal.SIGKILL
    while members(group):
        time.sleep(0.01)


def state(path):
    """Numbers of complete shards, and of those that are being written."""
    names = [p.name for p in (path / "shards").glob("*")]
    complete = {name[:4] for name in names if name.endswith(".json")}
    return complete, {name[:4] for name in names} - complete


def check_complete(path, truth):
    """What is committed is as it should be, at any moment."""
    there = content(path)
    for shard in state(path)[0]:
        own = {name for name in truth if name.startswith(f"shards/{shard}")}
        assert own and all(there.get(name) == truth[name] for name in own)


def stopped_in_mid_shard(group, path, after):
    """Stop the group while a shard is being written and so many are complete; give these."""
    deadline = time.time() + 120
    while time.time() < deadline:
        if (path / "shards").exists():
            os.killpg(group, signal.SIGSTOP)
            complete, begun = state(path)
            if len(complete) >= after and begun:
                return complete
            os.killpg(group, signal.SIGCONT)
        assert members(group), "it ended before it was caught"
        time.sleep(0.002)
    raise AssertionError(f"{path} was never caught in mid-shard: {state(path)}")


@pytest.mark.parametrize(("n_jobs", "after"), [(1, 0), (1, 3), (2, 1)])
def test_all_processes_are_killed(n_jobs, after, asked, start, tmp_path):
    path, truth = tmp_path / "store", asked[2]
    group = start(n_jobs)
    complete = stopped_in_mid_shard(group, path, after)
    kill(group)
    check_complete(path, truth)
    with pytest.raises(FileNotFoundError, match=f"has {len(complete)} of {N_SHARDS} shards"):
        Store(path)
    kept = {name: (path / f"shards/{name}").stat().st_ino for name in complete}
    assert finish(start()) == 0
    assert content(path) == truth and not state(path)[1]
    assert kept == {name: (path / f"shards/{name}").stat().st_ino for name in complete}
    Store(path).verify()


def test_one_worker_is_killed(asked, start, tmp_path):
    path, truth = tmp_path / "store", asked[2]
    group = start(n_jobs=2)
    stopped_in_mid_shard(group, path, after=1)
    workers = subprocess.check_output(["pgrep", "-P", str(group), "-f", "loky.backend.popen"])
    os.kill(int(workers.split()[-1]), signal.SIGKILL)
    os.killpg(group, signal.SIGCONT)
    assert finish(group) == 1
    assert "TerminatedWorkerError" in (tmp_path / "output0").read_text()
    check_complete(path, truth)
    assert finish(start()) == 0
    assert content(path) == truth


def test_two_builds_of_the_same_share_the_work(asked, start, tmp_path):
    """As when a machine is thought dead and its job is started again."""
    groups = [start(), start()]
    assert [finish(group) for group in groups] == [0, 0]
    assert content(tmp_path / "store") == asked[2]


def test_interrupted_by_hand(asked, start, tmp_path):
    path, truth = tmp_path / "store", asked[2]
    group = start()
    stopped_in_mid_shard(group, path, after=1)
    os.killpg(group, signal.SIGINT)
    os.killpg(group, signal.SIGCONT)
    assert finish(group) == 130
    assert not state(path)[1]  # nothing half-written is left
    check_complete(path, truth)
    assert finish(start()) == 0
    assert content(path) == truth


def test_killed_at_any_moment(asked, start, tmp_path):
    """Ever later, until one build ends."""
    path, truth = tmp_path / "store", asked[2]
    rng, seen, kills = np.random.default_rng(0), set(), 0
    while True:
        group = start()
        time.sleep(rng.uniform(0, 0.2 + kills / 20))
        os.kill(group, signal.SIGKILL)
        if (code := finish(group)) == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        check_complete(path, truth)
        seen.add(tuple(sorted(p.relative_to(path).as_posix() for p in path.rglob("*"))))
    assert kills >= 5 and len(seen) >= 5  # they were different moments
    assert content(path) == truth
