/* The python.exe of a virtual environment, as CPython's own: it reads from pyvenv.cfg where the real one lies, and runs that
 * with the environment in __PYVENV_LAUNCHER__. The build of CPython that is at hand has none. */
#include <stdio.h>
#include <wchar.h>
#include <windows.h>

static BOOL WINAPI ignore(DWORD event) {
    (void)event;
    return TRUE;
}

static FILE *open_settings(const wchar_t *self) {
    static wchar_t path[4096];
    wcscpy(path, self);
    for (int up = 0; up < 2; up++) { /* beside this program, or one folder higher */
        wchar_t *end = wcsrchr(path, L'\\');
        wcscpy(end, L"\\pyvenv.cfg");
        FILE *file = _wfopen(path, L"rb");
        if (file) return file;
        *end = 0;
    }
    return NULL;
}

int wmain(void) {
    static wchar_t self[4096], home[4096], program[4096];
    static char line[8192];
    GetModuleFileNameW(NULL, self, 4096);
    FILE *settings = open_settings(self);
    if (!settings) {
        fprintf(stderr, "No pyvenv.cfg file\n");
        return 106;
    }
    while (fgets(line, sizeof line, settings)) {
        if (strncmp(line, "home = ", 7) != 0) continue;
        line[strcspn(line, "\r\n")] = 0;
        MultiByteToWideChar(CP_UTF8, 0, line + 7, -1, home, 4096);
    }
    fclose(settings);
    _snwprintf(program, 4095, L"%ls\\python.exe", home);
    SetEnvironmentVariableW(L"__PYVENV_LAUNCHER__", self);
    SetConsoleCtrlHandler(ignore, TRUE);
    /* The real one ends with this one. */
    HANDLE job = CreateJobObject(NULL, NULL);
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK;
    SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits);
    STARTUPINFOW start;
    PROCESS_INFORMATION process;
    GetStartupInfoW(&start);
    start.cb = sizeof start;
    start.dwFlags = STARTF_USESTDHANDLES;
    start.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    start.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    start.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    if (!CreateProcessW(program, GetCommandLineW(), NULL, NULL, TRUE, 0, NULL, NULL, &start, &process)) {
        fprintf(stderr, "Unable to create process\n");
        return 101;
    }
    AssignProcessToJobObject(job, process.hProcess);
    WaitForSingleObject(process.hProcess, INFINITE);
    DWORD status = 1;
    GetExitCodeProcess(process.hProcess, &status);
    return (int)status;
}
