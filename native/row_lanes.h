// Vectors of SHORTLIST_LANES floats, and how rows of each number type become them.
//
// Knows one instruction set at a time: row_kernels.cc includes this file once for each,
// with the macros SHORTLIST_NAMESPACE, SHORTLIST_TARGET and SHORTLIST_LANES. So it has
// no include guard. Knows nothing of bags or rules.

namespace shortlist {
namespace SHORTLIST_NAMESPACE {

constexpr std::size_t kLanes = SHORTLIST_LANES;
typedef float Lanes __attribute__((vector_size(SHORTLIST_LANES * 4)));
typedef std::uint32_t Words __attribute__((vector_size(SHORTLIST_LANES * 4)));
typedef std::int32_t Integers __attribute__((vector_size(SHORTLIST_LANES * 4)));
typedef std::uint16_t Halves __attribute__((vector_size(SHORTLIST_LANES * 2)));

template <typename To, typename From>
SHORTLIST_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// x - 0 is x for every x, so this is one broadcast.
SHORTLIST_INLINE Lanes all_lanes(float value) { return value - Lanes{}; }

SHORTLIST_INLINE Lanes square_root(Lanes values) {
#if SHORTLIST_LANES == 16
  // With a mask, here and below: without one GCC 12 warns about its own header.
  return _mm512_maskz_sqrt_ps(static_cast<__mmask16>(0xFFFF), values);
#elif SHORTLIST_LANES == 8
  return _mm256_sqrt_ps(values);
#elif defined(SHORTLIST_X86)
  return _mm_sqrt_ps(values);
#else
  for (std::size_t i = 0; i < kLanes; ++i) values[i] = std::sqrt(values[i]);
  return values;
#endif
}

// Adds neighbours of a halved vector again and again: one fixed tree.
SHORTLIST_INLINE float sum_of(Lanes values) {
  float left[kLanes];
  std::memcpy(left, &values, sizeof(left));
#pragma GCC unroll 4
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (std::size_t i = 0; i < half; ++i) left[i] += left[i + half];
  }
  return left[0];
}

// The first `count` values, zeros behind them.
SHORTLIST_INLINE Lanes load_floats(const float* from, std::size_t count) {
  Lanes values;
  if (count >= kLanes) {
    std::memcpy(&values, from, sizeof(values));
    return values;
  }
#if SHORTLIST_LANES == 16
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), from);
#else
  values = Lanes{};
  for (std::size_t i = 0; i < count; ++i) values[i] = from[i];
  return values;
#endif
}

SHORTLIST_INLINE void store_floats(float* to, Lanes values, std::size_t count) {
  if (count >= kLanes) {
    std::memcpy(to, &values, sizeof(values));
    return;
  }
#if SHORTLIST_LANES == 16
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1u), values);
#else
  for (std::size_t i = 0; i < count; ++i) to[i] = values[i];
#endif
}

SHORTLIST_INLINE Halves load_halves(const std::uint16_t* from, std::size_t count) {
  Halves values = {};
  if (count >= kLanes) {
    std::memcpy(&values, from, sizeof(values));
  } else {
    for (std::size_t i = 0; i < count; ++i) values[i] = from[i];
  }
  return values;
}

SHORTLIST_INLINE void store_halves(std::uint16_t* to, Words words, std::size_t count) {
  const Halves values = __builtin_convertvector(words, Halves);
  if (count >= kLanes) {
    std::memcpy(to, &values, sizeof(values));
  } else {
    for (std::size_t i = 0; i < count; ++i) to[i] = values[i];
  }
}

// 32 random bits for each column from `column` on: the hash of reference.random_bits.
// `place` mixes the row, the step and the seed.
SHORTLIST_INLINE Words random_bits(std::uint32_t place, std::size_t column) {
  Words columns;
#pragma GCC unroll 16
  for (std::uint32_t i = 0; i < kLanes; ++i) columns[i] = i * 0x85EBCA77u;
  Words x = columns + static_cast<std::uint32_t>(column) * 0x85EBCA77u;
  x ^= place;
  x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
  x = (x ^ (x >> 13)) * 0xC2B2AE35u;
  return x ^ (x >> 16);
}

