"""Verdicts follow from scores by rules; these tests give the scores."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

import splicedvae as sv
from splicedvae_book import fits, headline, profiles, scorecard
from splicedvae_book.stages.fields import IF_TRUE, OTHER_HALF


def test_bound_of_the_papers_pair():
    # RMSE² ≥ SD² (1 − r²) for the best linear use of any prediction
    rng = np.random.default_rng(0)
    y = rng.normal(0, scorecard.SD_BOUND, 200_000)
    noise = rng.normal(0, 1, len(y)) * scorecard.SD_BOUND * np.sqrt(1 / 0.67**2 - 1)
    x = 0.67**2 * (y + noise)  # the regression of y on what is seen of it
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(scorecard.PAPER_R, abs=0.005)
    assert np.sqrt(((x - y) ** 2).mean()) == pytest.approx(scorecard.PAPER_RMSE, abs=0.001)


@pytest.mark.parametrize(
    ("ours", "mean", "verdict"),
    [
        ((0.2, 0.9), (0.2, 0.9), scorecard.UNDEFINED),
        ((0.05, 0.98), (0.05, 0.98), scorecard.UNDEFINED),  # a target of another kind
        ((0.12, 0.7), (0.12, 0.5), "holds only under: a"),
        ((0.12, 0.7), (0.12, 0.7), "holds only under: a (and there for the gene mean too)"),
    ],
)
def test_verdict_on_the_pair(ours, mean, verdict):
    line = dict(zip(("rmse", "r", "rmse_gene_mean", "r_gene_mean"), ours + mean, strict=True))
    assert scorecard.reproduced(pd.DataFrame({"a": line}).T) == verdict


def tables(gain: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of three seeds in which SplicedVAE is better than all others by `gain`."""
    noise = (0.001, -0.001, 0.002)
    fitted, fields = {}, {}
    variants = ("detached head", "latent alone", "detached, latent alone")
    variants = [f"SplicedVAE, {variant}" for variant in variants]
    others = ("scVI", "RidgeBinomial", "HierarchicalBinomial", "GeneMean")
    for name in ("SplicedVAE", *variants, *others):
        for seed in range(3):
            x = 0.5 + (gain + noise[seed] if name == "SplicedVAE" else 0)
            scores = ("rmse_observed", "r_observed", "d2", "elbo", "silhouette", "knn_purity")
            fitted[name, seed] = dict.fromkeys((*scores, "leiden_ari"), x)
    for seed in range(3):
        fitted["ceiling, bootstrap", seed] = {"rmse_observed": 0.1, "r_observed": 0.9}
    others = ("GeneMean", "NearestNeighbours", "random vectors", "permuted cells")
    others += ("HierarchicalBinomial", "velocity transfer", "half versus half", "cluster majority")
    velo = ("Velo-Predictor, honest, spliced counts", "Velo-Predictor, as published")
    ours = [f"SplicedVAE{ending}" for ending in ("", IF_TRUE, OTHER_HALF)]
    for name in (*ours, *others, *velo):
        for seed in range(3):
            x = 0.5 + (gain + noise[seed] if name == "SplicedVAE" else 0)
            x += 0.4 * (name == velo[1]) + 0.123 * name.endswith(IF_TRUE)
            keys = ("cosine", "accuracy", "accuracy_unrotated")
            fields[name, seed] = dict.fromkeys(keys, x) | {"angular_error": 90 - 100 * x}
    return tuple(pd.DataFrame.from_dict(t, orient="index") for t in (fitted, fields))


def test_verdicts_follow_the_scores():
    frame = pd.DataFrame(
        {"a": {"rmse": 0.2, "r": 0.9, "rmse_gene_mean": 0.2, "r_gene_mean": 0.9}}
    ).T

    def verdicts(gain: float) -> dict[str, str]:
        card = scorecard.claims(*tables(gain), frame, kept=1000, n_vars=2000)
        return {line["claim"]: line["verdict"] for line in card}

    better, worse = verdicts(0.05), verdicts(-0.05)
    for claim in (
        "better ELBO than scVI",
        "clearer clusters than scVI",
        "velocity cosine above random",
        "streamlines preserved",
    ):
        assert better[claim] == scorecard.HOLDS, claim
        assert worse[claim] == scorecard.FAILS, claim
    assert better["four directions: 50 % right"] == scorecard.SURPASSED
    assert worse["four directions: 50 % right"] == scorecard.FAILS
    assert verdicts(0.0)["better ELBO than scVI"] == scorecard.FAILS  # no difference is no gain
    assert better["Velo-Predictor: 88 % right"] == "holds only under resampling before the split"
    shared = "one latent helps both tasks"
    assert (better[shared], worse[shared]) == ("holds only for: the default", scorecard.FAILS)
    fitted, fields = tables(0.05)
    card = scorecard.claims(fitted, fields, frame, 1000, 2000)
    (line,) = [c for c in card if c["claim"] == "velocity cosine above random"]
    assert line["ceiling"].startswith("were its ratios true 0.623; half versus half 0.500")
    ours = line["ours"]
    mean, low, high = sv.metrics.paired_interval(np.array([0.551, 0.549, 0.552]), np.zeros(3))
    assert (ours["mean"], ours["low"], ours["high"]) == pytest.approx((mean, low, high))
    assert ours["n_seeds"] == 3
    # heads that read the latent alone are fits of their own, and so is their ELBO
    fitted.loc[["SplicedVAE, latent alone"], "d2"] += [0.051, 0.049, 0.052]

    def verdict() -> str:
        card = scorecard.claims(fitted, fields, frame, 1000, 2000)
        return next(c["verdict"] for c in card if c["claim"] == shared)

    assert verdict() == scorecard.HOLDS
    fitted.loc[["SplicedVAE"], "elbo"] -= 1  # then the head gains at the expense of the latent
    assert verdict() == "holds only for: heads that read the latent alone"
    fitted.loc[["SplicedVAE, latent alone"], "elbo"] -= 1
    assert verdict() == scorecard.FAILS


