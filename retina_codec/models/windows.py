"""Any network that takes windows of a movie, as a retina model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from retina_codec.models.model import LayerGeometry, RetinaModel


class _OnWindows(nn.Module):
    """Cut movie segments into windows (N, lag, [color,] y, x) and pass them to a network."""

    def __init__(self, module: nn.Module, history: int) -> None:
        super().__init__()
        self.module = module
        self.history = history

    def forward(self, movie: Tensor) -> Tensor:
        windows = movie.unfold(1, self.history, 1).movedim(-1, 2)
        return self.module(windows.flatten(0, 1))


def from_module(
    net: nn.Module,
    *,
    history: int,
    bin_width: float,
    cells: Sequence[str],
    mean: float = 0.0,
    sd: float = 1.0,
    layers: Mapping[str, nn.Module] | None = None,
    default_layers: Sequence[str] | None = None,
    geometry: Mapping[str, LayerGeometry] | None = None,
) -> RetinaModel:
    """Wrap a network that takes windows of a movie and gives rates.

    Parameters
    ----------
    net : torch.nn.Module
        Takes normalised windows (N, lag, [color,] y, x) in time order, the last one lag 0, and
        gives rates (N, cell) in Hz.
    history : int
        Frames in a window.
    bin_width : float or quantity
        Duration of a frame, in seconds.
    cells : sequence of str
        Ids of the ganglion cells, in the order of the outputs.
    mean, sd : float
        Of the training movie, in its recorded units.
    layers : mapping of str to torch.nn.Module, optional
        Hidden layers by name; by default all submodules of `net` under their module path.
    default_layers : sequence of str, optional
        Layers that contributions are taken at unless told; by default all.
    geometry : mapping of str to LayerGeometry, optional
        Where the units of a layer look.

    Returns
    -------
    RetinaModel
        With `net` inside (not a copy).

    Examples
    --------
    >>> import retina_codec as rc
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4 * 3 * 3, 5), nn.ReLU(), nn.Linear(5, 2))
    >>> rc.models.from_module(net, history=4, bin_width=0.01, cells=["a", "b"])
    RetinaModel(2 outputs along 'cell'; layers: 0, 1, 2, 3)
    """
    named = {name: module for name, module in net.named_modules() if name}
    return RetinaModel(
        _OnWindows(net, history),
        history=history,
        bin_width=bin_width,
        cells=cells,
        mean=mean,
        sd=sd,
        layers=named if layers is None else layers,
        default_layers=default_layers,
        geometry=geometry,
    )
