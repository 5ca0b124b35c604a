@echo off
rem Starts the app (double-click). The first time, it makes a virtual environment beside itself and installs what the
rem app needs. Arguments are those of webui\endframe_ichi.py. start.sh does the same on Linux and macOS.
rem
rem Japanese stands in scripts\*.txt, and here only in the last lines: cmd can lose its place in a file after letters that
rem are not ASCII. Paths are quoted or relative to this folder, and nothing is expanded twice, so that the folder may have
rem any name.
setlocal EnableExtensions DisableDelayedExpansion
chcp 65001 >nul 2>nul
set "root=%~dp0"
rem What the user has set for another Python must not reach this one.
set "PYTHONHOME="
set "PYTHONPATH="
rem Without bytecode files, every start would compile the big libraries again and take three times as long.
set "PYTHONDONTWRITEBYTECODE="
rem Asking Python's install manager for a version that is not there must not install it.
set "PYTHON_MANAGER_AUTOMATIC_INSTALL=false"

pushd "%root%"
if not exist "scripts\install_once.py" goto no_files
if exist "environment2.bat" call .\environment2.bat

rem 1. A virtual environment: the one that is there if it works, else a new one. Its Python is one that is installed, or
rem else one that comes into this folder.
if not exist "venv\Scripts\python.exe" goto find_python
venv\Scripts\python.exe scripts\check_python.py venv >nul 2>nul
if "%errorlevel%"=="0" goto install
:find_python
set "python="
if defined PYTHON_FOR_VENV call :try "%PYTHON_FOR_VENV%"
for %%v in (3.14 3.13 3.12 3.11 3.10) do if not defined python call :try py -%%v
rem Without a Python, this is a stub of the Microsoft Store. It fails when it is given arguments, and opens no window.
if not defined python call :try python
for %%v in (314 313 312 311 310) do if not defined python call :try_file "%LOCALAPPDATA%\Programs\Python\Python%%v\python.exe"
for %%v in (314 313 312 311 310) do if not defined python call :try_file "%ProgramFiles%\Python%%v\python.exe"
rem The one that an earlier start got, or else a new one.
if not defined python call :try_own
if not defined python call .\scripts\get_python.bat
if not defined python call :try_own
if not defined python goto no_python
call %python% scripts\make_environment.py
if not "%errorlevel%"=="0" goto failed
if not exist "venv\Scripts\python.exe" goto failed

rem 2. The packages, once, and again when requirements.txt has changed.
:install
venv\Scripts\python.exe scripts\install_once.py app requirements.txt
if not "%errorlevel%"=="0" goto failed

rem 3. The app. The current directory is the user's again, so that relative paths among the arguments mean what they say.
popd
set "ENDFRAME_ICHI_STARTER=start.bat"
"%root%venv\Scripts\python.exe" "%root%webui\endframe_ichi.py" --inbrowser %START_OPTIONS% %*
set "status=%errorlevel%"
if "%status%"=="0" exit /b 0
rem Stopped with Ctrl-C.
if "%status%"=="130" exit /b 130
if exist "%root%scripts\start_failed.txt" type "%root%scripts\start_failed.txt"
goto wait

:try
rem `call`, because some Pythons are batch files, and would not come back here. An empty one leaves the status as it was.
"%ComSpec%" /c exit 1
call %* scripts\check_python.py >nul 2>nul <nul
if "%errorlevel%"=="0" set python=%*
exit /b 0

:try_file
if exist "%~1" call :try "%~1"
exit /b 0

:try_own
for /d %%d in (uv\python\cpython-3.13*) do if not defined python call :try "%%d\python.exe"
exit /b 0

:no_python
type scripts\no_python.txt
set "status=1"
goto wait

:failed
set "status=1"

rem The window stays open, with the message.
:wait
if not defined NO_PAUSE pause
exit /b %status%

rem Double-clicked inside the ZIP file, start.bat is alone.
:no_files
set "status=1"
echo Some files of the app are missing here. Unpack the whole ZIP file into a folder, then double-click start.bat there.
echo アプリのファイルが足りません。ZIP ファイルをすべてフォルダーに展開して、そこの start.bat をダブルクリックしてください。
goto wait
