/* The activations that the kernels for floats know, as functions of vectors.
 *
 * A NaN stays a NaN in each of them, as in torch.
 */
#ifndef SSL_DC_ACTIVATIONS_H
#define SSL_DC_ACTIVATIONS_H

/* The numbers of ACTIVATIONS in activations.py. */
enum activation { NONE = 0, RELU = 1, GELU = 2, SILU = 3, HARDSWISH = 4, SIGMOID = 5, HARDSIGMOID = 6, RELU6 = 7 };

INLINE vec all(float x) { return x - (vec){0}; }
INLINE vec choose(ivec which, vec yes, vec no) { return (vec)((which & (ivec)yes) | (~which & (ivec)no)); }
INLINE vec clamped(vec v, float low, float high) {
    v = choose(v < all(low), all(low), v);
    return choose(v > all(high), all(high), v);
}

/* 1 / v for v from 1e-30 to 1e36, to 2 units in the last place: a guess from the bits and three steps of Newton's method take less
 * time than a division. */
INLINE vec reciprocal(vec v) {
    vec y = (vec)(0x7ef311c7u - (uvec)v);
    for (int i = 0; i < 3; i++) y *= 2.0f - v * y;
    return y;
}

/* exp up to 80, to 2 units in the last place: 2^n exp(r) with |r| <= ln(2) / 2. The polynomial is that of Cephes' expf. Adding 1.5 * 2^23 rounds to a whole number n, which is then in the low bits. */
INLINE vec exp_vec(vec v) {
    v = clamped(v, -87.3f, 80.0f);
    const vec shifted = v * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
    const vec r = v - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vec)(((uvec)shifted << 23) + 0x3f800000u);
}

/* erf, to 4e-7, as a quotient of polynomials: the one that XLA uses. */
INLINE vec erf_vec(vec v) {
    v = clamped(v, -3.7439211627767994f, 3.7439211627767994f);
    const vec x = v * v;
    vec p = x * 0.00022905065861350646f + 0.0034082910107109506f;
    p = p * x + 0.050955695062380861f;
    p = p * x + 0.18520832239976145f;
    p = p * x + 1.128379143519084f;
    vec q = x * -1.1791602954361697e-7f + 0.000023547966471313185f;
    q = q * x + 0.0010179625278914885f;
    q = q * x + 0.014070470171167667f;
    q = q * x + 0.11098505178285362f;
    q = q * x + 0.49746925110067538f;
    q = q * x + 1.0f;
    return v * p * reciprocal(q);
}

INLINE vec none_vec(vec v) { return v; }
INLINE vec relu_vec(vec v) { return (vec)(~(v < (vec){0}) & (ivec)v); }
INLINE vec gelu_vec(vec v) { return 0.5f * v * (1.0f + erf_vec(v * 0.70710678118654752f)); }
INLINE vec silu_vec(vec v) { return v * reciprocal(1.0f + exp_vec(-v)); }
INLINE vec sigmoid_vec(vec v) { return reciprocal(1.0f + exp_vec(-v)); }
INLINE vec relu6_vec(vec v) { return clamped(v, 0.0f, 6.0f); }
INLINE vec hardsigmoid_vec(vec v) { return relu6_vec(v + 3.0f) * (1.0f / 6.0f); }
INLINE vec hardswish_vec(vec v) { return v * relu6_vec(v + 3.0f) * (1.0f / 6.0f); }

/* Activate n numbers, up to a whole vector. x and y may be the same. */
typedef void (*activation_fn)(const float *x, float *y, int n);
#define ACTIVATION_FN(name)                                                                           \
    static void name##_all(const float *x, float *y, int n) {                                         \
        for (int i = 0; i < n; i += VL) *(vec *)(y + i) = name##_vec(*(const vec *)(x + i));           \
    }
ACTIVATION_FN(none)
ACTIVATION_FN(relu)
ACTIVATION_FN(gelu)
ACTIVATION_FN(silu)
ACTIVATION_FN(hardswish)
ACTIVATION_FN(sigmoid)
ACTIVATION_FN(hardsigmoid)
ACTIVATION_FN(relu6)
static const activation_fn ACTIVATION_OF[] = {none_all, relu_all, gelu_all, silu_all, hardswish_all, sigmoid_all, hardsigmoid_all,
                                              relu6_all};

/* y = activation(x), for n elements, up to a whole vector. x and y may be the same. */
INLINE void activate_numbers(int activation, const Element *x, Element *y, int n) {
    if (DEPTH == 1) {
        ACTIVATION_OF[activation]((const float *)x, (float *)y, n);
        return;
    }
    float numbers[VL];
    for (int i = 0; i < n; i += VL) {
        *(vec *)numbers = numbers_at(x + i);
        ACTIVATION_OF[activation](numbers, numbers, VL);
        put_numbers(y + i, *(vec *)numbers);
    }
}

#endif
