// Loops over padded rows of numbers, vectorised with the compiler's vector types. Included once for each
// instruction set, inside its namespace. No loop here relies on anything but IEEE arithmetic, round to
// nearest; sums may be taken in any order and products fused, which the error terms allow for.

#ifndef LPVERIFY_VECTOR_BYTES
#error "the size of a vector register must be given"
#endif

template <class T>
struct Lanes;
template <>
struct Lanes<float> {
    typedef float Vector __attribute__((vector_size(LPVERIFY_VECTOR_BYTES)));
};
template <>
struct Lanes<double> {
    typedef double Vector __attribute__((vector_size(LPVERIFY_VECTOR_BYTES)));
};

template <class T>
constexpr int lanes() {
    return LPVERIFY_VECTOR_BYTES / static_cast<int>(sizeof(T));
}

// Rows are padded to a whole number of the widest vectors, whatever the instruction set.
constexpr int PADDING = 16;

inline int padded(int width) { return (width + PADDING - 1) / PADDING * PADDING; }

template <class T>
inline typename Lanes<T>::Vector load(const T* p) {
    typename Lanes<T>::Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline void store(T* p, typename Lanes<T>::Vector v) {
    std::memcpy(p, &v, sizeof v);
}

// `ROWS` rows of `c += a[:, chosen] w[chosen, :]`, `COLUMNS` vectors of columns at a time.
template <class T, int ROWS, int COLUMNS>
inline void multiply_tile(const T* a, int lda, const int* chosen, int count, const T* w, int ldw, T* c, int ldc) {
    typename Lanes<T>::Vector sum[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < COLUMNS; ++v) sum[r][v] = load<T>(c + r * ldc + v * lanes<T>());
    for (int q = 0; q < count; ++q) {
        const int j = chosen[q];
        typename Lanes<T>::Vector row[COLUMNS];
        for (int v = 0; v < COLUMNS; ++v) row[v] = load<T>(w + static_cast<std::size_t>(j) * ldw + v * lanes<T>());
        for (int r = 0; r < ROWS; ++r) {
            const T factor = a[r * lda + j];
            for (int v = 0; v < COLUMNS; ++v) sum[r][v] += factor * row[v];
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < COLUMNS; ++v) store<T>(c + r * ldc + v * lanes<T>(), sum[r][v]);
}

template <class T, int COLUMNS>
inline void multiply_strip(const T* a, int lda, int rows, const int* chosen, int count, const T* w, int ldw, T* c,
                           int ldc) {
    int r = 0;
    for (; r + 6 <= rows; r += 6)
        multiply_tile<T, 6, COLUMNS>(a + r * lda, lda, chosen, count, w, ldw, c + r * ldc, ldc);
    for (; r + 2 <= rows; r += 2)
        multiply_tile<T, 2, COLUMNS>(a + r * lda, lda, chosen, count, w, ldw, c + r * ldc, ldc);
    if (r < rows) multiply_tile<T, 1, COLUMNS>(a + r * lda, lda, chosen, count, w, ldw, c + r * ldc, ldc);
}

// `c (rows, columns) += a[:, chosen] w[chosen, :]`; columns are padded in `w` and `c`.
template <class T>
void multiply(const T* a, int lda, int rows, const int* chosen, int count, const T* w, int ldw, T* c, int ldc,
              int columns) {
    constexpr int L = lanes<T>();
    int i = 0;
    for (; i + 2 * L <= columns; i += 2 * L) multiply_strip<T, 2>(a, lda, rows, chosen, count, w + i, ldw, c + i, ldc);
    for (; i < columns; i += L) multiply_strip<T, 1>(a, lda, rows, chosen, count, w + i, ldw, c + i, ldc);
}

template <class T>
inline T sum_lanes(typename Lanes<T>::Vector v) {
    T total = 0;
    for (int i = 0; i < lanes<T>(); ++i) total += v[i];
    return total;
}

template <class T>
inline typename Lanes<T>::Vector absolute(typename Lanes<T>::Vector v) {
    return v < 0 ? -v : v;
}
