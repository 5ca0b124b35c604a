@echo off
rem ---------------------------------------------------------------------------------------------
rem start.bat の設定です。ふつうは変更しなくて大丈夫です。行の先頭の rem を消すと、その設定が有効になります。
rem Settings for start.bat. No editing needed. To use a setting, remove the rem at the start of its line.
rem ---------------------------------------------------------------------------------------------

rem 起動のたびに付ける引数（例: ポート、言語、モデルのフォルダー）。
rem Arguments for every start (here: port, language, models folder).
rem set "START_OPTIONS=--port 8002 --lang ja --models "D:\FramePack\webui\hf_download""

rem ダウンロード済みの Hugging Face のモデルがある場所。
rem The folder of Hugging Face models that you already have.
rem set "HF_HOME=D:\huggingface"

rem インターネット接続に使うプロキシ。
rem The proxy for internet access.
rem set "HTTPS_PROXY=http://proxy.example.com:8080"

rem 仮想環境に使う Python（3.10 から 3.14、64 ビット版）。ふつうは自動で見つかります。
rem The Python (3.10 to 3.14, 64-bit) for the virtual environment. Normally found automatically.
rem set "PYTHON_FOR_VENV=C:\Python312\python.exe"

rem PyTorch の種類: cu130、cu128、cu126、cpu、または https:// のアドレス。ふつうは GPU に合わせて自動で選びます。
rem The build of PyTorch: cu130, cu128, cu126, cpu, or an https:// address. Normally chosen to match the GPU.
rem set "TORCH_INDEX=cu128"

rem PyTorch のバージョン（requirements.txt の範囲内）。
rem The version of PyTorch, within the range in requirements.txt.
rem set "TORCH_VERSION=2.10.0"
