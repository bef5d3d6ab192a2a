// x = K^-1 y of an autoregressive convolution, in one launch: the sums of `invconv.kernels.order`.
//
// A grid has four axes (`invconv.kernels.cuda.plan`). A unit of work is a band of rows of one plane
// of one image; a residue class of the planes' dilation is an image of its own. i and j count rows
// of a band and columns along the direction of the convolution. A block of threads solves a unit:
//
// 1. It takes a ticket, its unit's number, so that it waits only for units that are at work.
// 2. The band goes to shared memory, a record of channels for each pixel, with zeros around it.
// 3. At all pixels at once: the sums over W_0 y and over the taps that read earlier planes, from x.
//    They take the place of y: SUMS sums of each channel.
// 4. Level after level: the sums over the taps within the plane. Pixel (i, j) is on level
//    j + SLOPE i, and every tap reads an earlier level. The rows above the band are read from x,
//    as far as the band above says that it is. The last rows are written to x at once.
// 5. The rest of x is written.

struct Unit {  // of work
  long long start;          // where pixel (0, 0), channel 0 is in y and x
  int image, band, plane[2];
  int height, first;        // of the plane; the band's first row
  int rows, columns, levels;
};

DEVICE Unit unit_of(const Grid& g, int number) {
  Unit u;
  u.image = number % g.images;
  u.band = number / g.images % g.bands;
  u.plane[0] = number / g.images / g.bands / g.extent[1];
  u.plane[1] = number / g.images / g.bands % g.extent[1];
  const int residues = g.dilation[2] * g.dilation[3], residue = u.image % residues;
  const int place[4] = {u.plane[0], u.plane[1], residue / g.dilation[3], residue % g.dilation[3]};
  u.height = (g.extent[2] - place[2] + g.dilation[2] - 1) / g.dilation[2];
  u.columns = (g.extent[3] - place[3] + g.dilation[3] - 1) / g.dilation[3];
  u.first = u.band * g.rows;
  u.rows = min(g.rows, u.height - u.first);
  u.levels = u.rows > 0 ? u.columns + SLOPE * (u.rows - 1) : 0;
  u.start = (long long)(u.image / residues) * C;  // y is contiguous: (batch, C, the grid)
  for (int a = 0; a < 4; a++) u.start *= g.extent[a];
  for (int a = 0; a < 4; a++) {
    const int from_end = g.extent[a] - 1 - place[a], stride = g.step[a] / g.dilation[a];
    u.start += (long long)(g.step[a] > 0 ? place[a] : -from_end) * stride;
  }
  u.start += u.first * (long long)g.step[2];
  return u;
}

// Add the products of one tap with the records at X[at[r] - back], for R pixels; the weights of
// input channels are STRIDE numbers apart.
template <int STRIDE, int R>
DEVICE void add(const REAL* X, const int (&at)[R], int back, const REAL* weights,
                REAL (&sum)[R][SUMS]) {
#pragma unroll UNROLLED
  for (int k = 0; k < C; k += VECTOR) {
    const REAL* w = weights + k * STRIDE;
    Vector read[R];
#pragma unroll
    for (int r = 0; r < R; r++) read[r] = *(const Vector*)(X + at[r] - back + k);
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      if (k + v >= C) break;
#pragma unroll
      for (int r = 0; r < R; r++)
        sum[r][(k + v) % SUMS] = fma(w[v * STRIDE], read[r].at[v], sum[r][(k + v) % SUMS]);
    }
  }
}

// The number of the plane that a tap reads, or -1 outside the grid.
DEVICE int plane_read(const Grid& g, const Unit& u, const Offset& tap) {
  const int p = u.plane[0] - tap.axis[0] * g.dilation[0];
  const int q = u.plane[1] - tap.axis[1] * g.dilation[1];
  const bool inside = 0 <= p && p < g.extent[0] && 0 <= q && q < g.extent[1];
  return inside ? p * g.extent[1] + q : -1;
}

struct Block {  // what the threads of a block share
  const Grid& g;
  const Unit u;
  const REAL* weights;
  REAL* X;    // the records, in shared memory
  REAL* x;    // where pixel (0, 0), channel 0 is in memory
  int kept;   // so many rows are written at the end; the band below reads the others
  int slots;  // pixels at a time

  DEVICE int record(int i, int j) const { return (GAP + (i + DEPTH) * g.pitch + j) * RECORD; }
  DEVICE int pixel(int i, int j) const { return i * g.step[2] + j * g.step[3]; }
  DEVICE int size() const { return g.extent[0] * g.extent[1] * g.extent[2] * g.extent[3]; }
};

