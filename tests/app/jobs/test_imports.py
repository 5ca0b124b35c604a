"""The engine is imported once, as soon as a picture is there, and never twice at a time."""

import subprocess
import sys
import threading
from unittest.mock import Mock

import pytest

from webui.eichi_utils.jobs import imports


@pytest.fixture(autouse=True)
def fresh():
    imports._thread.cache_clear()
    yield
    imports._thread.cache_clear()


def test_an_import_that_has_begun_is_waited_for(monkeypatch):
    may_end, done = threading.Event(), []
    monkeypatch.setattr(imports, "_import", lambda: done.append(may_end.wait(10)))
    imports.begin_import()
    imports.begin_import()
    assert not done
    may_end.set()
    imports.finish_import()
    assert done == [True]


def test_what_cannot_be_imported_fails_where_it_is_needed(monkeypatch, caplog):
    monkeypatch.setattr("diffusers_helper.engine.import_models", Mock(side_effect=OSError("no DLL")))
    imports.begin_import()
    imports.finish_import()
    assert "no DLL" in caplog.text


@pytest.mark.slow
def test_the_classes_of_all_models_are_there_afterwards():
    program = (
        "import sys; from webui.eichi_utils.jobs.imports import begin_import, finish_import\n"
        "assert 'torch' not in sys.modules; begin_import(); finish_import()\n"
        "names = ('autoencoders.autoencoder_kl_hunyuan_video',"
        " 'transformers.transformer_hunyuan_video_framepack')\n"
        "assert all(f'diffusers.models.{name}' in sys.modules for name in names)\n"
        "assert all(f'transformers.models.{name}' in sys.modules for name in ('llama', 'clip', 'siglip'))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
