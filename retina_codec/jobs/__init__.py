"""The whole job, from a recording or a simulation to a report, in stages that are kept.

`config` says what can be asked for, `stages` what is done in which order, `folder` what is
finished and need not be repeated, `findings` what is said of the result; `demo` holds the
settings of the embedded example.
"""

from retina_codec.jobs.config import Job, read_job
from retina_codec.jobs.demo import demo_job
from retina_codec.jobs.stages import run_job

__all__ = ["Job", "demo_job", "read_job", "run_job"]