struct Float32 {
  using Stored = float;
  SHORTLIST_INLINE Lanes load(const Stored* from, std::size_t count) {
    return load_floats(from, count);
  }
  SHORTLIST_INLINE void store(Stored* to, Lanes values, std::size_t count,
                              std::uint32_t, std::size_t) {
    store_floats(to, values, count);
  }
};

// Two bytes are rounded at random, so that small moves count on average: the magnitude
// is cut after a random number below its last digit was added.
struct Bfloat16 {
  using Stored = std::uint16_t;
  SHORTLIST_INLINE Lanes load(const Stored* from, std::size_t count) {
    const Words words = __builtin_convertvector(load_halves(from, count), Words);
    return bits_as<Lanes>(words << 16);
  }
  SHORTLIST_INLINE void store(Stored* to, Lanes values, std::size_t count,
                              std::uint32_t place, std::size_t column) {
    const Words draws = random_bits(place, column) & 0xFFFFu;
    store_halves(to, (bits_as<Words>(values) + draws) >> 16, count);
  }
};

struct Float16 {
  using Stored = std::uint16_t;
  SHORTLIST_INLINE Lanes load(const Stored* from, std::size_t count) {
    const Halves halves = load_halves(from, count);
#if SHORTLIST_LANES == 16
    return _mm512_maskz_cvtph_ps(static_cast<__mmask16>(0xFFFF),
                                 bits_as<__m256i>(halves));
#elif SHORTLIST_LANES == 8
    return _mm256_cvtph_ps(bits_as<__m128i>(halves));
#else
    // The bits as those of a float32 are the value times 2^-112.
    const Words words = __builtin_convertvector(halves, Words);
    const Lanes scaled = bits_as<Lanes>((words & 0x7FFFu) << 13) * 0x1p112f;
    // All ones in the exponent: infinity and NaN.
    const Words special = bits_as<Words>((words & 0x7C00u) == 0x7C00u) & 0x7F800000u;
    return bits_as<Lanes>(bits_as<Words>(scaled) | special | (words & 0x8000u) << 16);
#endif
  }
  SHORTLIST_INLINE void store(Stored* to, Lanes values, std::size_t count,
                              std::uint32_t place, std::size_t column) {
    const Words draws = random_bits(place, column) & 0x1FFFu;
    const Words sign = (bits_as<Words>(values) >> 16) & 0x8000u;
    const Lanes magnitude = bits_as<Lanes>(bits_as<Words>(values) & 0x7FFFFFFFu);
    Words bits = (bits_as<Words>(magnitude) + draws) >> 13;
    bits -= 112u << 10;  // the bias of the exponent: 127 - 15
    // Below 2^-14 a float16 is a multiple of 2^-24, and its bits are that multiple.
    const Lanes least = all_lanes(0x1p-14f);
    const Lanes small = magnitude < least ? magnitude : least;
    const Lanes share =
        __builtin_convertvector(bits_as<Integers>(draws), Lanes) * 0x1p-13f;
    const Integers multiple =
        __builtin_convertvector(small * 0x1p24f + share, Integers);
    bits = magnitude < least ? bits_as<Words>(multiple) : bits;
    const Words greatest = Words{} + 0x7BFFu;  // 65504
    bits = (magnitude >= all_lanes(65504.0f)) | (bits > greatest) ? greatest : bits;
    bits = magnitude != magnitude ? Words{} + 0x7E00u : bits;
    store_halves(to, bits | sign, count);
  }
};

// Asks for all cache lines of `bytes` bytes, for the second level cache: so many lines
// are on their way that the first level has no room to wait for them.
SHORTLIST_INLINE void prefetch(const void* from, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(from);
  for (std::uintptr_t line = begin & ~std::uintptr_t{63}; line < begin + bytes;
       line += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(line), 0, 2);
  }
}

}  // namespace SHORTLIST_NAMESPACE
}  // namespace shortlist
