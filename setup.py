"""Build step: a wheel carries ``datasets/`` and ``models/`` of the repository inside the package.

They become ``retina_codec/_datasets/`` and ``retina_codec/_models/``. All else is in
pyproject.toml. Both are folders of files at the top, not packages; in a working copy they are read
where they stand.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {
    "datasets": (".yaml", ".md", ".nc"),
    "models": (".yaml", ".md", ".safetensors"),
}


class BuildWithFiles(build_py):
    """Copies descriptions of data sets, the sample, and trained models beside the modules."""

    def run(self):
        """Build the modules, then add the files."""
        super().run()
        if self.editable_mode:
            return
        for folder in SHIPPED:
            shutil.rmtree(self._built(folder), ignore_errors=True)  # what an earlier build left
        for source, place in self._files():
            self.mkpath(str(place.parent))
            self.copy_file(str(source), str(place))

    def get_outputs(self, include_bytecode=True):
        """List all files that are built."""
        return super().get_outputs(include_bytecode) + [str(place) for _, place in self._files()]

    def _built(self, folder):
        """Place of a folder in the build."""
        return Path(self.build_lib) / "retina_codec" / f"_{folder}"

    def _files(self):
        """Pairs of a file and its place in the build."""
        for folder, suffixes in SHIPPED.items():
            for source in sorted(Path(folder).glob("*/*")):
                if source.suffix in suffixes:
                    yield source, self._built(folder) / source.relative_to(folder)


setup(cmdclass={"build_py": BuildWithFiles})
