"""An independent solver for tests: scipy's Newton-CG in float64 on the flattened problem."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax


def reference_optimum(features, labels, num_classes, l2, sample_weight=None):
    """Return (objective, weight, bias) at the optimum, to about 1e-10 nats."""
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    n, d = x.shape
    s = np.full(n, 1 / n) if sample_weight is None else np.asarray(sample_weight, float)
    s = s / s.sum()
    target = np.eye(num_classes)[y]

    def unpack(theta):
        table = theta.reshape(num_classes, d + 1)
        return table[:, :d], table[:, d]

    def value_and_gradient(theta):
        w, b = unpack(theta)
        z = x @ w.T + b
        value = s @ (logsumexp(z, axis=1) - (z * target).sum(1)) + l2 / 2 * (w**2).sum()
        r = s[:, None] * (softmax(z, axis=1) - target)
        return value, np.hstack([r.T @ x + l2 * w, r.sum(0)[:, None]]).ravel()

    def hessian_product(theta, v):
        w, b = unpack(theta)
        p = softmax(x @ w.T + b, axis=1)
        vw, vb = unpack(v)
        u = x @ vw.T + vb
        h = s[:, None] * (p * u - p * (p * u).sum(1, keepdims=True))
        return np.hstack([h.T @ x + l2 * vw, h.sum(0)[:, None]]).ravel()

    theta = np.zeros(num_classes * (d + 1))
    found = minimize(value_and_gradient, theta, jac=True, method="BFGS", options={"maxiter": 200})
    found = minimize(
        value_and_gradient,
        found.x,
        jac=True,
        hessp=hessian_product,
        method="trust-ncg",
        options={"gtol": 1e-12, "maxiter": 5000},
    )
    w, b = unpack(found.x)
    return found.fun, w, b - b.mean()
