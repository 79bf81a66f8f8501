/* What an activation and a weight are in float32: floats. */
#ifndef SSL_DC_NUMBERS_H
#define SSL_DC_NUMBERS_H

#include "vectors.h"

typedef float Element, Weight;
#define DEPTH 1 /* elements in a lane of a vector that is multiplied */
#define VECTOR (VL * DEPTH)
#define BLOCK (VL * NV)
#include "program.h"

/* What is multiplied: a vector of memory, and a number for all lanes. */
typedef vec Operand;
typedef float Broadcast;
INLINE Operand operand_at(const Element *x) { return *(const vec *)x; }
INLINE Broadcast broadcast_at(const Element *x) { return *x; }
#define HOLD_OPERAND(x) HOLD(x)
#define SPLIT_OPERANDS 0 /* whether an operand takes two registers */
#define ADD_PRODUCTS(sum, x, w) sum += (x) * (w)

INLINE vec numbers_at(const Element *x) { return *(const vec *)x; }
INLINE void put_numbers(Element *y, vec numbers) { *(vec *)y = numbers; }
INLINE Element element_of(float number) { return number; }

#endif
