/* Vectors of VL floats, as wide as those of the processor, by vector types of the compiler (GCC, Clang). */
#ifndef SSL_DC_VECTORS_H
#define SSL_DC_VECTORS_H

#include <stdint.h>

#if defined(SSL_DC_PLAIN)
#define VL 4
#define NV 2
#define REGISTERS 16
#elif defined(__AVX512F__)
#define VL 16
#define NV 4 /* vectors of outputs that the columns kernel holds for each pixel */
#define REGISTERS 32
#elif defined(__AVX__)
#define VL 8
#define NV 2
#define REGISTERS 16
#elif defined(__aarch64__)
#define VL 4
#define NV 4
#define REGISTERS 32
#else
#define VL 4
#define NV 2
#define REGISTERS 16
#endif
#if VL == 16
#define CP 6 /* pixels that the columns kernel computes at once */
#else
#define CP 5
#endif
#define MOST_PIXELS (REGISTERS == 32 ? 2 * CP : 8) /* the same with half of the vectors or less */

typedef float vec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(VL * 4), aligned(4), may_alias));

/* Keep a vector in a register here: GCC would read it again each time, or move sums from register to register. */
#if defined(__x86_64__)
#define HOLD(v) __asm__ volatile("" : "+v"(v))
#else
#define HOLD(v)
#endif

#endif
