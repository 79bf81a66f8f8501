/* Whether this processor has the instructions for which the compiler made a kernel. This text ends every kernel.
 *
 * The compiler makes a kernel for the processor that it sees (-march=native), or for the one that its own flags name. Where the kernel
 * is loaded there may be another one.
 */
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

int ssl_dc_runs_here(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#ifdef __SSE4_2__
    if (!__builtin_cpu_supports("sse4.2")) return 0;
#endif
#ifdef __AVX__
    if (!__builtin_cpu_supports("avx")) return 0;
#endif
#ifdef __AVX2__
    if (!__builtin_cpu_supports("avx2")) return 0;
#endif
#ifdef __FMA__
    if (!__builtin_cpu_supports("fma")) return 0;
#endif
#ifdef __BMI2__
    if (!__builtin_cpu_supports("bmi2")) return 0;
#endif
#ifdef __AVX512F__
    if (!__builtin_cpu_supports("avx512f")) return 0;
#endif
#ifdef __AVX512BW__
    if (!__builtin_cpu_supports("avx512bw")) return 0;
#endif
#ifdef __AVX512DQ__
    if (!__builtin_cpu_supports("avx512dq")) return 0;
#endif
#ifdef __AVX512VL__
    if (!__builtin_cpu_supports("avx512vl")) return 0;
#endif
#ifdef __AVX512VNNI__
    if (!__builtin_cpu_supports("avx512vnni")) return 0;
#endif
#if defined(__AVXVNNI__) || defined(__AVX512FP16__) || defined(__AVX512BF16__) /* not every compiler knows these by name */
    unsigned a = 0, b = 0, c = 0, d = 0;
#ifdef __AVXVNNI__
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 4 & 1)) return 0;
#endif
#ifdef __AVX512BF16__
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return 0;
#endif
#ifdef __AVX512FP16__
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 23 & 1)) return 0;
#endif
#endif
#elif defined(__aarch64__) && defined(__linux__)
#ifdef __ARM_FEATURE_DOTPROD
    if (!(getauxval(AT_HWCAP) >> 20 & 1)) return 0; /* HWCAP_ASIMDDP */
#endif
#ifdef __ARM_FEATURE_SVE
    if (!(getauxval(AT_HWCAP) >> 22 & 1)) return 0; /* HWCAP_SVE */
#endif
#ifdef __ARM_FEATURE_SVE2
    if (!(getauxval(AT_HWCAP2) >> 1 & 1)) return 0; /* HWCAP2_SVE2 */
#endif
#ifdef __ARM_FEATURE_MATMUL_INT8
    if (!(getauxval(AT_HWCAP2) >> 13 & 1)) return 0; /* HWCAP2_I8MM */
#endif
#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
    if (!(getauxval(AT_HWCAP2) >> 14 & 1)) return 0; /* HWCAP2_BF16 */
#endif
#endif
    return 1;
}
