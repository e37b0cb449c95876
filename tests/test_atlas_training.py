"""A model trained on a store: by one process or two, stopped and gone on with, saved and loaded."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from anndata import AnnData
from lightning.pytorch.callbacks import Callback

import splicedvae as sv
from splicedvae.atlas import AtlasDataModule, MidEpochCheckpoint, Store, build_store, one_to_one
from splicedvae.atlas.__main__ import main
from splicedvae_book.corpus import corpus, orthologues

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A store of 1,400 simulated cells of 40 genes, 1,200 of them for training."""
    folder = tmp_path_factory.mktemp("atlas")
    cells = sv.data.simulate(n_obs=1400, n_vars=40, seed=0)
    rows = []
    for k, own in enumerate(np.split(np.arange(1400), [400, 800, 1200])):
        cells[own].write_h5ad(folder / f"{k}.h5ad")
        row = {"sample": f"SRX{k}", "file": str(folder / f"{k}.h5ad"), "n_take": len(own)}
        part = "val" if k == 3 else "train"
        rows.append(row | {"seed": k, "tissue": "pancreas", "dataset": f"set {k}", "part": part})
    plan = pd.DataFrame(rows).set_index("sample")
    build_store(plan, folder / "store", cells.var_names, shard_cells=500, progress=False)
    return folder / "store"


def datamodule(path, **settings) -> AtlasDataModule:
    settings = {"batch_size": 60, "block": 20, "preload": 12, "engine": "anndata"} | settings
    return AtlasDataModule(Store(path), **settings)


def cells_of(module, part="train") -> AnnData:
    """The cells of a part in memory."""
    batches = list(module.inference_dataloader(part))
    x, s, u = (torch.cat([b[k] for b in batches]).numpy() for k in ("X", "spliced", "unspliced"))
    layers = {"spliced": s, "unspliced": u, "total": x}
    return AnnData(x, var=pd.DataFrame(index=module.store.genes), layers=layers)


class Seen(Callback):
    """The cells that were trained on, by their counts; and a crash after so many steps."""

    def __init__(self, stop=None):
        self.cells, self.stop, self.n_obs = [], stop, None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.n_obs = pl_module.loss_kwargs["n_obs"]
        cells = torch.cat([batch["spliced"], batch["unspliced"]], dim=1).numpy()
        self.cells.append((trainer.current_epoch, [cell.tobytes() for cell in cells]))
        if trainer.global_step == self.stop:
            raise OSError("the power is cut")

    def epoch(self, number) -> list[bytes]:
        return [cell for epoch, cells in self.cells if epoch == number for cell in cells]


def test_the_head_starts_as_if_all_cells_were_in_memory(path):
    module = datamodule(path)
    model = sv.SplicedVAE(registry=module.registry)
    model.train(1, datamodule=module, lr=1e-12, **QUIET)
    cells = cells_of(module)
    sv.SplicedVAE.setup_anndata(cells)
    other = sv.SplicedVAE(cells)
    other.train(1, split=(range(1190), range(1190, 1200)), lr=1e-12, **QUIET)
    s, u = (cells.layers[name] for name in ("spliced", "unspliced"))
    known = (s.sum(1) > 0) & (u.sum(1) > 0)  # in the others one form was never counted
    s, u = (np.asarray(layer)[np.ravel(known)].sum(0) for layer in (s, u))
    overall = (s.sum() + 0.5) / ((s + u).sum() + 1)
    logit = np.log((s + overall) / (u + 1 - overall))
    bias = model.module.head.output.bias.detach().numpy()
    np.testing.assert_allclose(bias, logit, rtol=1e-5)
    for name in ("features.own_mean", "features.own_std", "gene_weight"):
        ours, theirs = (m.module.head.get_buffer(name) for m in (model, other))
        np.testing.assert_allclose(ours, theirs, atol=0.05)  # 10 of 1,200 cells apart


