"""The view of a preflight that has nothing to say."""

from pathlib import Path

from webui.eichi_utils.download.download import DownloadView
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.preflight import PreflightView

EMPTY_PREFLIGHT = PreflightView(None, None, ModelFolders(None, Path("models")), DownloadView())
