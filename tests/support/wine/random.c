/* bcryptprimitives.dll, which Wine 8 lacks: the random numbers that the standard library of Rust asks for. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE numbers, SIZE_T length) {
    return SystemFunction036(numbers, (ULONG)length) ? TRUE : FALSE;
}
