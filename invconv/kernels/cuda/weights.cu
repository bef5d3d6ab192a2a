// The weights W_0, W_1, ... of `invconv.kernels.order` from D, K_1, K_2, ..., in two launches.
//
// A number says whether the solve substitutes: the host never looks. Each number is computed as the
// kernel of the CPU does (`invconv.kernels.cpu.weights`), so that both have the same bits.

// K_t's entry that tap t multiplies input channel k by for output channel o, or D's
DEVICE REAL entry(const REAL* matrices, int t, int k, int o) {
  static constexpr int order[] = {ORDER};
  return matrices[(long long)order[t] * SQUARE + o * C + k];
}

DEVICE REAL plain(const REAL* matrices, int t, int k, int o) {
  return t == 0 ? REAL(o == k) : -entry(matrices, t, k, o);
}

// Put D^-1 [1 | -K_1 | -K_2 ...] into the weights, a column a thread.
KERNEL fold(const REAL* __restrict__ matrices, REAL* weights, const Grid g) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x, t = n / C, k = n % C;
  if (t > TAPS) return;
  REAL* column = weights + (long long)n * C;
  for (int i = 0; i < C; i++) {
    const int o = g.lower ? i : C - 1 - i;
    REAL sum = plain(matrices, t, k, o);
    for (int j = 0; j < i; j++) {
      const int m = g.lower ? j : C - 1 - j;
      sum = fma(-matrices[o * C + m], column[m], sum);
    }
    column[o] = sum / matrices[o * C + o];
  }
  if (t > 0) return;
  REAL inverse = 0, given = 0;
  for (int o = 0; o < C; o++) {
    inverse += fabs(column[o]);
    given += fabs(matrices[o * C + k]);
  }
  weights[NORMS + k] = inverse;
  weights[NORMS + C + k] = given;
}

DEVICE REAL largest(const REAL* norms) {
  REAL known = 0;
  for (int k = 0; k < C; k++)
    if (!(norms[k] <= known) && known == known) known = norms[k];  // NaN stays
  return known;
}

// Decide whether D^-1 is accurate, and put W_0 = 1, W_t = -K_t where it is not.
KERNEL decide(const REAL* __restrict__ matrices, REAL* weights, const Grid) {
  const bool accurate = largest(weights + NORMS + C) * largest(weights + NORMS) <= REAL(LIMIT);
  const int threads = gridDim.x * blockDim.x;
  for (int n = blockIdx.x * blockDim.x + threadIdx.x; n <= FLAG; n += threads) {
    if (n < DIAGONAL && !accurate) weights[n] = plain(matrices, n / SQUARE, n / C % C, n % C);
    if (n >= DIAGONAL && n < FLAG) weights[n] = matrices[n - DIAGONAL];
    if (n == FLAG) weights[n] = accurate ? 0 : 1;
  }
}
