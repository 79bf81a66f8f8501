/* The types and sizes by which weights and activations in int8 are laid out, by the host (int8_layout.py) too. */
#ifndef SSL_DC_INT8_LAYOUT_H
#define SSL_DC_INT8_LAYOUT_H

typedef uint8_t Element;
typedef int8_t Weight;

#define GROUP 16           /* outputs whose weights for 4 inputs make 64 bytes, in every layout of weights for columns */
#define GROUPS_OF_BLOCK 4
#define VECTOR 16          /* the channels of a pixel are padded to a multiple of this, and the rows of a gate's layers */
#define BLOCK (GROUP * GROUPS_OF_BLOCK)
#define ROW 64             /* the weights of an output are padded to a multiple of this for each row of taps */

#include "program.h"

static int padded(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

#endif
