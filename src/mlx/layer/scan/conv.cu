// A short convolution of each row's vectors, and what the row keeps of them: block (UNIT elements, new token).
//
// TAPS vectors meet in one result, of WIDTH elements, of type T; BIASED: the kernel has a row more, which is added; SILU: an activation behind it. The first UNITS blocks of a token are then
// divided by their length, and of these the first QUERIES by the root of UNIT.
// step, at [1]: see step.cu; the recurrent layer's number. x [tokens, WIDTH]; kernel [TAPS or one more, WIDTH]. mixed [tokens, WIDTH], f32.
// A state begins with the row's last TAPS - 1 vectors, [TAPS - 1, WIDTH].
const StepWords now(step);
const int token = blockIdx.y, row = now.rows()[token];
const int2 run = now.runs()[row];
const int own = token - run.x, e = blockIdx.x * UNIT + threadIdx.x;
const bool there = threadIdx.x < UNIT && e < WIDTH;
float sum = 0;
if (there) {
  const T* before = reinterpret_cast<const T*>(now.state(at[0], row)[0]);
  T* after = reinterpret_cast<T*>(now.state(at[0], row)[1]);
  for (int tap = 0; tap < TAPS; tap++) {
    const int from = own + tap - (TAPS - 1);
    const T seen = from < 0 ? before[(from + TAPS - 1) * WIDTH + e] : x[static_cast<long long>(run.x + from) * WIDTH + e];
    sum += static_cast<float>(seen) * static_cast<float>(kernel[tap * WIDTH + e]);
  }
  if constexpr (BIASED) sum += static_cast<float>(kernel[TAPS * WIDTH + e]);
  if constexpr (SILU) sum = sum / (1.f + __expf(-sum));
  const int kept = own - (run.y - (TAPS - 1));
  if (kept >= 0) after[kept * WIDTH + e] = x[static_cast<long long>(token) * WIDTH + e];
  // Of fewer new tokens than it keeps, some stay.
  if (own == 0) {
    for (int i = run.y; i < TAPS - 1; i++) after[(i - run.y) * WIDTH + e] = before[i * WIDTH + e];
  }
}
if constexpr (UNITS > 0) {
  if (blockIdx.x < UNITS) {
    sum *= rsqrtf(block_sum<(UNIT + 31) / 32 * 32>(sum * sum) + 1e-6f);
    if (blockIdx.x < QUERIES) sum *= rsqrtf(static_cast<float>(UNIT));
  }
}
if (there) mixed[static_cast<long long>(token) * WIDTH + e] = sum;