// Substitute with D at R pixels: C steps, with a barrier in each.
template <int R>
DEVICE void substitute(const Block& b, const int (&at)[R], const bool (&there)[R], int o,
                       REAL (&x)[R]) {
  const REAL* D = b.weights + DIAGONAL;
  for (int n = 0; n < C; n++) {
    const int c = b.g.lower ? n : C - 1 - n;
    for (int r = 0; r < R; r++)
      if (there[r] && o == c) b.X[at[r] + c] = x[r] = x[r] / D[c * C + c];
    __syncthreads();
    for (int r = 0; r < R; r++)
      if (there[r] && (b.g.lower ? o > c : o < c)) x[r] = fma(-D[o * C + c], b.X[at[r] + c], x[r]);
  }
}

// x of `count` pixels of level d, from row `low` on, R at a time for each thread.
template <int R>
DEVICE void level(const Block& b, int d, int low, int count, bool substitutes,
                  const REAL* weights) {
  const int slot = threadIdx.x / C, o = threadIdx.x % C;
  for (int base = 0; base < count; base += b.slots * R) {
    REAL sum[R][SUMS], total[R];
    int at[R];
    bool there[R];
#pragma unroll
    for (int r = 0; r < R; r++) {
      const int n = base + slot + r * b.slots;
      there[r] = slot < b.slots && n < count;
      const int i = low + (there[r] ? n : 0);
      at[r] = b.record(i, d - SLOPE * i);
#pragma unroll
      for (int q = 0; q < SUMS; q++) sum[r][q] = there[r] ? b.X[at[r] + q * C + o] : 0;
    }
#pragma unroll TAPS_UNROLLED
    for (int t = 0; t < PLANE; t++) {
      const Offset tap = reach(CROSS + t);
      const int back = (tap.axis[2] * b.g.pitch + tap.axis[3]) * RECORD;
      add<APART>(b.X, at, back, weights + t * C * APART, sum);
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
      total[r] = sum[r][0];
#pragma unroll
      for (int q = 1; q < SUMS; q++) total[r] += sum[r][q];
    }
    if (substitutes) substitute<R>(b, at, there, o, total);
#pragma unroll
    for (int r = 0; r < R; r++) {
      if (!there[r]) continue;
      const int i = low + base + slot + r * b.slots;
      if (!substitutes) b.X[at[r] + o] = total[r];
      if (i >= b.kept)
        b.x[o * (long long)b.size() + b.pixel(i, d - SLOPE * i)] = total[r];
    }
  }
}

// Put the sums over W_0 y and over the taps in earlier planes in the place of y.
DEVICE void begin_sums(const Block& b) {
  const int slot = threadIdx.x / C, o = threadIdx.x % C, pixels = max(0, b.u.rows) * b.u.columns;
  for (int base = 0; base < pixels; base += b.slots * PIXELS) {
    REAL sum[PIXELS][SUMS] = {};
    int at[PIXELS], i[PIXELS], j[PIXELS];
    bool there[PIXELS];
#pragma unroll
    for (int r = 0; r < PIXELS; r++) {
      const int n = base + slot + r * b.slots;
      there[r] = slot < b.slots && n < pixels;
      i[r] = (there[r] ? n : base) / b.u.columns;  // idle threads read no pixel of another round
      j[r] = (there[r] ? n : base) % b.u.columns;
      at[r] = b.record(i[r], j[r]);
    }
    add<C>(b.X, at, 0, b.weights + o, sum);
    for (int t = 0; t < CROSS; t++) {
      const Offset tap = reach(t);
      if (plane_read(b.g, b.u, tap) < 0) continue;
      const REAL* weights = b.weights + (1 + t) * SQUARE + o;
#pragma unroll
      for (int r = 0; r < PIXELS; r++) {
        const int row = b.u.first + i[r] - tap.axis[2], column = j[r] - tap.axis[3];
        if (!there[r] || row < 0 || row >= b.u.height || column < 0 || column >= b.u.columns)
          continue;
        const REAL* z = b.x + b.pixel(i[r], j[r]);
        for (int a = 0; a < 4; a++) z -= tap.axis[a] * (long long)b.g.step[a];
#pragma unroll UNROLLED
        for (int k = 0; k < C; k++)
          sum[r][k % SUMS] = fma(weights[k * C], z[k * (long long)b.size()], sum[r][k % SUMS]);
      }
    }
    __syncthreads();  // all have read the y of this round
#pragma unroll
    for (int r = 0; r < PIXELS; r++)
#pragma unroll
      for (int q = 0; q < SUMS; q++)
        if (there[r]) b.X[at[r] + q * C + o] = sum[r][q];
  }
}

