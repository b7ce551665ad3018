"""Files appear whole or not at all."""

import pytest

from retina_codec._common.files import written_beside


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_stood_there_stays_if_writing_fails(tmp_path, kind):
    target = tmp_path / "result"

    def write(path, text):
        if kind == "folder":
            path.mkdir()
            path = path / "inside"
        path.write_text(text)

    def read():
        return (target / "inside" if kind == "folder" else target).read_text()

    with written_beside(target) as fresh:
        write(fresh, "first")
    with pytest.raises(RuntimeError, match="stopped"), written_beside(target) as fresh:
        write(fresh, "half")
        raise RuntimeError("stopped")
    assert read() == "first"
    with pytest.raises(OSError, match="No such file"), written_beside(target):
        pass  # nothing was written: what stood there must come back
    assert read() == "first"
    with written_beside(target) as fresh:
        write(fresh, "second")
    assert read() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
