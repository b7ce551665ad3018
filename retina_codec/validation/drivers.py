"""Which interneurons drove a burst: those that a model names beside those that did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.signal import find_peaks

from retina_codec._common.checks import (
    magnitude,
    naming,
    require_at_least,
    require_choice,
    require_count,
)
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of
from retina_codec.attribution import methods
from retina_codec.attribution.methods import Method
from retina_codec.models.model import RetinaModel
from retina_codec.validation.features import candidate_map, signed_sums, streamed
from retina_codec.validation.halves import Halves
from retina_codec.validation.matching import best_matches
from retina_codec.validation.true_contributions import CUTS, STEPS, Truth, true_features
from retina_codec.validation.truth import (
    CircuitLike,
    models_of,
    node_of,
    require_cells,
    true_circuit,
)

FEATURES = ("contribution", "activation")


def named_drivers(
    model: RetinaModel | Mapping[str, RetinaModel],
    simulation: xr.DataTree,
    *,
    circuit: CircuitLike | None = None,
    node: str = "test",
    cut: str = "bipolar",
    layers: str | Sequence[str] | None = None,
    method: Method | None = None,
    true_method: Method | None = None,
    n_bursts: int = 20,
    around: float = 0.05,
    least_share: float = 0.01,
    progress: bool = True,
) -> xr.Dataset:
    """Ask models which interneurons drove each burst of each cell, and whether they did.

    The driver of a burst is the type of interneuron with the largest true contribution to the
    cell, mean over the burst. A model has no types: each true channel is matched with the model's
    feature that follows it best on half A of the frames, the model's predicted rate removed (as in
    `retina_codec.benchmark_recovery`), and the feature is scaled to Hz by linear regression on A,
    so that activations may be asked too. The bursts are those of half B; the driver that a model
    names is the channel whose scaled feature is largest there.

    Parameters
    ----------
    model : RetinaModel, or mapping of str to RetinaModel
        One (called ``"model"``), or several by name: give an untrained one beside.
    simulation, circuit, node, method, true_method, least_share
        As for `retina_codec.benchmark_recovery`.
    cut : {"bipolar", "ganglion_input"}
        Where the true contributions are taken.
    layers : str or sequence of str, optional
        Layers of the models; by default each model's ``default_layers``.
    n_bursts : int
        The highest peaks of a cell's true rate in each half, so many at most.
    around : float or quantity
        Seconds before and after a peak that belong to the burst; peaks are further apart.
    progress : bool
        Show progress bars.

    Returns
    -------
    Dataset
        `driver` (cell, burst), the true one, ``""`` where a cell has fewer bursts; `burst_time`
        (cell, burst), s; `named` (model, features, cell, burst); `right` (model, features, cell,
        burst), 1 or 0, NaN without a burst. `features` are ``"contribution"`` and
        ``"activation"``, of channels, summed over places. `chance` (cell): the share that is right
        if always the type is named that drove most bursts of half A. `contested` (cell): 1 where
        more than one type drove bursts in half B; elsewhere there is nothing to tell.

    Raises
    ------
    TypeError, ValueError
        As `retina_codec.benchmark_recovery` does; and if a half has no burst.

    Examples
    --------
    >>> import retina_codec as rc
    >>> movie = rc.stimuli.white_noise(n_frames=200, shape=(10, 10), seed=0)
    >>> truth = rc.simulate_retina({"test": movie})
    >>> circuit = rc.simulation.circuit("default", shape=(10, 10))
    >>> found = rc.validation.named_drivers(circuit, truth, n_bursts=3, progress=False)
    >>> float(found["right"].sel(features="contribution", cell="on_off_0").mean())
    1.0
    """
    models = models_of(model)
    require_choice(cut, CUTS, "cut")
    require_count(n_bursts, 1, "n_bursts")
    around = float(magnitude(around, "s", "around"))
    require_at_least(around, 0.0, "around")
    require_at_least(least_share, 0.0, "least_share")
    method = method or methods.IntegratedGradients(steps=STEPS)
    true_method = true_method or methods.IntegratedGradients(steps=STEPS)
    shown, where = node_of(simulation, node, "node", ["true_rate"])
    known = true_circuit(shown, circuit, where)
    cells = [str(cell) for cell in shown["cell"].values]
    movie = shown["stimulus"]
    chosen = {}
    for name, one in models.items():
        require_cells(name, one, cells, where)
        with naming(f"model {name!r} on {where}"):
            one.samples(movie, "stimulus")
            given = one.default_layers if layers is None else layers
            chosen[name] = [given] if isinstance(given, str) else list(given)
            for layer in chosen[name]:
                one.layer(layer)
    halves = Halves.of(movie, max(one.history for one in (known, *models.values())), where)
    true_rate = shown["true_rate"].transpose("time", "cell").values[halves.frames]
    n_around = round(around / bin_width_of(movie, where))
    bursts = [_bursts(true_rate, halves, half, n_around, n_bursts) for half in range(2)]
    if not all(any(map(len, of_cells)) for of_cells in bursts):
        raise ValueError(f"{where} has a half without a burst of any cell: give a longer movie")
    truth = true_features(known, halves, shown, true_rate, cells, true_method, progress)
    asked = _Asked(truth, cut, least_share, halves, bursts[1], n_around)
    drivers = asked.drivers()
    before = _Asked(truth, cut, least_share, halves, bursts[0], n_around).drivers()
    shape = (len(models), len(FEATURES), len(cells), n_bursts)
    named = np.full(shape, "", dtype=object)
    for m, (name, one) in enumerate(models.items()):
        rate, features = _features(one, halves, cells, chosen[name], method, name, progress)
        for f, kind in enumerate(FEATURES):
            for i in range(len(cells)):
                of_bursts = asked.named(i, features[kind], rate[:, i], unsigned=kind != FEATURES[0])
                named[m, f, i, : len(of_bursts)] = of_bursts
    true = np.full(shape[2:], "", dtype=object)
    time = np.full(shape[2:], np.nan)
    for i, rows in enumerate(bursts[1]):
        true[i, : len(rows)] = drivers[i]
        time[i, : len(rows)] = movie["time"].values[halves.frames[rows]]
    right = np.where(true == "", np.nan, named == true)
    usual = [max(dict.fromkeys(names), key=names.count) if names else "" for names in before]
    n_of = [max(len(names), 1) for names in drivers]
    chance = [names.count(one) / n for names, one, n in zip(drivers, usual, n_of, strict=True)]
    dims = ("model", "features", "cell", "burst")
    unit = {"units": "1"}
    return xr.Dataset(
        {
            "driver": (dims[2:], true.astype(str)),
            "burst_time": (dims[2:], time, {"units": "s", "long_name": "time of the peak"}),
            "named": (dims, named.astype(str)),
            "right": (dims, right, {**unit, "long_name": "the driver is named"}),
            "chance": ("cell", chance, {**unit, "long_name": "right by naming the usual one"}),
            "contested": ("cell", [int(len(set(names)) > 1) for names in drivers], unit),
        },
        {
            "model": list(models),
            "features": list(FEATURES),
            "cell": cells,
            "burst": np.arange(n_bursts),
            **truth.coords,
        },
        provenance(
            made_by="named_drivers",
            circuit=known.specification.name,
            models={name: one.fingerprint for name, one in models.items()},
            layers=chosen,
            node=node,
            cut=cut,
            method=repr(method),
            true_method=repr(true_method),
            n_bursts=n_bursts,
            around=around,
            least_share=least_share,
        ),
    )


def _bursts(
    rate: np.ndarray, halves: Halves, half: int, around: int, most: int
) -> list[np.ndarray]:
    """Rows of the highest peaks (row, cell) in a half, by cell, with `around` on both sides."""
    rows = halves.rows[half]
    frames = halves.frames[rows]
    inside = np.zeros(len(frames), dtype=bool)
    last = len(frames) - around
    # Frames that follow each other: in one block.
    inside[around:last] = frames[2 * around :] - frames[: last - around] == 2 * around
    found = []
    for one in rate[rows].T:
        peaks, _ = find_peaks(one, distance=2 * around + 1)
        peaks = peaks[inside[peaks]]
        highest = peaks[np.argsort(-one[peaks], kind="stable")[:most]]
        found.append(rows.start + np.sort(highest))
    return found


@dataclass(frozen=True)
class _Asked:
    """The bursts (rows by cell) that are asked about, and the true contributions."""

    truth: Truth
    cut: str
    least_share: float
    halves: Halves
    bursts: list[np.ndarray]
    around: int

    def _channels(self, cell: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and names of the channels of the cut that contribute to a cell."""
        channels = self.truth.summed.channels
        cut = np.repeat(list(channels), [len(names) for names in channels.values()])
        names = np.concatenate(list(channels.values()))
        contributes, _ = self.truth.features(self.least_share, 0.0)
        kept = np.flatnonzero(contributes[cell] & (cut == self.cut))
        return kept, names[kept]

    def _in_bursts(self, values: np.ndarray, cell: int) -> np.ndarray:
        """Means (burst, column) of values (row, column) over each burst."""
        window = np.arange(-self.around, self.around + 1)
        found: np.ndarray = values[self.bursts[cell][:, None] + window].mean(1)
        return found

    def drivers(self) -> list[list[str]]:
        """Give the channel with the largest true contribution, by cell and burst."""
        net = self.truth.summed.net()
        found = []
        for i in range(len(self.bursts)):
            kept, names = self._channels(i)
            largest = self._in_bursts(net[:, i, kept], i).argmax(1) if len(kept) else []
            found.append([str(names[k]) for k in largest])
        return found

    def named(
        self, cell: int, features: np.ndarray, rate: np.ndarray, *, unsigned: bool
    ) -> list[str]:
        """Name the channel whose match, scaled to Hz, is largest in each burst.

        `features` are (row, cell or 1, candidate).
        """
        kept, names = self._channels(cell)
        if not len(kept):
            return []
        a = self.halves.rows[0]
        # An activation is the same for all cells.
        values = features[:, min(cell, features.shape[1] - 1)].astype(np.float64)
        true = self.truth.summed.net()[a, cell][:, kept].astype(np.float64)
        rates = np.stack([np.ones(a.stop), rate[a]], axis=1)
        left, wanted = (
            one - rates @ np.linalg.lstsq(rates, one, rcond=None)[0] for one in (values[a], true)
        )
        moves = values[a].std(0) > 1e-6 * np.abs(values[a]).max(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            r = (left / left.std(0)).T @ (wanted / wanted.std(0)) / len(left)
        r[~moves] = np.nan
        best = best_matches(r, r, either_sign=unsigned).place
        scaled = np.empty((len(self.bursts[cell]), len(kept)))
        for k, place in enumerate(best):
            scaled[:, k] = true[:, k].mean()  # what is known without any feature
            if place >= 0:
                slope, offset = np.polyfit(values[a, place], true[:, k], 1)
                scaled[:, k] = self._in_bursts(slope * values[:, [place]] + offset, cell)[:, 0]
        return [str(names[k]) for k in scaled.argmax(1)]


def _features(
    model: RetinaModel,
    halves: Halves,
    cells: Sequence[str],
    layers: Sequence[str],
    method: Method,
    name: str,
    progress: bool,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rates (row, cell), and the candidates (row, cell or 1, candidate) of each kind."""
    rates, contribution, activation = [], [], []
    sizes: list[int] = []
    for _, rate, parts, labels in streamed(model, halves, cells, layers, method, name, progress):
        sizes = [len(labels[layer].channel) for layer in parts]
        rates.append(rate)
        contribution.append(
            np.concatenate([signed_sums(part.contribution) for part in parts.values()], axis=-1)
        )
        activation.append(
            np.concatenate([signed_sums(part.activation) for part in parts.values()], axis=-1)
        )
    to_candidates = candidate_map(sizes)
    return np.concatenate(rates), {
        "contribution": np.concatenate(contribution) @ to_candidates,
        "activation": np.concatenate(activation)[:, None] @ to_candidates,
    }