def test_targets_are_what_their_names_say(tmp_path, monkeypatch):
    monkeypatch.setitem(profiles.PROFILES, "tiny", profiles.Profile(None, 60, 2, (0,)))
    cells = sv.data.simulate(n_obs=300, n_vars=80, seed=2)
    fits.stage.run(cells, "tiny", tmp_path, names=[fits.BASELINES, "SplicedVAE"])
    frame = scorecard.targets(cells, "tiny", 0, tmp_path)
    whole, (train, val, test) = profiles.prepared(cells, "tiny", 0)
    counts = [whole.layers[name][test] for name in ("spliced", "unspliced")]
    ratio = fits.ratios(tmp_path, cells, "tiny", 0, "SplicedVAE")
    mean = sv.baselines.GeneMean().fit(whole[train], whole[val]).mean_
    report = sv.metrics.ratio_report(*counts, ratio, mean)
    for target, name in (
        ("observed, n ≥ 1", "observed"),
        ("observed, n ≥ 5", "min_counts_5"),
        ("zero where n = 0", "zero_filled"),
    ):
        for score in ("rmse", "r"):
            for ending in ("", "_gene_mean"):
                expected = report[f"{score}_{name}{ending}"]
                assert frame.loc[target, score + ending] == pytest.approx(expected, abs=1e-5)
    assert (frame.loc["observed, less the gene mean", "r_gene_mean"]) == 0
    assert frame["possible"].eq(frame["sd"] <= scorecard.SD_BOUND).all()


def test_headline_shows_each_score_in_its_column_and_counts_the_verdicts():
    means = {"GeneMean": 0.0, "RidgeBinomial": 0.01, "HierarchicalBinomial": 0.02}
    means |= {"NearestNeighbours": 0.005, "ScviLatentRidge": 0.015, "SplicedVAE": 0.03}
    means |= {"ceiling, bootstrap": 0.1}
    index = pd.MultiIndex.from_product([means, range(3)])
    centre = np.repeat(list(means.values()), 3) + np.tile([-0.001, 0.0, 0.001], len(means))
    fitted = pd.DataFrame({"d2": centre, "within_gene_r": 2 * centre}, index=index)
    cosines = {"GeneMean": 0.1, "NearestNeighbours": 0.2, "HierarchicalBinomial": 0.15}
    cosines |= {"velocity transfer": 0.18, "SplicedVAE": 0.3}
    cosines = {f"{name}, other half": value for name, value in cosines.items()}
    cosines["half versus half"] = 0.4
    fields = pd.DataFrame(
        {"cosine": np.repeat(list(cosines.values()), 3)},
        index=pd.MultiIndex.from_product([cosines, range(3)]),
    )
    verdicts = [
        scorecard.HOLDS,
        scorecard.SURPASSED,
        scorecard.FAILS,
        scorecard.UNDEFINED,
        "holds only against: random vectors",
        "higher than the paper's, but above no more than: the gene mean",
    ]
    facts = {"profile": "standard", "simulated": True, "data": "simulated pancreas"}
    text = headline.headline(fitted, fields, verdicts, facts)
    assert "6 figures and statements, 2 hold here, 2 in part, 1 not, and 1 cannot" in text
    assert "**simulated cells**" in text
    (d2,) = [line for line in text.splitlines() if "D²" in line]
    half = 0.001 * t.ppf(0.975, 2) / np.sqrt(3)
    ours = f"**0.030 [{0.03 - half:.3f}, {0.03 + half:.3f}]**"
    simple = "0.020 (hierarchical regression)"  # the best of its kind
    assert [c.strip() for c in d2.split("|")[2:-1]] == ["0.000", simple, ours, "0.100 (ceiling)"]
    assert "0.400" in text and "0.100 | 0.200 (mean of neighbours) | **0.300" in text
    smoke = headline.headline(fitted, fields, verdicts, facts | {"profile": "smoke"})
    assert "Not measured" in smoke and "0.0" not in smoke
