"""The circuit as a `RetinaModel`: it predicts, and its true contributions can be taken."""

from __future__ import annotations

import os

from retina_codec.models.model import LayerGeometry, RetinaModel
from retina_codec.simulation.network import CircuitNetwork
from retina_codec.simulation.specification import CircuitSpecification, read_specification


def circuit(
    name_or_yaml: str | os.PathLike[str] | CircuitSpecification = "default",
    *,
    shape: tuple[int, int] = (24, 24),
) -> RetinaModel:
    """Build a retina with known wiring, as a model of movies of one size.

    Its layers are ``"bipolar"`` (rectified bipolar outputs; everything behind depends on the
    movie through them alone, so contributions at this layer are complete) and ``"amacrine"``
    (fed by the bipolar cells, beside their direct way to the ganglion cells). ``predict`` gives
    the true rates; contributions of this model are the true contributions.

    Parameters
    ----------
    name_or_yaml : str, path or CircuitSpecification
        ``"default"``, a YAML file of the same form, or a circuit as an object. The default has
        bipolar types ON and OFF, sustained and transient, and a delayed ON; wide-field,
        crossover and starburst-like amacrine cells; two each of ON and OFF, sustained and
        transient, object-motion and ON-OFF ganglion cells; four direction-selective ones.
    shape : tuple of int
        Height and width of the movies in pixels. Cells lie round the middle.

    Returns
    -------
    RetinaModel
        Takes movies (time, y, x) in contrast units and gives rates (time, cell) in Hz, for
        every frame with a whole history; cells are called by type and number
        (``"on_sustained_0"``). Its parameters are frozen.

    Raises
    ------
    ValueError
        If there is no such circuit, its description is wrong, or the field is smaller than the
        receptive field of a bipolar cell.

    Examples
    --------
    >>> from retina_codec import simulation, stimuli
    >>> model = simulation.circuit("default")
    >>> rate = model.predict(stimuli.white_noise(n_frames=100, seed=0))
    >>> dict(rate.sizes), rate.attrs["units"]
    ({'time': 61, 'cell': 16}, 'Hz')
    """
    if isinstance(name_or_yaml, CircuitSpecification):
        specification = name_or_yaml
    else:
        specification = read_specification(name_or_yaml)
    size = specification.bipolar_size
    if len(shape) != 2 or min(shape) < size:
        raise ValueError(
            f"shape={shape!r}; circuit {specification.name!r} needs (height, width) of at least "
            f"{size} pixels each"
        )
    network = CircuitNetwork(specification, (int(shape[0]), int(shape[1])))
    # Amacrine cells sit at the bipolar cells' places.
    geometry = LayerGeometry(offset=((size - 1) / 2, (size - 1) / 2), stride=1.0)
    return RetinaModel(
        network,
        history=specification.history,
        bin_width=specification.bin_width,
        cells=list(specification.cells),
        input_shape=(int(shape[0]), int(shape[1])),
        layers={"bipolar": network.bipolar, "amacrine": network.amacrine},
        default_layers=("bipolar", "amacrine"),
        geometry={"bipolar": geometry, "amacrine": geometry},
        channels={
            "bipolar": list(specification.bipolar),
            "amacrine": list(specification.amacrine),
        },
    )
