"""The view of a preflight that has nothing to say."""

from pathlib import Path

from webui.eichi_utils.download.download import DownloadView, ModelFolders
from webui.eichi_utils.preflight import SetupView

NO_SETUP = SetupView(0, None, None, ModelFolders(None, Path("models")), DownloadView(0))
