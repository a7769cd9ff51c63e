"""What users upload as programs: whatever the bytes are, there is an answer."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from cadenza.kernel.images import read_sources
from cadenza.kernel.limits import SOURCE_BYTES, SOURCE_FILES
from cadenza.kvfs.errors import Invalid, LimitExceeded

PROGRAM = "def main(args):\n    return 1\n"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def zipped(files: dict[str, str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return written.getvalue()


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_archive_is_refused_or_read(method: int) -> None:
    good = zipped({"main.py": PROGRAM * 30, "é/x.py": "x = 1\n"}, method)
    assert [path for path, _ in read_sources(good)] == ["main.py", "é/x.py"]
    refused = 0
    for seed in range(1000):
        chosen, data = random.Random(seed), bytearray(good)
        for _ in range(chosen.randint(1, 4)):
            data[chosen.randrange(4, len(data))] = chosen.randrange(256)
        if chosen.random() < 0.2:
            del data[chosen.randrange(5, len(data)):]
        try:
            read_sources(bytes(data))
        except (Invalid, LimitExceeded):
            refused += 1
    assert refused > 500


def test_files_of_a_program_at_the_limit_and_past_it() -> None:
    files = {f"m{number}.py": "" for number in range(SOURCE_FILES - 1)} | {"main.py": PROGRAM}
    assert len(read_sources(zipped(files))) == SOURCE_FILES
    with pytest.raises(LimitExceeded, match=str(SOURCE_FILES)) as refused:
        read_sources(zipped(files | {"more.py": ""}))
    assert refused.value.limit == "source_files"


def test_bytes_of_a_program_at_the_limit_and_past_it() -> None:
    at, past = {"main.py": " " * SOURCE_BYTES}, {"main.py": " " * SOURCE_BYTES, "x.py": " "}
    assert len(read_sources(zipped(at))[0][1]) == len(read_sources(b" " * SOURCE_BYTES)[0][1]) == SOURCE_BYTES
    for data in (zipped(past), b" " * (SOURCE_BYTES + 1)):
        with pytest.raises(LimitExceeded, match=str(SOURCE_BYTES)) as refused:
            read_sources(data)
        assert refused.value.limit == "source_bytes"
