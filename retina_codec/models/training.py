"""Training a retina model on a recording."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_at_least, require_dims
from retina_codec._common.provenance import provenance
from retina_codec.models.model import RetinaModel, training_node
from retina_codec.models.segments import Segments
from retina_codec.recordings import split


def train(
    model: RetinaModel,
    node: xr.DataTree | xr.Dataset,
    *,
    validation: xr.DataTree | xr.Dataset | None = None,
    max_epochs: int = 20,
    learning_rate: float = 1e-2,
    n_segments: int = 8,
    segment_length: int = 64,
    l1_rate: float = 1e-4,
    l2_weights: float = 0.0,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Train a retina model on a recording, in place.

    Poisson loss of ``rate * bin_width`` against spike counts; Adam under a one-cycle schedule;
    mini-batches of contiguous stretches, which never cross a block; after each epoch the loss on
    the validation blocks, and at the end the weights of the best epoch.

    Parameters
    ----------
    model : RetinaModel
        Its weights change; it is left in evaluation mode.
    node : xarray.DataTree or xarray.Dataset
        stimulus (time, [color,] y, x) and spike_count (time, cell), or a recording with a node
        ``train``.
    validation : xarray.DataTree or xarray.Dataset, optional
        The same for the validation; by default `split` cuts a tenth of `node` off, in contiguous
        stretches with gaps of the model's history.
    max_epochs : int
        Passes over the data.
    learning_rate : float
        Highest learning rate of the cycle.
    n_segments, segment_length : int
        Stretches in a mini-batch, and frames predicted in each.
    l1_rate : float
        Weight of the mean predicted rate in Hz, added to the loss.
    l2_weights : float
        Adam's weight decay.
    seed : int
        Of the order of the stretches and the noise in the network.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Over ``epoch``: ``train_loss`` and ``validation_loss``, nats per bin and cell up to a
        constant; attrs say which epoch was kept.

    Raises
    ------
    ValueError
        If the data do not fit the model, no stretch fits into a block, or the loss is not finite
        (the model then keeps the weights of its best epoch).

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> movie = rc.stimuli.white_noise(n_frames=1500, shape=(1, 1), seed=0)
    >>> drive = np.convolve(movie.squeeze(), [0, 0, 1, 0.5], mode="full")[: len(movie)]
    >>> counts = np.random.default_rng(0).poisson(0.2 * np.exp(drive))[:, None]
    >>> node = xr.Dataset(
    ...     {"stimulus": movie, "spike_count": (("time", "cell"), counts)}, {"cell": ["a"]}
    ... )
    >>> model = rc.models.BNCNN.for_recording(node, history=8, channels=(2, 2))
    >>> history = rc.train(model, node, max_epochs=3, progress=False)
    >>> float(history.train_loss[-1]) < float(history.train_loss[0])
    True
    """
    for name, value in (
        ("max_epochs", max_epochs),
        ("n_segments", n_segments),
        ("segment_length", segment_length),
    ):
        require_at_least(value, 1, name)
    dataset = training_node(node)
    if validation is None:
        parts = split(dataset, gap=model.history)
        dataset, held_out = parts["train"].to_dataset(), parts["validation"].to_dataset()
    else:
        held_out = training_node(validation)
    for name, part in (("node", dataset), ("validation", held_out)):
        require_dims(part["spike_count"], ("time", "cell"), f"{name}: spike_count")
        if list(map(str, part["cell"].values)) != model.outputs.tolist():
            raise ValueError(
                f"{name} has the cells {list(part['cell'].values)}; the model has "
                f"{model.outputs.tolist()}: select them with .sel(cell=model.outputs)"
            )
    # Importing lightning takes seconds, which nobody should wait for who does not train.
    from retina_codec.models.loop import TrainingLoop, run_loop

    segments = Segments(model, dataset, n_segments, segment_length, seed)
    loop = TrainingLoop(
        model,
        segments,
        held_out,
        learning_rate=learning_rate,
        l1_rate=l1_rate,
        l2_weights=l2_weights,
    )
    try:
        run_loop(loop, max_epochs, seed, progress)
    finally:
        if loop.best is not None:
            model.network.load_state_dict(loop.best[1])
        model.network.eval()
    losses = np.array(loop.record)
    return xr.Dataset(
        {
            "train_loss": ("epoch", losses[:, 0]),
            "validation_loss": ("epoch", losses[:, 1]),
        },
        coords={"epoch": np.arange(len(losses))},
        attrs={
            "best_epoch": int(losses[:, 1].argmin()),
            "model_fingerprint": model.fingerprint,
            **provenance(
                max_epochs=max_epochs,
                learning_rate=learning_rate,
                n_segments=n_segments,
                segment_length=segment_length,
                l1_rate=l1_rate,
                l2_weights=l2_weights,
                seed=seed,
            ),
        },
    )
