"""The scikit-learn estimator: scikit-learn's own checks, and agreement with LogisticRegression."""

import importlib
import sys
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from linprobe.integrations.sklearn import CertifiedLogisticRegression


# The checks compare to about 1e-7; a gap bounds the weights by its root alone.
@parametrize_with_checks([CertifiedLogisticRegression(tol=1e-16)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def digits(num_classes):
    features, labels = load_digits(return_X_y=True)
    names = np.array(["zero", "one", "two", "three"])[:num_classes]
    used = labels < num_classes
    return features[used], names[labels[used]]


def reference(model, features, labels, weight):
    """scikit-learn's optimum at the fitted C."""
    library = LogisticRegression(
        C=model.C_,
        class_weight=model.class_weight,
        solver="newton-cholesky",
        tol=1e-12,
        max_iter=1000,
    )
    return library.fit(features, labels, sample_weight=weight)


def centred(intercept):
    """scikit-learn leaves the gauge of a softmax intercept open."""
    return intercept - intercept.mean() if len(intercept) > 1 else intercept


@pytest.mark.parametrize(
    ("num_classes", "weighted", "class_weight"),
    [
        *product((2, 3), (False, True), (None, "balanced")),
        (2, True, {"zero": 3.0, "one": 0.5}),
        (3, False, {"zero": 3.0, "one": 0.5, "two": 1.0}),
    ],
)
def test_agrees_with_logistic_regression(num_classes, weighted, class_weight):
    features, labels = digits(num_classes)
    weight = np.random.default_rng(0).uniform(0, 2, len(labels)) if weighted else None
    model = CertifiedLogisticRegression(l2=0.01, tol=1e-15, class_weight=class_weight)
    model.fit(features, labels, sample_weight=weight)
    library = reference(model, features, labels, weight)
    if not weighted and not isinstance(class_weight, dict):
        assert model.C_ == pytest.approx(1 / (len(labels) * 0.01))
    assert model.coef_.shape == library.coef_.shape
    np.testing.assert_array_equal(model.classes_, library.classes_)
    np.testing.assert_allclose(model.coef_, library.coef_, atol=3e-7)
    np.testing.assert_allclose(
        centred(model.intercept_), centred(library.intercept_), atol=3e-7 * len(labels)
    )
    # Probabilities see the intercept well; the penalty leaves it loose.
    np.testing.assert_allclose(
        model.predict_proba(features), library.predict_proba(features), atol=1e-6
    )
    np.testing.assert_array_equal(model.predict(features), library.predict(features))


def objective(model, features, labels, weight):
    """P of the module's text, from the fitted attributes alone."""
    log_proba = model.predict_log_proba(features)
    own = log_proba[np.arange(len(labels)), np.searchsorted(model.classes_, labels)]
    return -np.average(own, weights=weight) + model.l2 / 2 * np.square(model.coef_).sum()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_certificate_holds_for_the_objective_as_stated(num_classes):
    features, labels = digits(num_classes)
    weight = np.random.default_rng(1).integers(0, 3, len(labels))
    rough = CertifiedLogisticRegression(l2=1e-4, tol=1e-3)
    exact = CertifiedLogisticRegression(l2=1e-4, tol=1e-14)
    values = []
    for model in (rough, exact):
        model.fit(features, labels, sample_weight=weight)
        values.append(objective(model, features, labels, weight))
        assert model.objective_ == pytest.approx(values[-1], rel=1e-12)
        assert model.status_ == "converged"
        assert 0 <= model.duality_gap_ <= model.tol
    excess = values[0] - values[1]
    assert 1e-9 < excess <= rough.duality_gap_
    library = reference(exact, features, labels, weight)
    optimum = objective_of(library, exact, features, labels, weight)
    assert values[1] == pytest.approx(optimum, abs=1e-13)
    assert rough.num_passes_ < exact.num_passes_
    assert rough.n_iter_ < exact.n_iter_


def objective_of(library, model, features, labels, weight):
    library.l2 = model.l2
    return objective(library, features, labels, weight)


def test_weight_distance_bound_of_tol():
    features, labels = digits(3)
    rough = CertifiedLogisticRegression(l2=0.01, tol=1e-4).fit(features, labels)
    exact = CertifiedLogisticRegression(l2=0.01, tol=1e-15).fit(features, labels)
    assert 0 < np.linalg.norm(rough.coef_ - exact.coef_) <= (2 * 1e-4 / 0.01) ** 0.5


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_standardised_penalty_does_not_see_scale_and_offset(num_classes, scale):
    features, labels = digits(num_classes)
    model = CertifiedLogisticRegression(l2=1e-3, tol=1e-14, standardize=True)
    first = model.fit(features, labels).predict_log_proba(features)
    moved = scale * (features + 7)
    second = model.fit(moved, labels).predict_log_proba(moved)
    np.testing.assert_allclose(first, second, atol=1e-5)
    plain = CertifiedLogisticRegression(l2=1e-3, tol=1e-6).fit(moved, labels)
    assert np.abs(plain.predict_log_proba(moved) - second).max() > 1e-2


def test_standardised_penalty_is_that_of_features_standardised_by_hand():
    features, labels = digits(3)
    weight = np.random.default_rng(2).integers(0, 3, len(labels)).astype(float)
    by_hand = features - np.average(features, axis=0, weights=weight)
    by_hand /= np.average(np.square(by_hand).sum(1), weights=weight) ** 0.5
    model = CertifiedLogisticRegression(l2=1e-3, tol=1e-14, standardize=True)
    model.fit(features, labels, sample_weight=weight)
    library = reference(model, by_hand, labels, weight)
    np.testing.assert_allclose(
        model.decision_function(features) - model.decision_function(features).mean(1)[:, None],
        library.decision_function(by_hand) - library.decision_function(by_hand).mean(1)[:, None],
        atol=1e-5,
    )


@pytest.mark.parametrize("num_classes", [2, 3])
def test_each_column_may_be_divided_by_its_own_weighted_deviation(num_classes):
    features, labels = digits(num_classes)
    features = np.append(features * 10.0 ** np.arange(features.shape[1]), features[:, :1], axis=1)
    features[:, -1] = 5.0
    weight = np.random.default_rng(2).integers(0, 3, len(labels)).astype(float)
    by_hand = features - np.average(features, axis=0, weights=weight)
    deviation = np.average(np.square(by_hand), axis=0, weights=weight) ** 0.5
    varies = deviation > 1e-9
    by_hand = by_hand[:, varies] / deviation[varies] / varies.sum() ** 0.5
    model = CertifiedLogisticRegression(l2=1e-3, tol=1e-14, standardize="feature")
    model.fit(features, labels, sample_weight=weight)
    assert model.status_ == "converged"
    np.testing.assert_array_equal(model.coef_[:, ~varies], 0)
    library = reference(model, by_hand, labels, weight)
    ours, theirs = model.decision_function(features), library.decision_function(by_hand)
    if num_classes > 2:
        ours, theirs = ours - ours.mean(1)[:, None], theirs - theirs.mean(1)[:, None]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("size", "l2"), [(1e-200, 1e-3), (1e300, 1e-3), (1e-310, 1e-3)])
def test_sizes_that_float64_can_not_hold_are_refused_in_one_line(size, l2):
    features, labels = digits(2)
    with pytest.raises(ValueError, match="beyond what float64 holds; expected features nearer 1"):
        CertifiedLogisticRegression(l2=l2).fit(size * features, labels)


def test_features_of_any_other_size_have_finite_weights():
    features, labels = digits(2)
    for size in (1e-100, 1e100):
        model = CertifiedLogisticRegression(standardize=True).fit(size * features, labels)
        assert model.status_ == "converged" and np.isfinite(model.coef_).all()
        assert model.score(size * features, labels) > 0.98


def test_true_stands_for_the_scale_that_suits_the_columns():
    features, labels = digits(2)
    features = np.append(0.01 * features, 1e4 * features[:, 20:21], axis=1)
    given, fitted = (
        CertifiedLogisticRegression(standardize=kind).fit(features, labels).coef_
        for kind in (True, "feature")
    )
    np.testing.assert_array_equal(given, fitted)
    with pytest.raises(ValueError, match="standardize is 'rows'; expected False, True or one of"):
        CertifiedLogisticRegression(standardize="rows").fit(features, labels)


def test_float32_features_are_solved_as_exactly():
    features, labels = digits(3)
    features = features.astype(np.float32) / 3
    single = CertifiedLogisticRegression(l2=1e-4, tol=1e-16).fit(features, labels)
    double = CertifiedLogisticRegression(l2=1e-4, tol=1e-16).fit(features.astype(float), labels)
    assert single.status_ == "converged"
    assert single.coef_.dtype == np.float64
    np.testing.assert_allclose(single.coef_, double.coef_, atol=1e-6)


def test_probabilities_and_their_logarithms():
    features, labels = digits(2)
    model = CertifiedLogisticRegression(l2=1e-5).fit(features, labels)
    proba = model.predict_proba(features)
    np.testing.assert_allclose(proba.sum(1), 1)
    logits = model.decision_function(features)
    np.testing.assert_allclose(proba[:, 1], 1 / (1 + np.exp(-logits)))
    far = model.predict_log_proba(1e6 * features)
    assert np.isfinite(far).all()
    assert model.score(features, labels) == 1


def test_a_class_of_weight_zero_is_never_predicted():
    features, labels = digits(3)
    weight = (labels != "one").astype(float)
    model = CertifiedLogisticRegression().fit(features, labels, sample_weight=weight)
    assert model.classes_.tolist() == ["one", "two", "zero"]
    assert model.intercept_[0] == -np.inf
    assert "one" not in model.predict(features)
    np.testing.assert_array_equal(model.predict_proba(features)[:, 0], 0)
    without = CertifiedLogisticRegression().fit(features[weight > 0], labels[weight > 0])
    np.testing.assert_allclose(model.coef_[2] - model.coef_[1], without.coef_[0], atol=1e-4, rtol=0)
    balanced = CertifiedLogisticRegression(class_weight="balanced")
    balanced.fit(features, labels, sample_weight=weight)
    assert np.isfinite(balanced.coef_).all()


def test_constant_features_leave_the_class_shares():
    labels = np.array([0, 0, 0, 1])
    for standardize in (False, True):
        model = CertifiedLogisticRegression(standardize=standardize).fit(np.ones((4, 3)), labels)
        np.testing.assert_allclose(model.predict_proba(np.ones((1, 3))), [[0.75, 0.25]])
        np.testing.assert_array_equal(model.coef_, 0)


def test_random_state_changes_the_way_not_the_goal(monkeypatch):
    seeds = []
    import linprobe.integrations.sklearn as module

    class Recorded(module.NewtonOptions):
        def __init__(self, seed):
            seeds.append(seed)
            super().__init__(seed=seed)

    monkeypatch.setattr(module, "NewtonOptions", Recorded)
    features, labels = digits(2)
    for state in (0, 0, 1):
        CertifiedLogisticRegression(random_state=state).fit(features, labels)
    assert seeds[0] == seeds[1] != seeds[2]


def test_unsolved_problems_warn_and_say_so():
    features, labels = digits(3)
    model = CertifiedLogisticRegression(l2=1e-4, max_passes=2)
    with pytest.warns(ConvergenceWarning, match=r"max_passes_reached: the duality gap is .* tol"):
        model.fit(features, labels)
    assert model.status_ == "max_passes_reached"
    assert model.duality_gap_ > model.tol
    hopeless = CertifiedLogisticRegression(l2=1e-3, tol=1e-30)
    with pytest.warns(ConvergenceWarning, match="precision_limit"):
        hopeless.fit(features, labels)
    assert hopeless.duality_gap_ < 1e-12


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"l2": 0}, "l2 is 0; expected a positive number"),
        ({"l2": float("nan")}, "l2 is nan"),
        ({"l2": "1"}, "l2 is '1'; expected a positive number"),
        ({"tol": True}, "tol is True; expected a positive number"),
        ({"tol": -1.0}, "tol is -1.0; expected a positive number"),
        ({"max_passes": 0}, "max_passes is 0"),
    ],
)
def test_bad_parameters(parameters, message):
    features, labels = digits(2)
    with pytest.raises(ValueError, match=message):
        CertifiedLogisticRegression(**parameters).fit(features, labels)


