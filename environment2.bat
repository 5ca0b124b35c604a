@echo off
rem ---------------------------------------------------------------------------------------------
rem start.bat の設定です。ふつうは何も変えなくて大丈夫です。使う行の先頭の rem を消すと有効になります。
rem Settings of start.bat. Nothing needs to be changed. To use a line, take away the rem before it.
rem ---------------------------------------------------------------------------------------------

rem 起動のたびに付ける引数（例: ポート、言語、モデルのフォルダー）。
rem Arguments for every start (here: port, language, folder of the models).
rem set "START_OPTIONS=--port 8002 --lang ja --models "D:\FramePack\webui\hf_download""

rem すでにある Hugging Face のモデルの置き場所。
rem Where Hugging Face models are already.
rem set "HF_HOME=D:\huggingface"

rem インターネットへのプロキシ。
rem A proxy to the internet.
rem set "HTTPS_PROXY=http://proxy.example.com:8080"

rem 仮想環境を作る Python（3.10 から 3.13、64 ビット）。ふつうは自動で見つけます。
rem The Python (3.10 to 3.13, 64 bits) to make the virtual environment with. It is found without this.
rem set "PYTHON_FOR_VENV=C:\Python312\python.exe"

rem PyTorch の種類: cu130、cu128、cu126、cpu、または https:// のアドレス。ふつうはグラフィックカードに合わせて選びます。
rem The build of PyTorch: cu130, cu128, cu126, cpu, or an https:// address. Without this, the graphics card decides.
rem set "TORCH_INDEX=cu128"

rem PyTorch のバージョン。requirements.txt の範囲で選んでください。
rem The version of PyTorch, within what requirements.txt allows.
rem set "TORCH_VERSION=2.10.0"