def test_all_training_cells_come_and_are_counted(path):
    module, seen = datamodule(path), Seen()
    model = sv.SplicedVAE(registry=module.registry)
    model.train(2, datamodule=module, callbacks=[seen], **QUIET)
    cells = cells_of(module)
    known = np.hstack([cells.layers["spliced"], cells.layers["unspliced"]])
    known = sorted(cell.tobytes() for cell in known)
    assert sorted(seen.epoch(0)) == sorted(seen.epoch(1)) == known
    assert seen.epoch(0) != seen.epoch(1)
    assert seen.n_obs == module.n_train == 1200  # divides the penalty on the head's weights
    for name in ("elbo_train", "elbo_validation", "ratio_nll_train", "ratio_nll_validation"):
        assert len(model.history[name]) == 2


def test_it_learns_what_a_model_of_the_same_cells_in_memory_learns(path):
    module = datamodule(path)
    torch.manual_seed(0)
    model = sv.SplicedVAE(registry=module.registry)
    model.train(10, datamodule=module, **QUIET)
    cells = sv.data.simulate(n_obs=1400, n_vars=40, seed=0)
    sv.SplicedVAE.setup_anndata(cells)
    torch.manual_seed(0)
    other = sv.SplicedVAE(cells)
    other.train(10, split=(range(1200), range(1200, 1400)), batch_size=60, **QUIET)
    for name in ("elbo_train", "elbo_validation", "ratio_nll_validation"):
        ours, theirs = (m.history[name].to_numpy(dtype=float)[-1] for m in (model, other))
        np.testing.assert_allclose(ours, theirs, rtol=0.03, err_msg=name)


def test_all_cells_of_a_stream_teach_the_head(path):
    """As many as in memory, and the ratios are those of a model that has them there."""
    module = datamodule(path)
    torch.manual_seed(0)
    model = sv.SplicedVAE(registry=module.registry)
    model.train(30, datamodule=module, **QUIET)
    cells = cells_of(module)
    sv.SplicedVAE.setup_anndata(cells)
    torch.manual_seed(0)
    other = sv.SplicedVAE(cells)
    other.train(30, split=(range(1190), range(1190, 1200)), batch_size=60, **QUIET)
    streamed = model.get_splicing_ratio(dataloader=module.inference_dataloader("train"))
    in_memory = other.get_splicing_ratio(return_numpy=True)
    mean = other.module.head.output.gene_logit.sigmoid().numpy()
    moved = np.abs(in_memory - mean).mean()
    assert moved > 0.01 and np.abs(streamed - in_memory).mean() < 0.5 * moved


def test_save_and_load(path, tmp_path):
    module = datamodule(path, batch_key="dataset")
    model = sv.SplicedVAE(registry=module.registry)
    model.train(1, datamodule=module, **QUIET)
    model.save(tmp_path / "model")
    loaded = sv.SplicedVAE.load(tmp_path / "model", adata=False)
    ratio, again = (
        m.get_splicing_ratio(dataloader=module.inference_dataloader("val")) for m in (model, loaded)
    )
    np.testing.assert_array_equal(ratio, again)
    assert ratio.shape == (200, 40)
    assert list(loaded.genes) == list(module.store.genes)
    cells = cells_of(module, "val")
    cells.obs["dataset"] = "set 3"
    with_cells = sv.SplicedVAE.load(tmp_path / "model", cells)
    np.testing.assert_allclose(with_cells.get_splicing_ratio(return_numpy=True), ratio, rtol=1e-5)


