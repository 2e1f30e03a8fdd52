"""Secrets that pass through a file leave nothing behind."""

from __future__ import annotations

import gc
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from fedcredit.crypto import bfv
from fedcredit.crypto.scratch import DirectoryScratch, MemoryScratch, Scratch, make_scratch

KINDS = [DirectoryScratch, *([MemoryScratch] if hasattr(os, "memfd_create") else [])]


def fail(path: str) -> None:
    Path(path).write_bytes(b"secret")
    raise ValueError


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_pass_and_do_not_mix(kind: type[Scratch]) -> None:
    scratch = kind()
    seen: list[bytes] = []
    for data in (b"a longer text", b"", b"short", bytes(1 << 20)):
        scratch.loaded(data, lambda path: seen.append(Path(path).read_bytes()))
        assert seen.pop() == data
        assert scratch.written(lambda path, data=data: Path(path).write_bytes(data)) == data  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_leaves_nothing(kind: type[Scratch]) -> None:
    scratch = kind()
    with pytest.raises(ValueError):
        scratch.written(fail)
    with pytest.raises(ValueError):
        scratch.loaded(b"before", fail)
    if isinstance(scratch, DirectoryScratch):
        assert list(scratch.directory.iterdir()) == []
    else:
        assert isinstance(scratch, MemoryScratch)
        assert os.fstat(scratch._descriptor).st_size == 0


def test_the_directory_is_private_and_removed() -> None:
    scratch = DirectoryScratch()
    directory = scratch.directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    del scratch
    gc.collect()
    assert not directory.exists()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory without a name is Linux's")
def test_memory_has_no_name_and_is_given_back() -> None:
    scratch = make_scratch()
    assert isinstance(scratch, MemoryScratch)
    descriptor = scratch._descriptor
    assert os.fstat(descriptor).st_nlink == 0
    assert not os.get_inheritable(descriptor)
    del scratch
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(descriptor)


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_works_through_either(kind: type[Scratch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfv, "make_scratch", kind)
    secret = bfv.SecretContext(20)
    public = bfv.PublicContext(20, secret.public_bytes())
    assert secret.decrypt(public.encrypt(np.arange(9, dtype=np.uint64)))[:9].tolist() == list(range(9))
