"""Weight decay draws weights to zero, and nothing else: no place, no table, no offset."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec._common.time import time_coordinate
from retina_codec.models.segments import Segments
from retina_codec.models.weight_decay import parameter_groups

SETTINGS = {"history": 6, "bin_width": 0.01, "cells": ["a", "b"]}
DECAY = 20.0


def recording(n=700, side=9):
    """Two cells that see two pixels of a movie."""
    rng = np.random.default_rng(0)
    movie = rng.normal(size=(n, side, side)).astype(np.float32)
    drive = np.stack([movie[:, 2, 3], -movie[:, 6, 5]], axis=1)
    counts = rng.poisson(0.5 * np.log1p(np.exp(2 * drive - 0.5)))
    return xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), movie),
            "spike_count": (("time", "cell"), counts),
        },
        coords={"time": time_coordinate(np.arange(n) * 0.01, 0.01), "cell": ["a", "b"]},
    )


def decayed(network):
    """Names of the parameters that decay; the others must be all the rest."""
    groups = parameter_groups(network, 0.5)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {group["weight_decay"]: {names.pop(id(p)) for p in group["params"]} for group in groups}
    assert not names
    return found[0.5]


def test_only_weights_decay():
    core = {f"core.convolutions.{i}.{part}.weight" for i in range(2) for part in ("space", "time")}
    gaussian = rc.models.CoreReadout((9, 9), **SETTINGS)
    assert decayed(gaussian.network) == core | {"readout.features"}
    masks = rc.models.CoreReadout((9, 9), readout="factorised", **SETTINGS)
    assert decayed(masks.network) == core | {"readout.features", "readout.mask"}
    retinotopic = rc.models.Retinotopic((9, 9), stacked=False, **SETTINGS)
    assert decayed(retinotopic.network) == {"conv1.weight", "conv2.weight", "conv3.weight"}
    for nonlinearity in ("softplus", "exponential", "histogram"):
        ln = rc.models.LN((9, 9), nonlinearity=nonlinearity, **SETTINGS)
        assert decayed(ln.network) == {"filter.weight"}
    bncnn = rc.models.BNCNN((9, 9), **SETTINGS)
    assert decayed(bncnn.network) == {"conv1.weight", "conv2.weight", "dense.weight"}


def test_norms_of_others_shared_and_frozen_parameters():
    shared = nn.Linear(4, 4)
    network = nn.Sequential(shared, nn.LayerNorm((3, 4)), shared, nn.Linear(4, 2))
    assert decayed(network) == {"0.weight", "3.weight"}
    network[3].requires_grad_(False)
    groups = parameter_groups(network, 0.5)
    assert [len(group["params"]) for group in groups] == [1, 3]
    shared.requires_grad_(False)
    assert [group["weight_decay"] for group in parameter_groups(network, 0.5)] == [0.0]


def models():
    """By what must not decay: a model of `recording` without noise, and its weights by hand."""
    node = recording()
    gaussian = rc.models.CoreReadout.for_recording(node, history=6, channels=(3, 3))
    with torch.no_grad():
        gaussian.network.readout.log_sd.fill_(-50)
        gaussian.network.readout.position.copy_(torch.tensor([[-0.8, 0.7], [0.6, -0.9]]))
    retinotopic = rc.models.Retinotopic.for_recording(
        node, history=6, channels=(3, 3), noise=0.0, stacked=False
    )
    with torch.no_grad():
        retinotopic.readout.choice.normal_(generator=torch.Generator().manual_seed(0))
    histogram = rc.models.LN.from_spike_triggered_average(node, history=6, nonlinearity="histogram")
    with torch.no_grad():
        histogram.network.nonlinearity.counts.add_(0.5)  # no step makes a count negative
    return {
        "readout.position": (gaussian, ("space.weight", "time.weight", "features")),
        "readout.choice": (retinotopic, ("conv1.weight", "conv2.weight", "conv3.weight")),
        "nonlinearity.counts": (histogram, ("filter.weight",)),
    }


def literally(model, node, spared, weights):
    """One epoch of Adam on the loss and the squares of `weights`; what `spared` ends as."""
    network = model.network.train()
    parameters = dict(network.named_parameters())
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-2)
    for frames, counts in Segments(model, node, 2, 32, seed=0):
        rate = network(frames)
        loss = (rate * 0.01 - counts * torch.log(rate * 0.01 + 1e-6)).mean()
        squares = sum((p**2).sum() for name, p in parameters.items() if name.endswith(weights))
        optimizer.zero_grad()
        (loss + DECAY / 2 * squares).backward()
        optimizer.step()
    return parameters[spared].detach()


@pytest.mark.parametrize("spared", ["readout.position", "readout.choice", "nonlinearity.counts"])
def test_huge_decay_leaves_the_rest_where_the_gradient_puts_it(spared):
    node = recording()
    (model, weights), (twin, _), (drawn, _) = (models()[spared] for _ in range(3))
    start = dict(model.network.named_parameters())[spared].detach().clone()
    rc.train(
        model,
        node,
        validation=recording(300),
        max_epochs=1,
        n_segments=2,
        segment_length=32,
        l1_rate=0.0,
        l2_weights=DECAY,
        schedule="constant",
        progress=False,
    )
    found = dict(model.network.named_parameters())[spared].detach()
    expected = literally(twin, node, spared, weights)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert (found - start).abs().max() > 0.02
    # With decay it would be elsewhere.
    other = literally(drawn, node, spared, (*weights, spared))
    assert (other - expected).abs().max() > 0.02
