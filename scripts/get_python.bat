@echo off
rem Gets a Python with uv where start.bat has found none, into the folder "uv" here. Nothing is written anywhere
rem else. Says why it could not. The version and checksum of uv are in uv.txt, words in python_*.txt.
set "tools=%SystemRoot%\System32"
set "UV_PYTHON_INSTALL_DIR=%root%uv\python"
set "UV_CACHE_DIR=%root%uv\cache"
set "UV_PYTHON_INSTALL_BIN=0"
set "UV_PYTHON_INSTALL_REGISTRY=0"
set "UV_SYSTEM_CERTS=1"
type scripts\python_getting.txt
rem One that a scanner has damaged is fetched again.
if exist "uv\uv.exe" for /f %%a in ('uv\uv.exe --version 2^>nul') do if "%%a"=="uv" goto get
for %%t in (curl certutil tar) do if not exist "%tools%\%%t.exe" goto no_tools
for /f "usebackq tokens=1-3" %%a in ("scripts\uv.txt") do if "%%a"=="windows" call :remember %%b %%c
if not exist "uv\new" mkdir uv\new 2>nul
if not exist "uv\new" goto no_room
"%tools%\curl.exe" --fail --location --silent --show-error --retry 3 --connect-timeout 30 --output uv\new\uv.zip "%uv_address%"
if "%errorlevel%"=="0" goto verify
rem Curl's exit codes: no such proxy, refused, broken off, unknown certificate; half a download; no room.
for %%e in (5 22 56 60 77 97) do if "%errorlevel%"=="%%e" goto proxy
if "%errorlevel%"=="18" goto damaged
if "%errorlevel%"=="23" goto no_room
goto no_network
:verify
"%tools%\certutil.exe" -hashfile uv\new\uv.zip SHA256 | "%tools%\find.exe" "%uv_checksum%" >nul
if not "%errorlevel%"=="0" goto damaged
"%tools%\tar.exe" -xf uv\new\uv.zip -C uv\new --strip-components 2 "*/scripts/uv.exe"
if not "%errorlevel%"=="0" goto no_room
rem Moved when it is whole, so that what lies there is never a half.
move /y uv\new\uv.exe uv\uv.exe >nul
rmdir /s /q uv\new
:get
rem Also where uv counts one as there: it does not work, or start.bat would have taken it.
uv\uv.exe python install --reinstall 3.13
if "%errorlevel%"=="0" exit /b 0
type scripts\python_not_got.txt
exit /b 1
:no_tools
type scripts\python_no_tools.txt
exit /b 1
:no_network
type scripts\python_no_network.txt
goto failed
:proxy
type scripts\python_proxy.txt
goto failed
:damaged
type scripts\python_damaged.txt
goto failed
:no_room
type scripts\python_no_room.txt
:failed
rmdir /s /q uv\new 2>nul
exit /b 1

:remember
set "uv_checksum=%~1"
set "uv_address=%~2"
exit /b 0