def test_from_metadata_to_a_model_on_the_command_line(tmp_path, capsys):
    table = corpus(tmp_path / "release", n_cells=4000, n_genes=60, n_tissues=2, flawed=False)
    human = table[table["organism"] == "Homo sapiens"]
    plan, store, out = (str(tmp_path / name) for name in ("plan.parquet", "store", "model"))
    main(["plan", str(tmp_path / "release"), plan, "--cells", "600", "--min-cells", "100"])
    shown = capsys.readouterr().out
    assert all(tissue in shown for tissue in human["tissue"].unique())
    assert pd.read_parquet(plan)["n_take"].sum() == 600
    one_to_one(orthologues(60)).to_csv(tmp_path / "genes.csv")
    main(["build", plan, store, str(tmp_path / "genes.csv")])
    main(["verify", store])
    assert "is whole" in capsys.readouterr().out
    main(["train", store, out, "--epochs", "1", "--accelerator", "cpu", "--batch-size", "50"])
    model = sv.SplicedVAE.load(f"{out}/model", adata=False)
    assert list(model.genes) == list(Store(store).genes)
    with pytest.raises(SystemExit, match=r"FileNotFoundError: .* is not a store"):
        main(["verify", out])
    with pytest.raises(SystemExit, match="ValueError"):
        main(["build", plan, store, str(tmp_path / "genes.csv"), "--shard", "2/2"])


def test_cells_or_a_datamodule(path):
    module = datamodule(path)
    with pytest.raises(ValueError, match="if, and only if, the model was made without cells"):
        sv.SplicedVAE(registry=module.registry).train(1)
    cells = cells_of(module)
    sv.SplicedVAE.setup_anndata(cells)
    with pytest.raises(ValueError, match="if, and only if, the model was made without cells"):
        sv.SplicedVAE(cells).train(1, datamodule=module)


