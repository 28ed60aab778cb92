"""Metrics of imbalanced labels: by scikit-learn, by slow definitions, and by simulation."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

from linprobe.evaluation.metrics import METRICS, constant_metrics, evaluate, metric_deviations
from linprobe.evaluation.ranking import auroc_components, resampled_precision
from linprobe.evaluation.resampling import Resamples, of_components, standard_error
from linprobe.evaluation.scored import Scored
from linprobe.evaluation.statistics import metric_interval, metric_steps

NAMES = [metric.name for metric in METRICS]


def made_up(num_classes, n=300, seed=0, rounded=False, signal=1.0):
    """Logits with unequal classes, the last of them absent from the test set if there are many."""
    draws = np.random.default_rng(seed)
    present = num_classes - (num_classes > 3)
    labels = draws.choice(present, n, p=np.arange(1, present + 1) / sum(range(1, present + 1)))
    logits = draws.standard_normal((num_classes, n))
    logits[labels, np.arange(n)] += signal
    logits = logits.round() if rounded else logits
    return torch.from_numpy(logits), torch.from_numpy(labels)


def evaluated(logits, labels, seed=0):
    return evaluate(logits, labels, labels, Resamples(labels, seed))


def steps(found, metric, smallest):
    values = {str(i): evaluation.metrics[metric] for i, (evaluation, _) in enumerate(found)}
    deviations = {str(i): deviations[metric] for i, (_, deviations) in enumerate(found)}
    return metric_steps(metric, values, deviations, smallest)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_values_are_those_of_scikit_learn(num_classes, rounded):
    logits, labels = made_up(num_classes, rounded=rounded)
    found = evaluated(logits, labels)[0].metrics
    y, predicted = labels.numpy(), logits.argmax(0).numpy()
    scores = logits.log_softmax(0).numpy()
    ranked = [1] if num_classes == 2 else np.unique(y)
    one, rest = zip(*((y == k, scores[k]) for k in ranked), strict=True)
    if num_classes == 2:
        rest = [(logits[1] - logits[0]).numpy()]
    recall = recall_score(y, predicted, labels=np.unique(y), average="macro")
    expected = {
        "mean_class_accuracy": recall,
        "balanced_error_rate": 1 - recall,
        "auroc": np.mean(list(map(roc_auc_score, one, rest))),
        "average_precision": np.mean(list(map(average_precision_score, one, rest))),
        "matthews": matthews_corrcoef(y, predicted),
    }
    assert found == pytest.approx(expected)


def test_delong_variance_by_its_definition():
    logits, labels = made_up(2, n=60, rounded=True)
    scores, positive = (logits[1] - logits[0]).numpy(), labels.numpy() == 1
    x, y = scores[positive], scores[~positive]
    psi = np.array([[(a > b) + (a == b) / 2 for b in y] for a in x])  # Hanley & McNeil's kernel
    m, n = psi.shape
    v10, v01 = psi.mean(1), psi.mean(0)
    variance = v10.var(ddof=1) / m + v01.var(ddof=1) / n
    components = auroc_components(scores, positive)
    assert components[positive] * m == pytest.approx(v10)
    assert components[~positive] * n == pytest.approx(v01)
    error = standard_error(of_components(components, labels.numpy()))
    assert error**2 == pytest.approx(variance)
    evaluation, deviations = evaluated(logits, labels)
    assert standard_error(deviations["auroc"]) == pytest.approx(error)
    assert evaluation.metrics["auroc"] == pytest.approx(psi.mean())


def test_delongs_paired_test_by_its_definition():
    one, labels = made_up(2, n=80, seed=1)
    two = one + torch.from_numpy(np.random.default_rng(2).standard_normal(one.shape))
    positive = labels.numpy() == 1
    kernels = []
    for logits in (one, two):
        s = (logits[1] - logits[0]).numpy()
        kernels.append(s[positive][:, None] > s[~positive][None])
    areas = [kernel.mean() for kernel in kernels]
    m, n = kernels[0].shape
    covariance = np.cov([k.mean(1) for k in kernels]) / m + np.cov([k.mean(0) for k in kernels]) / n
    contrast = np.array([-1, 1])
    z = (areas[1] - areas[0]) / math.sqrt(contrast @ covariance @ contrast)
    found = [evaluated(logits, labels) for logits in (one, two)]
    values = {str(i): e.metrics["auroc"] for i, (e, _) in enumerate(found)}
    (step,) = metric_steps(
        "auroc", values, {str(i): d["auroc"] for i, (_, d) in enumerate(found)}, 9
    )
    assert step.change == pytest.approx(areas[1] - areas[0])
    assert step.p_value == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("rounded", [False, True])
def test_draws_are_metrics_of_resampled_rows(num_classes, rounded):
    logits, labels = made_up(num_classes, n=120, rounded=rounded)
    resamples = Resamples(labels, 0, num_draws=3)
    weights = resamples.weights
    for k in labels.unique().tolist():  # each draw keeps the size of each class
        assert (weights[labels == k].sum(0) == int((labels == k).sum())).all()
    deviations = metric_deviations(Scored(logits, labels, resamples))
    again = []
    for draw in weights.T:
        rows = torch.repeat_interleave(torch.arange(len(labels)), torch.from_numpy(draw).long())
        scored = Scored(logits[:, rows], labels[rows], resamples)
        again.append({metric.name: metric.compute(scored) for metric in METRICS})
    for name in set(NAMES) - {"auroc", "mean_class_accuracy"}:
        values = np.array([found[name] for found in again])
        assert deviations[name] == pytest.approx((values - values.mean()) / math.sqrt(2), abs=1e-12)


def test_macro_auroc_varies_as_the_bootstrap_says():
    logits, labels = made_up(4, n=150)
    resamples = Resamples(labels, 0)
    scored = Scored(logits, labels, resamples)
    values = np.zeros(resamples.num_draws)
    weights = resamples.weights.astype(np.float64)
    for own, ranks in scored.one_against_rest:
        wins = (np.sign(ranks[own][:, None] - ranks[~own][None]) + 1) / 2
        pairs = own.sum() * (~own).sum()
        values += ((weights[own].T @ wins) * weights[~own].T).sum(1) / pairs / 3
    error = standard_error(metric_deviations(scored)["auroc"])
    assert error == pytest.approx(np.std(values), rel=0.15)


def test_same_seed_same_draws():
    labels = torch.arange(50) % 2
    one, same, other = (Resamples(labels, seed).weights for seed in (3, 3, 4))
    assert (one == same).all() and not (one == other).all()


@pytest.mark.parametrize(("name", "least"), [("auroc", 0.9), ("average_precision", 0.88)])
def test_intervals_cover_what_they_should(name, least):
    # 20 positive samples of 200, scores one deviation apart: AUROC is Phi(1 / sqrt 2) = .7602.
    labels = (torch.arange(200) < 20).long()
    resamples, metric = Resamples(labels, 0), METRICS[NAMES.index(name)]
    draws = np.random.default_rng(5)
    values, intervals = [], []
    for _ in range(120):
        score = torch.from_numpy(draws.standard_normal(200) + labels.numpy())
        scored = Scored(torch.stack([torch.zeros_like(score), score]), labels, resamples)
        values.append(metric.compute(scored))
        intervals.append(metric_interval(values[-1], metric.deviations(scored)))
    truth = 0.5 * (1 + math.erf(0.5)) if name == "auroc" else np.mean(values)
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert least <= covered <= 0.99


def test_one_percent_of_positives_good_and_random_layers():
    labels = torch.arange(3000) < 30
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(3000, generator=draws).double()
    never = torch.full((3000,), 9.0).double()  # both always answer class 0
    found = {}
    for name, score in (("good", noise + 1.5 * labels), ("random", noise.flip(0))):
        found[name] = evaluated(torch.stack([never, score]), labels.long())
        assert found[name][0].per_class_error_rate == (0.0, 1.0)  # the error is .0100 for both
        assert found[name][0].answers_only == 0
        assert found[name][0].metrics["balanced_error_rate"] == 0.5
    good, random = (found[name][0] for name in ("good", "random"))
    assert good.metrics["auroc"] == pytest.approx(0.85, abs=0.05)
    assert random.metrics["auroc"] == pytest.approx(0.5, abs=0.1)
    assert good.metrics["average_precision"] > 5 * random.metrics["average_precision"]
    assert good.metric_intervals["auroc"][0] > random.metric_intervals["auroc"][1]
    for metric in ("auroc", "average_precision"):
        (step,) = steps(list(found.values()), metric, 30)
        assert step.verdict == "falls"
    same = metric_steps(
        "balanced_error_rate", {"a": 0.5, "b": 0.5}, dict.fromkeys("ab", np.zeros(3)), 30
    )
    assert same[0].p_value == 1.0 and same[0].verdict == "can't tell"


def test_classes_absent_from_the_test_set_do_not_count():
    logits, labels = made_up(5, n=200)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    counted = evaluated(logits, labels)[0].metrics
    # The absent class may take predictions, but has no accuracy or ranking of its own.
    recalls = [float((logits.argmax(0)[labels == k] == k).double().mean()) for k in range(4)]
    assert counted["mean_class_accuracy"] == pytest.approx(np.mean(recalls))
    assert counted["balanced_error_rate"] == pytest.approx(1 - np.mean(recalls))


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("only", [0, 1])
def test_one_class_in_the_test_set_has_no_ranking(num_classes, only):
    logits = torch.randn(num_classes, 20, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.full((20,), only)
    evaluation, deviations = evaluate(
        logits, labels, torch.arange(20) % num_classes, Resamples(labels, 0)
    )
    assert math.isnan(evaluation.metrics["auroc"])
    assert math.isnan(evaluation.metrics["average_precision"])
    wrong = float((logits.argmax(0) != only).double().mean())
    assert evaluation.metrics["balanced_error_rate"] == pytest.approx(wrong)
    assert deviations == {} == evaluation.metric_intervals


def test_classes_without_training_samples_and_single_samples():
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).double()
    logits[2] = -torch.inf
    evaluation, deviations = evaluated(logits, labels)
    assert all(math.isfinite(value) for value in evaluation.metrics.values())
    assert evaluation.metric_intervals == {} and deviations == {}  # class 2 has one sample


def test_perfect_and_constant_probes_have_no_intervals_but_a_test():
    labels = torch.arange(40) % 4 // 3
    perfect = 9.0 * torch.eye(2).double()[:, labels]
    constant = torch.zeros(2, 40).double()
    found = [evaluated(logits, labels) for logits in (constant, perfect)]
    assert [e.metrics["auroc"] for e, _ in found] == [0.5, 1.0]
    for evaluation, _ in found:
        assert "auroc" not in evaluation.metric_intervals
    for metric in NAMES:
        values = {str(i): e.metrics[metric] for i, (e, _) in enumerate(found)}
        (step,) = metric_steps(
            metric, values, {str(i): d[metric] for i, (_, d) in enumerate(found)}, 10
        )
        assert step.p_value == 2.0**-9
        assert step.verdict == ("falls" if metric == "balanced_error_rate" else "rises")


def test_interval_is_symmetric_in_the_logit_and_stays_inside():
    deviations = np.array([0.03, 0.04])  # standard error .05
    low, high = metric_interval(0.9, deviations)
    logit = [math.log(p / (1 - p)) for p in (low, 0.9, high)]
    assert logit[2] - logit[1] == pytest.approx(logit[1] - logit[0])
    assert logit[2] - logit[1] == pytest.approx(1.959964 * 0.05 / 0.09)
    low, high = metric_interval(-0.9, 4 * deviations, least=-1.0)
    assert -1 < low < -0.9 < high < 1


def test_steps_are_one_family():
    # z of 2.5 each: p = .0124, of two tests .0248, of five .062.
    deviations = {str(i): np.array([0.02 * (i % 2), 0.0]) for i in range(6)}
    values = {str(i): 0.5 + 0.05 * (i % 2) for i in range(6)}
    few = metric_steps("auroc", dict(list(values.items())[:3]), deviations, 9)
    assert [step.verdict for step in few] == ["rises", "falls"]
    assert few[0].p_holm == pytest.approx(2 * few[0].p_value)
    many = metric_steps("auroc", values, deviations, 9)
    assert {step.verdict for step in many} == {"can't tell"}


@pytest.mark.parametrize("name", ["auroc", "average_precision", "balanced_error_rate"])
def test_paired_steps_of_equal_layers_err_at_their_level(name):
    draws = np.random.default_rng(1)
    labels = torch.arange(200) % 5 // 4
    resamples, metric = Resamples(labels, 0), METRICS[NAMES.index(name)]
    rejected = 0
    for _ in range(100):
        base = draws.standard_normal(200) + 1.5 * labels.numpy()
        values, deviations = {}, {}
        for layer in "ab":
            score = torch.from_numpy(base + 0.7 * draws.standard_normal(200) - 0.75)
            scored = Scored(torch.stack([torch.zeros_like(score), score]), labels, resamples)
            values[layer], deviations[layer] = metric.compute(scored), metric.deviations(scored)
        rejected += metric_steps(name, values, deviations, 40)[0].p_value <= 0.05
    assert 1 <= rejected <= 12


def test_baseline_ranks_all_alike():
    train, test = torch.tensor([0] * 9 + [1]), torch.tensor([0] * 15 + [1] * 5)
    found = constant_metrics(train, test, 2)
    expected = {"balanced_error_rate": 0.5, "auroc": 0.5, "average_precision": 0.25}
    assert found == pytest.approx(expected | {"mean_class_accuracy": 0.5, "matthews": 0.0})


def test_precision_counts_ties_together():
    labels = np.array([1, 0, 1, 0, 0, 1, 0, 0], dtype=bool)
    for scores in product([0.0, 1.0], repeat=3):
        s = np.array([*scores, *scores, 2.0, 0.5])
        resamples = Resamples(torch.from_numpy(labels.astype(int)), 1, num_draws=5)
        found = resampled_precision(s, labels, resamples)
        expected = [
            average_precision_score(labels, s, sample_weight=w) for w in resamples.weights.T
        ]
        assert found == pytest.approx(expected)
