/* A stand-in for Python, curl, certutil, tar and uv on Windows. It notes how it was called in %STANDIN%\log, as lines of UTF-8:
 *     where the program lies|current directory|PYTHONPATH|its name and its arguments
 * Its exit status is that of the first line in %STANDIN%\rules (status, space, part of a call) whose part occurs
 * in its name and arguments, else 0. With the status 0 it makes what the program would: make_environment.py makes
 * venv\Scripts\python.exe, tar uv\new\uv.exe, uv a Python, or its name; certutil prints the checksum that is in %STANDIN%\checksum. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>

static char module[4096], directory[4096], path[4096], call[32768];

static void utf8(const wchar_t *text, char *out, int size) {
    WideCharToMultiByte(CP_UTF8, 0, text, -1, out, size, NULL, NULL);
}

static FILE *open_note(const wchar_t *name, const wchar_t *mode) {
    static wchar_t file[4096];
    _snwprintf(file, 4095, L"%ls\\%ls", _wgetenv(L"STANDIN"), name);
    return _wfopen(file, mode);
}

static int status(void) {
    char line[4096];
    int found = 0;
    FILE *rules = open_note(L"rules", L"rb");
    while (rules && fgets(line, sizeof line, rules)) {
        char *part;
        int number = (int)strtol(line, &part, 10);
        line[strcspn(line, "\r\n")] = 0;
        if (strstr(call, part + 1)) {
            found = number;
            break;
        }
    }
    if (rules) fclose(rules);
    return found;
}

static void make(const wchar_t *self, wchar_t *file) {
    for (wchar_t *part = wcschr(file, L'\\'); part; part = wcschr(part + 1, L'\\')) {
        *part = 0;
        CreateDirectoryW(file, NULL);
        *part = L'\\';
    }
    CopyFileW(self, file, FALSE);
}

static void print_checksum(void) {
    char line[128] = "";
    FILE *note = open_note(L"checksum", L"rb");
    if (note && fgets(line, sizeof line, note)) printf("SHA256 hash of a file:\r\n%s\r\nCertUtil: done\r\n", line);
    if (note) fclose(note);
}

int wmain(void) {
    static wchar_t self[4096], here[4096];
    const wchar_t *line = GetCommandLineW(), *given = _wgetenv(L"PYTHONPATH");
    GetModuleFileNameW(NULL, self, 4096);
    GetCurrentDirectoryW(4096, here);
    utf8(self, module, sizeof module);
    utf8(here, directory, sizeof directory);
    if (given) utf8(given, path, sizeof path);
    /* The arguments begin after the program, which may be in quotes. */
    int quoted = 0;
    for (; *line && (quoted || *line != L' '); line++) quoted ^= *line == L'"';
    while (*line == L' ') line++;
    const char *name = strrchr(module, '\\') + 1;
    int length = sprintf(call, "%.*s ", (int)strcspn(name, "."), name);
    utf8(line, call + length, (int)sizeof call - length);
    FILE *log = open_note(L"log", L"ab");
    fprintf(log, "%s|%s|%s|%s\n", module, directory, path, call);
    fclose(log);
    if (status() == 0) {
        wchar_t environment[] = L"venv\\Scripts\\python.exe", uv[] = L"uv\\new\\uv.exe";
        wchar_t python[] = L"uv\\python\\cpython-3.13.9-windows-x86_64-none\\python.exe";
        if (strstr(call, "make_environment.py")) make(self, environment);
        if (strncmp(call, "tar ", 4) == 0) make(self, uv);
        if (strncmp(call, "uv --version", 12) == 0) printf("uv 0.13.9\r\n");
        else if (strncmp(call, "uv ", 3) == 0) make(self, python);
        if (strncmp(call, "certutil ", 9) == 0) print_checksum();
    }
    return status();
}
