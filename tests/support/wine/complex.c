/* The complex functions of ucrtbase.dll, which Wine 8 lacks, as Windows passes them: a complex float in one register, a complex
 * double by its address. The rest of ucrtbase.dll is Wine's (see gaps.py). */
#include <complex.h>
#include <math.h>

typedef struct { float re, im; } Float;
typedef struct { double re, im; } Double;

static float _Complex from_float(Float x) {
    float _Complex z;
    __real__ z = x.re;
    __imag__ z = x.im;
    return z;
}

static Float to_float(float _Complex z) {
    Float x = {__real__ z, __imag__ z};
    return x;
}

static double _Complex from_double(Double x) {
    double _Complex z;
    __real__ z = x.re;
    __imag__ z = x.im;
    return z;
}

static Double to_double(double _Complex z) {
    Double x = {__real__ z, __imag__ z};
    return x;
}

#define COMPLEX(name) \
    Float own_##name##f(Float x) { return to_float(name##f(from_float(x))); } \
    Double own_##name(Double x) { return to_double(name(from_double(x))); } \
    Double own_##name##l(Double x) { return to_double(name(from_double(x))); }
#define REAL(name, of_float, of_double) \
    float own_##name##f(Float x) { return of_float; } \
    double own_##name(Double x) { return of_double; } \
    double own_##name##l(Double x) { return of_double; }

COMPLEX(cacos) COMPLEX(cacosh) COMPLEX(casin) COMPLEX(casinh) COMPLEX(catan) COMPLEX(catanh) COMPLEX(ccos)
COMPLEX(ccosh) COMPLEX(cexp) COMPLEX(clog) COMPLEX(conj) COMPLEX(cproj) COMPLEX(csin) COMPLEX(csinh)
COMPLEX(csqrt) COMPLEX(ctan) COMPLEX(ctanh)
REAL(creal, x.re, x.re)
REAL(cimag, x.im, x.im)
REAL(cabs, hypotf(x.re, x.im), hypot(x.re, x.im))
REAL(carg, atan2f(x.im, x.re), atan2(x.im, x.re))
Float own_cpowf(Float x, Float y) { return to_float(cpowf(from_float(x), from_float(y))); }
Double own_cpow(Double x, Double y) { return to_double(cpow(from_double(x), from_double(y))); }
Double own_cpowl(Double x, Double y) { return own_cpow(x, y); }
