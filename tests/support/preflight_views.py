"""The view of a preflight that has nothing to say."""

from pathlib import Path

from webui.eichi_utils.download.download import DownloadView, ModelFolders
from webui.eichi_utils.preflight import PreflightView

EMPTY_PREFLIGHT = PreflightView(0, None, None, ModelFolders(None, Path("models")), DownloadView(0))