def test_numbers_and_arrays_of_other_kinds():
    features, labels = load_iris(return_X_y=True)
    plain = CertifiedLogisticRegression(0.5, tol=0.25, max_passes=9).fit(features, labels)
    other = CertifiedLogisticRegression(
        torch.tensor(0.5), tol=np.float32(0.25), max_passes=np.array(9)
    ).fit(features.astype(">f8"), labels.astype(">i2"), np.ones(len(labels), ">f4"))
    np.testing.assert_array_equal(other.coef_, plain.coef_)
    assert other.C_ == plain.C_ and type(other.C_) is float


def test_one_class_is_an_error():
    features, labels = digits(2)
    with pytest.raises(ValueError, match=r"all of one class, \['one'\]; expected samples of two"):
        CertifiedLogisticRegression().fit(features, labels, sample_weight=labels == "one")


def test_is_tuned_by_grid_search():
    features, labels = load_iris(return_X_y=True)
    search = GridSearchCV(CertifiedLogisticRegression(tol=1e-6), {"l2": [1e-3, 1e2]}, cv=3)
    assert search.fit(features, labels).best_params_ == {"l2": 1e-3}


def test_missing_library_is_said(monkeypatch):
    monkeypatch.delitem(sys.modules, "linprobe.integrations.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(
        ImportError, match=r"needs scikit-learn .* pip install 'linprobe\[sklearn\]'"
    ):
        importlib.import_module("linprobe.integrations.sklearn")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_rows_that_are_not_finite_are_counted_and_named(dtype):
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(dtype)
    y = np.arange(30) % 2
    fitted = CertifiedLogisticRegression(l2=1e-2).fit(x, y)
    x[[21, 4], 1] = np.nan, np.inf
    said = r"2 of 30 rows of X \(the first is row 4, counted from 0\) hold NaN or infinity"
    with pytest.raises(ValueError, match=said):
        CertifiedLogisticRegression(l2=1e-2).fit(x, y)
    with pytest.raises(ValueError, match=said):
        fitted.predict(x)
