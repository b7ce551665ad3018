"""`report`: from a run folder to one page."""

from __future__ import annotations

import os
from pathlib import Path

from retina_codec._common.files import written_beside
from retina_codec._common.version import __version__
from retina_codec.reporting.figures import draw_figures
from retina_codec.reporting.page import page, paragraph
from retina_codec.reporting.run import Run
from retina_codec.reporting.sections import sections_of

TITLE = "What the model's interneurons contribute"


def report(run_folder: str | os.PathLike[str], *, title: str | None = None) -> Path:
    """Write the report of a run: figures, and one HTML page that holds them all.

    Parameters
    ----------
    run_folder : path
        A folder that ``retina-codec run`` or ``retina-codec demo`` filled. Parts that it does not
        have (a stage that the recording gives no data for) are left out.
    title : str, optional
        Heading of the page; by default the job's.

    Returns
    -------
    pathlib.Path
        ``report.html`` in the folder: self-contained, without scripts, for light and dark
        screens. The figures stand in ``figures`` beside it, as PNG (150 dpi) and SVG.

    Raises
    ------
    FileNotFoundError
        If the folder is no run folder, or the recording, the trained model or its evaluation is
        missing: the message names the stage.
    OSError
        If a part is damaged.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.report("runs/demo")  # doctest: +SKIP
    PosixPath('runs/demo/report.html')
    """
    run = Run(run_folder)
    drawn = draw_figures(run, run.folder / "figures")
    title = title or str(run.job.get("title") or TITLE)
    lead = paragraph(
        "A convolutional network was trained to predict the responses of retinal ganglion cells. "
        "This page says how well it does, what each of its hidden units contributed to each "
        "response, which of these contributions recur as modes, and whether the modes carry "
        "light or motion."
    )
    html = page(
        title,
        lead,
        sections_of(run, drawn),
        f"Written by retina-codec {__version__}. Figures as PNG and SVG: the folder figures "
        "beside this page.",
    )
    target = run.folder / "report.html"
    with written_beside(target) as fresh:
        fresh.write_text(html, encoding="utf-8")
    return target
