// Error factors and outward steps; the counterpart of lpverify/interval.py. Included once for each
// instruction set, inside its namespace.

constexpr double INFINITE = std::numeric_limits<double>::infinity();
constexpr double DOUBLE = 0x1p-53;    // unit roundoff of double
constexpr double UNDERFLOW = 1e-300;  // above any error of a few operations that underflow in double

template <class T>
constexpr double unit() {
    return sizeof(T) == 8 ? 0x1p-53 : 0x1p-24;
}

// Above the error of one product or sum that underflows.
template <class T>
constexpr double smallest() {
    return sizeof(T) == 8 ? 1e-305 : 0x1p-149;
}

// Relative error of a sum of `terms` products in any order (Higham 2002, section 3.1).
inline double gamma_of(double terms, double unit) {
    const double product = (terms + 1) * unit;
    return product < 0.5 ? product / (1 - product) * (1 + 1e-9) : INFINITE;
}

// Factor that makes a computed sum of non-negative products an upper bound of it.
template <class T>
inline double inflation(double terms) {
    return 1 + 2 * gamma_of(terms + 8, unit<T>());
}

inline double step_down(double x) { return x - (std::fabs(x) * 0x1p-52 + UNDERFLOW); }
inline double step_up(double x) { return x + (std::fabs(x) * 0x1p-52 + UNDERFLOW); }

// A number of type T that is not below (above) x.
template <class T>
inline T cast_up(double x) {
    if (sizeof(T) == 8) return static_cast<T>(x);
    return static_cast<T>(x + (std::fabs(x) * 0x1p-22 + 0x1p-147));
}

template <class T>
inline T cast_down(double x) {
    return -cast_up<T>(-x);
}

inline bool is_nan(double x) { return !(x == x); }