// Copy the rows above the band, of the levels from `start` to before `end`, to shared memory.
DEVICE void read_above(const Block& b, int start, int end) {
  constexpr int rows = DEPTH > 0 ? DEPTH : 1;
  for (int n = threadIdx.x; n < (end - start) * rows * C; n += blockDim.x) {
    const int a = 1 + n % rows, d = start + n / rows % (end - start), c = n / rows / (end - start);
    const int j = d + SLOPE * a;
    if (0 <= j && j < b.u.columns && a <= b.u.first)
      b.X[b.record(-a, j) + c] = b.x[c * (long long)b.size() + b.pixel(-a, j)];
  }
}

// The counters are zero at first: how many tickets are taken, then each unit's progress. Where no
// unit waits for another there are none.
KERNEL solve(const REAL* __restrict__ y, REAL* x, const REAL* __restrict__ weights, int* counters,
             const Grid g) {
  SHARED_MEMORY(memory);
  int* ticket = (int*)memory;
  REAL* X = (REAL*)(memory + 16);
  const int numbers = (GAP + (g.rows + DEPTH) * g.pitch) * RECORD;
  const int slots = blockDim.x / C;
  const bool waits = g.bands > 1 || g.extent[0] * g.extent[1] > 1;
  const REAL* within = weights + (1 + CROSS) * SQUARE;
#if SHARED_WEIGHTS
  for (int n = threadIdx.x; n < PLANE * SQUARE; n += blockDim.x) X[numbers + n] = within[n];
  within = X + numbers;
#endif
  for (int n = threadIdx.x; n < numbers; n += blockDim.x) X[n] = 0;
  if (waits && threadIdx.x == 0) *ticket = atomicAdd(counters, 1);
  __syncthreads();  // the zeros, weights and ticket are there
  const int number = waits ? *ticket : (int)blockIdx.x;
  const Unit u = unit_of(g, number);
  const bool follows = DEPTH > 0 && u.band > 0, leads = DEPTH > 0 && u.band + 1 < g.bands;
  const int kept = leads ? u.rows - DEPTH : max(0, u.rows);
  const Block b{g, u, weights, X, x + u.start, kept, slots};
  const int pixels = max(0, u.rows) * u.columns;
  for (int n = threadIdx.x; n < pixels * C; n += blockDim.x) {
    const int i = n / u.columns % u.rows, j = n % u.columns, c = n / pixels;
    X[b.record(i, j) + c] = y[u.start + c * (long long)b.size() + b.pixel(i, j)];
  }
  for (int n = threadIdx.x; n < CROSS * g.bands; n += blockDim.x) {
    const int plane = plane_read(g, u, reach(n / g.bands)), band = n % g.bands;
    if (plane >= 0) wait(counters + 1 + (plane * g.bands + band) * g.images + u.image, ALL_DONE);
  }
  __syncthreads();  // y and the earlier planes are there
  begin_sums(b);

  const bool substitutes = weights[FLAG] != 0;
  within += threadIdx.x % C;
#if KEPT
  REAL in_registers[PLANE * C];
#pragma unroll
  for (int n = 0; n < PLANE * C; n++) in_registers[n] = within[n * C];
  within = in_registers;
#endif
  int* own = counters + 1 + number;
  for (int start = follows && u.levels > 0 ? -g.chunk : 0; start < u.levels; start += g.chunk) {
    if (follows && threadIdx.x == 0) wait(own - g.images, start + g.chunk + SLOPE * g.rows);
    __syncthreads();  // earlier levels are solved, and the rows above that are copied now
    if (leads && threadIdx.x == 0 && start > 0) publish(own, start);
    if (follows) read_above(b, start < 0 ? -SLOPE * DEPTH : start, start + g.chunk);
    for (int d = max(0, start); d < min(start + g.chunk, u.levels); d++) {
      if (d > start) __syncthreads();  // earlier levels are solved
      const int low = SLOPE > 0 ? max(0, (d - u.columns + SLOPE) / STEEP) : 0;
      const int count = (SLOPE > 0 ? min(u.rows - 1, d / STEEP) : u.rows - 1) - low + 1;
      if (count > 2 * slots)
        level<PIXELS>(b, d, low, count, substitutes, within);
      else if (count > slots)
        level<2>(b, d, low, count, substitutes, within);
      else
        level<1>(b, d, low, count, substitutes, within);
    }
  }
  __syncthreads();  // all levels are solved
  if (leads && threadIdx.x == 0) publish(own, LEVELS_DONE);
  for (int n = threadIdx.x; n < kept * u.columns * C; n += blockDim.x) {
    const int i = n / u.columns % kept, j = n % u.columns, c = n / u.columns / kept;
    b.x[c * (long long)b.size() + b.pixel(i, j)] = X[b.record(i, j) + c];
  }
  if (g.extent[0] * g.extent[1] > 1) {
    __syncthreads();  // all of x is written
    if (threadIdx.x == 0) publish(own, ALL_DONE);
  }
}
