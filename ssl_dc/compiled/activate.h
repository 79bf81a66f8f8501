/* Activations by themselves. */
#ifndef SSL_DC_ACTIVATE_H
#define SSL_DC_ACTIVATE_H

INLINE const Element *pixel_of(const Activation *a, const State *s, int64_t row, int column) {
    return s->arena + a->offset + row * a->line + (int64_t)column * a->stride;
}

/* y = activation(x), pixel by pixel; y may have other rows than x, as tokens have. */
static void activate(const Op *op, const State *s, int member, int members) {
    const int n = present(op, s);
    int64_t from, to;
    share((int64_t)op->y.height * op->y.width, member, members, &from, &to);
    for (int64_t i = from; i < to; i++)
        activate_numbers(op->activation, pixel_of(&op->x, s, i / op->x.width, (int)(i % op->x.width)),
                         (Element *)pixel_of(&op->y, s, i / op->y.width, (int)(i % op->y.width)), n);
}

#endif
