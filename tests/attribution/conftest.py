"""A slow literal twin of the decomposition: one sample, one step, one unit at a time."""

import math

import numpy as np
import pytest
import torch


class Twin:
    """Contributions as the formulas are written, sharing nothing with the package.

    `score(y, fixed)` gives the target's numbers, a list, of one sample's outputs `y`, and
    `choose(y, i)` what stays fixed along the path of sample `i`.
    """

    def __init__(self, network, layer, score, choose=lambda y, i: None):
        self.network, self.layer, self.score, self.choose = network, layer, score, choose
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        network.eval()

    def run(self, x, put=None):
        """Outputs and layer at one input; the layer gives `put` where it is given."""
        kept = []

        def hook(module, inputs, output):
            if put is not None:
                kept.append(put)
                return put.clone()
            value = output.detach().clone().requires_grad_()
            kept.append(value)
            return value.clone()

        handle = self.layer.register_forward_hook(hook)
        try:
            y = self.network(x[None].detach().clone())[0]
        finally:
            handle.remove()
        assert len(kept) == 1
        return y, kept[0]

    def gradient(self, x, fixed, k):
        y, a = self.run(x)
        (g,) = torch.autograd.grad(self.score(y, fixed)[k], a)
        return g[0].numpy()

    def activation(self, x):
        return self.run(x)[1].detach()[0].numpy()

    def decompose(self, xs, divide):
        """Contributions (sample, target, ...), target, target at the baseline.

        `divide(x, i, fixed, k)` gives those of one sample and target, and the baseline.
        """
        total, top, bottom = [], [], []
        for i, x in enumerate(xs):
            y, _ = self.run(x)
            y = y.detach()
            fixed = self.choose(y, i)
            scores = [float(v) for v in self.score(y, fixed)]
            rows = [divide(x, i, fixed, k) for k in range(len(scores))]
            total.append([c for c, _ in rows])
            top.append(scores)
            y0 = self.run(rows[0][1])[0].detach()
            bottom.append([float(v) for v in self.score(y0, fixed)])
        return np.array(total), np.array(top), np.array(bottom)

    def integrated(self, xs, steps, rule="trapezoid", baseline=0.0):
        steps = [steps] * len(xs) if isinstance(steps, int) else list(steps)

        def divide(x, i, fixed, k):
            x0 = torch.as_tensor(baseline, dtype=x.dtype).expand_as(x)
            n = steps[i]

            def at(s):
                return x0 + s * (x - x0)

            c = 0.0
            for j in range(n):
                change = self.activation(at((j + 1) / n)) - self.activation(at(j / n))
                if rule == "left":
                    g = self.gradient(at(j / n), fixed, k)
                elif rule == "right":
                    g = self.gradient(at((j + 1) / n), fixed, k)
                elif rule == "midpoint":
                    g = self.gradient(at((j + 0.5) / n), fixed, k)
                else:
                    g = 0.5 * self.gradient(at(j / n), fixed, k)
                    g = g + 0.5 * self.gradient(at((j + 1) / n), fixed, k)
                c = c + g * change
            return c, x0

        return self.decompose(xs, divide)

    def activation_gradient(self, xs, baseline=0.0):
        def divide(x, i, fixed, k):
            x0 = torch.as_tensor(baseline, dtype=x.dtype).expand_as(x)
            return self.activation(x) * self.gradient(x, fixed, k), x0

        return self.decompose(xs, divide)

    def normalized_gradient(self, xs, baseline=0.0):
        def divide(x, i, fixed, k):
            x0 = torch.as_tensor(baseline, dtype=x.dtype).expand_as(x)
            g = self.gradient(x, fixed, k)
            length = math.sqrt(sum(float(v) ** 2 for v in g.ravel()))
            return self.activation(x) * (g / length if length > 0 else 0 * g), x0

        return self.decompose(xs, divide)

    def smooth_gradient(self, xs, noises, baseline=0.0):
        """With noise (copy, sample, ...)."""

        def divide(x, i, fixed, k):
            x0 = torch.as_tensor(baseline, dtype=x.dtype).expand_as(x)
            g = 0.0
            for noise in noises:
                g = g + self.gradient(x + torch.as_tensor(noise[i], dtype=x.dtype), fixed, k)
            return self.activation(x) * g / len(noises), x0

        return self.decompose(xs, divide)

    def ablation(self, xs, silence="baseline", baseline=0.0):
        def divide(x, i, fixed, k):
            x0 = torch.as_tensor(baseline, dtype=x.dtype).expand_as(x)
            y, a = self.run(x)
            silent = self.run(x0)[1].detach()
            if silence == "zero":
                silent = 0 * silent
            whole = float(self.score(y.detach(), fixed)[k])
            c = np.zeros(a.numel())
            for unit in range(a.numel()):
                put = a.detach().clone().contiguous()
                put.view(-1)[unit] = silent.reshape(-1)[unit]
                without, _ = self.run(x, put)
                c[unit] = whole - float(self.score(without, fixed)[k])
            return c.reshape(a.shape[1:]), x0

        return self.decompose(xs, divide)


def each_output(y, fixed):
    return [y[i] for i in range(len(y))]


@pytest.fixture(scope="session")
def twin():
    """``twin(network, layer, score, choose)``; the score is each output unless told."""

    def make(network, layer, score=each_output, choose=lambda y, i: None):
        return Twin(network, layer, score, choose)

    return make


@pytest.fixture(scope="session")
def agree():
    """``agree(tree, name, found)``: node `name` of `tree` is what the twin found."""

    def check(tree, name, found, rtol=1e-9):
        contribution, target, start = found
        ours = tree[f"layers/{name}"]
        if "output" not in tree.dims and "cell" not in tree.dims:
            contribution, target, start = contribution[:, 0], target[:, 0], start[:, 0]
        scale = np.abs(contribution).max()
        assert scale > 1e-3  # something did happen
        assert ours["contribution"].shape == contribution.shape
        np.testing.assert_allclose(
            ours["contribution"].values, contribution, rtol=rtol, atol=1e-3 * rtol * scale
        )
        np.testing.assert_allclose(tree["target"].values, target, rtol=rtol)
        np.testing.assert_allclose(tree["target_baseline"].values, start, rtol=rtol)
        axes = tuple(range(target.ndim, contribution.ndim))
        error = contribution.sum(axis=axes) - (target - start)
        np.testing.assert_allclose(
            ours["completeness_error"].values, error, rtol=rtol, atol=rtol * scale
        )
        assert np.abs(target - start).max() > 1e-2  # the target really changed

    return check
