/* The operations that the kernels in float32 and bf16 share. What they do with numbers is in float32_numbers.h and bf16_numbers.h. */
#ifndef SSL_DC_OPERATIONS_H
#define SSL_DC_OPERATIONS_H

#include "activations.h"
#include "vec_lanes.h"
#include "rows.h"
#include "columns.h"
#include "picked.h"
#include "packed.h"
#if DEPTH == 2
#include "bf16_packing.h"
#endif
#include "maxpool.h"
#include "means.h"
#include "gate.h"
#include "activate.h"

static void execute_shared(const Op *op, State *s, int member, Team *team) {
    int members = team->members;
    switch (op->kind) {
    case ROWS:
        columns_of_outputs(op, s, member, team);
        break;
    case COLUMNS:
#if DEPTH == 2
        if (op->in_site >= 0) {
            columns_of_kept(op, s, member, team);
            break;
        }
#endif
        columns(op, s, member, members, all_outputs(op, s));
        break;
    case PACKED:
        rows_of_both(op, s, member, team);
        break;
    case MAXPOOL:
        maxpool(op, s, member, members);
        break;
    case MEAN:
        sums(op, s, member, members);
        barrier(team);
        if (!member) means(op, s, (float *)(s->arena + op->y.offset));
        break;
    case GATE:
        sums(op, s, member, members);
        barrier(team);
        if (!member) decide(op, s);
        break;
    case ACTIVATE:
        activate(op, s, member, members);
        break;
    }
}

#endif