@pytest.mark.parametrize(("stop", "saved"), [(25, 21), (30, 30), (40, 30)])
def test_a_stopped_training_goes_on_with_the_cells_that_were_left(path, tmp_path, stop, saved):
    """An epoch has 20 steps, a checkpoint is due every 10; an epoch's last waits for the next."""
    file = tmp_path / "last.ckpt"

    def train(seen, resume):
        torch.manual_seed(0)
        module = datamodule(path)
        model = sv.SplicedVAE(registry=module.registry)
        callbacks = [MidEpochCheckpoint(file, 10), seen]
        model.train(3, datamodule=module, callbacks=callbacks, ckpt_path=resume, **QUIET)
        return model

    whole, first, second = Seen(), Seen(stop), Seen()
    history = train(whole, None).history
    file.unlink()
    with pytest.raises(OSError, match="power is cut"):
        train(first, None)
    assert torch.load(file, weights_only=True)["global_step"] == saved
    model = train(second, file)
    assert model.trainer.global_step == 60
    expected = [cells for _, cells in whole.cells]
    assert [cells for _, cells in first.cells[:saved] + second.cells] == expected
    assert model.history.keys() == history.keys()
    for name, values in model.history.items():
        assert list(values.index) == list(history[name].index) == [0, 1, 2]
        assert values.index.name == history[name].index.name == "epoch"
        ours, whole = (frame.to_numpy(dtype=float) for frame in (values, history[name]))
        np.testing.assert_array_equal(ours[: saved // 20], whole[: saved // 20])  # not learnt anew
        assert np.isfinite(ours).all()
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt"]


SCRIPT = """
import sys
import numpy as np, pandas as pd, scvi
from lightning.pytorch.callbacks import Callback
import splicedvae as sv

path, out, devices = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Seen(Callback):
    def __init__(self):
        self.cells = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        cells = np.hstack([batch["spliced"], batch["unspliced"]])
        step = np.full((len(cells), 1), trainer.global_step)
        self.cells.append(np.hstack([step, cells]))

scvi.settings.seed = 0
share = {"batch_size": 120 // devices, "block": 20, "preload": 6 // devices}
module = sv.atlas.AtlasDataModule(sv.atlas.Store(path), engine="anndata", **share)
model, seen = sv.SplicedVAE(registry=module.registry), Seen()
strategy = "ddp_find_unused_parameters_true" if devices > 1 else "auto"
run = {"accelerator": "cpu", "devices": devices, "strategy": strategy, "log_save_dir": out}
model.train(8, datamodule=module, callbacks=[seen], enable_progress_bar=False, **run)
np.save(f"{out}/{devices}-{model.trainer.global_rank}.npy", np.concatenate(seen.cells))
if model.trainer.is_global_zero:
    pd.concat(model.history.values(), axis=1).to_csv(f"{out}/{devices}.csv")
    model.save(f"{out}/{devices}")
"""


def run(*call) -> None:
    call = [sys.executable, *map(str, call)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(path, tmp_path):
    """What is read together is one minibatch here, 2 × 60 or 120 cells: the same ones."""
    (tmp_path / "script.py").write_text(SCRIPT)
    for devices in (1, 2):
        run(tmp_path / "script.py", path, tmp_path, devices)
    (one,), two = ([np.load(f) for f in sorted(tmp_path.glob(f"{n}-*.npy"))] for n in (1, 2))
    assert [len(cells) for cells in two] == [8 * 600, 8 * 600]
    both = np.concatenate(two)  # step, and counts that tell a cell from all others
    one, both = (cells[np.lexsort(cells.T[::-1])] for cells in (one, both))
    np.testing.assert_array_equal(one, both)
    one, two = (pd.read_csv(tmp_path / f"{n}.csv") for n in (1, 2))
    for name in ("elbo_train", "elbo_validation", "ratio_nll_train", "ratio_nll_validation"):
        np.testing.assert_allclose(two[name], one[name], rtol=0.01, err_msg=name)
        assert one[name].iloc[-1] < one[name].iloc[0]
    models = [sv.SplicedVAE.load(tmp_path / n, adata=False) for n in "12"]
    loader = datamodule(path).inference_dataloader("val")
    one, two = (model.get_splicing_ratio(dataloader=loader) for model in models)
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.98


@pytest.mark.slow
def test_training_goes_on_after_a_process_was_killed(path, tmp_path):
    call = ["-m", "splicedvae.atlas", "train", path, tmp_path, "--accelerator", "cpu"]
    call += ["--engine", "anndata", "--devices", 2, "--batch-size", 10, "--epochs", 3]
    call += ["--checkpoint-every", 7, "--latent", 10]
    last = tmp_path / "last.ckpt"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, *map(str, call)], stdout=log, stderr=log)
        try:
            end = time.monotonic() + 120
            while not last.exists() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            ranks = psutil.Process(process.pid).children()
            (other,) = [p for p in ranks if "splicedvae.atlas" in " ".join(p.cmdline())]
            os.kill(other.pid, signal.SIGKILL)
            assert process.wait(60) != 0
        finally:
            process.kill()
    stopped = torch.load(last, weights_only=True)["global_step"]
    assert 0 < stopped < 180
    assert stopped % 7 == 0
    assert not (tmp_path / "model").exists()
    run(*call)
    ended = torch.load(last, weights_only=True)
    assert ended["global_step"] == 175  # of 3 × 60 steps, the last that 7 divides
    loader = ended["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    assert (loader["epoch"], loader["done"], loader["world"]) == (2, 55, 2)
    model = sv.SplicedVAE.load(tmp_path / "model", adata=False)
    assert torch.isfinite(model.module.head.output.mean).all()
    history = pd.read_csv(tmp_path / "history.csv", index_col="epoch")
    assert list(history.index) == [0, 1, 2]
    assert history.notna().all(axis=None)


def test_ctrl_c_says_that_the_same_command_goes_on(path, tmp_path):
    call = [sys.executable, "-m", "splicedvae.atlas", "train", str(path), str(tmp_path)]
    call += ["--accelerator", "cpu", "--batch-size", "60", "--epochs", "100000"]
    call += ["--checkpoint-every", "7"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(call, **streams)
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "last.ckpt").exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert errors.endswith("Interrupted. What is done is kept; the same command goes on.\n")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] % 7 == 0
