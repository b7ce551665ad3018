"""The design matrix of a filter as large as the frame, as an operator that is never written out."""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.time import whole_history
from retina_codec.models.model import RetinaModel

# Samples of a stretch that is transformed along time at once.
STRETCH = 512


class MovieDesign:
    """A movie as a linear operator between filters and drives.

    A filter as large as the frame is a sum over pixels of convolutions in time, so the movie's
    stretches are transformed along time once, and each application of the operator is one complex
    matrix product at each temporal frequency. It holds one transform of the movie, about as large
    as the movie in single precision, and no array (time, lag, y, x).

    Parameters
    ----------
    model : RetinaModel
        Says history and normalisation.
    node : xarray.Dataset
        stimulus (time, [color,] y, x) and spike_count (time, cell).

    Attributes
    ----------
    counts : torch.Tensor
        (time, cell), of the bins with a whole history.
    shape : tuple of int
        (lag in time order, pixel) of a filter, colour planes among the pixels.
    """

    def __init__(self, model: RetinaModel, node: xr.Dataset) -> None:
        history = model.history
        batches = list(model.samples(node["stimulus"]).batches(STRETCH))
        self._lengths = [batch.index.stop - batch.index.start for batch in batches]
        self._n_frames = STRETCH + history - 1
        n_pixels = math.prod(batches[0].inputs.shape[2:])
        stretches = torch.zeros(len(batches), self._n_frames, n_pixels, device=model.device)
        for stretch, batch in zip(stretches, batches, strict=True):
            frames = batch.inputs[0].flatten(1)
            stretch[: len(frames)] = frames
        # (frequency, stretch, pixel)
        self._movie = torch.fft.rfft(stretches, dim=1).transpose(0, 1).contiguous()
        self.shape = (history, n_pixels)
        bins = whole_history(node["stimulus"], history)
        counts = node["spike_count"].transpose("time", "cell").values[bins]
        self.counts = torch.from_numpy(counts.astype(np.float32)).to(model.device)

    def forward(self, weights: Tensor) -> Tensor:
        """Drives (time, cell) of filters (cell, lag in time order, pixel)."""
        spectrum = torch.fft.rfft(weights, n=self._n_frames, dim=1).conj()
        product = torch.bmm(self._movie, spectrum.permute(1, 2, 0))
        drives = torch.fft.irfft(product, n=self._n_frames, dim=0).transpose(0, 1)
        return torch.cat([drive[:n] for drive, n in zip(drives, self._lengths, strict=True)])

    def backward(self, residual: Tensor) -> Tensor:
        """Apply the transpose of `forward`: filters that the residual (time, cell) asks for."""
        padded = residual.new_zeros(len(self._lengths), self._n_frames, residual.shape[1])
        for stretch, part in zip(padded, residual.split(self._lengths), strict=True):
            stretch[: len(part)] = part
        spectrum = torch.fft.rfft(padded, dim=1).conj().permute(1, 2, 0)
        product = torch.bmm(spectrum, self._movie)
        return torch.fft.irfft(product, n=self._n_frames, dim=0)[: self.shape[0]].transpose(0, 1)
