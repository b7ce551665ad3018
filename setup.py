"""Build step: a wheel carries ``datasets/`` of the repository as ``retina_codec/_datasets/``.

All else is in pyproject.toml. ``datasets/`` at the top is a folder of files, not a package; in a
working copy it is read where it stands.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = (".yaml", ".md", ".nc")


class BuildWithDatasets(build_py):
    """Copies the descriptions of data sets, and the sample, beside the modules."""

    def run(self):
        """Build the modules, then add the data sets."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "retina_codec" / "_datasets"
        shutil.rmtree(target, ignore_errors=True)  # what an earlier build left
        for source, place in self._datasets():
            self.mkpath(str(Path(place).parent))
            self.copy_file(str(source), str(place))

    def get_outputs(self, include_bytecode=True):
        """List all files that are built."""
        return super().get_outputs(include_bytecode) + [str(place) for _, place in self._datasets()]

    def _datasets(self):
        """Pairs of a file and its place in the build."""
        top = Path("datasets")
        built = Path(self.build_lib) / "retina_codec" / "_datasets"
        for source in sorted(top.glob("*/*")):
            if source.suffix in SHIPPED:
                yield source, built / source.relative_to(top)


setup(cmdclass={"build_py": BuildWithDatasets})
