/* The maximum over windows. */
#ifndef SSL_DC_MAXPOOL_H
#define SSL_DC_MAXPOOL_H

static void maxpool(const Op *op, const State *s, int member, int members) {
    int64_t from, to;
    share(op->y.height, member, members, &from, &to);
    for (int row = (int)from; row < to; row++)
        for (int column = 0; column < op->y.width; column++) {
            const Window window = window_at(op, s, row, column);
            const Element *x = window.x;
            Element *y = window.y;
            for (int i = 0; i < op->y.stride; i += VL) {
                vec best = numbers_at(x + i);
                for (int r = 0; r < window.rows; r++)
                    for (int c = 0; c < window.columns; c++) {
                        vec v = numbers_at(x + (int64_t)r * op->x.line + (int64_t)c * op->x.stride + i);
                        ivec kept = ~(v > best) & (v == v); /* a NaN wins, as in torch */
                        best = (vec)((kept & (ivec)best) | (~kept & (ivec)v));
                    }
                put_numbers(y + i, best);
            }
        }
}

#endif
